//! Imports as a whole: bad input, the output's bytes, what the report counts.

use super::*;
use std::fs;
use tempfile::TempDir;

/// Files given by name and content, imported with changed options.
struct Scratch(TempDir);

impl Scratch {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        Self(folder)
    }

    fn options(&self, names: &[&str]) -> ImportOptions {
        let files = names.iter().map(|name| self.0.path().join(name)).collect();
        ImportOptions { files, out: self.0.path().join("out.jsonl"), shown: 10, ..ImportOptions::default() }
    }

    fn out(&self) -> String {
        fs::read_to_string(self.0.path().join("out.jsonl")).unwrap()
    }
}

const MEANINGS: &[u8] = b"\xef\xbb\xbfmr,ref\r\n\"inform(name[A], rating[good])\",A is good.\r\nwords,B\r\n\"request(specifier[dull])\",\"Dull\xff?\"\r\n\"confirm(name[C])\",C?\r\n";

#[test]
fn flawed_rows_are_counted_and_shown_and_the_others_imported() {
    let scratch = Scratch::new(&[("a.csv", MEANINGS)]);
    let report = run(&scratch.options(&["a.csv"])).unwrap();
    assert_eq!((report.rows, report.conversations, report.flawed.rows), (4, 2, 2));
    assert_eq!(report.flawed.by_reason, BTreeMap::from([(Reason::Call, 1), (Reason::Utf8, 1)]));
    let places: Vec<_> = report.flawed.first.iter().map(|place| place.line).collect();
    assert_eq!(places, [3, 4]);
    assert!(report.to_string().contains("a.csv:3: unreadable call: not the form"), "{report}");
    let lines = scratch.out();
    let read: Vec<_> = lines.lines().map(|line| native::from_line(line, "out").unwrap()).collect();
    assert_eq!(read.iter().map(|one| one.messages[0].content.as_str()).collect::<Vec<_>>(), ["A is good.", "C?"]);
}

#[test]
fn the_same_input_and_seed_give_the_same_bytes() {
    let table: String = (0..50).map(|n| format!("request(specifier[s{n}]),{n}?\n")).collect();
    let scratch = Scratch::new(&[("a.csv", format!("mr,ref\n{table}").as_bytes())]);
    let import = |seed| {
        let turns = std::num::NonZeroUsize::new(8).unwrap();
        run(&ImportOptions { seed, viggo: ViggoSwitches { turns }, ..scratch.options(&["a.csv"]) }).unwrap();
        scratch.out()
    };
    let first = import(3);
    assert_eq!(import(3), first);
    assert_ne!(import(4), first);
    assert_eq!(first.lines().count(), 7);
}

#[test]
fn an_import_that_fails_leaves_what_was_there() {
    let scratch = Scratch::new(&[("a.csv", MEANINGS), ("b.jsonl", b"PK\x03\x04../x"), ("out.jsonl", b"before")]);
    let error = run(&scratch.options(&["a.csv", "b.jsonl"])).unwrap_err().to_string();
    assert!(error.contains("b.jsonl: is a zip archive; unpack it first"), "{error}");
    assert_eq!(scratch.out(), "before");
    assert_eq!(fs::read_dir(scratch.0.path()).unwrap().count(), 3, "nothing is left of it");
}

#[test]
fn files_without_a_conversation_are_an_error_that_says_why() {
    let scratch = Scratch::new(&[("a.jsonl", b"{\"strange\":1}\n"), ("empty.jsonl", b"")]);
    let error = run(&scratch.options(&["a.jsonl", "empty.jsonl"])).unwrap_err().to_string();
    assert!(error.contains("a.jsonl:1: unknown format: no format has the fields [\"strange\"]"), "{error}");
    assert!(!scratch.0.path().join("out.jsonl").exists());
}

const MARKED: &str = r#"{"conversations":[{"from":"system","value":"<tools>[{\"name\":\"f\"}]</tools>"},{"from":"human","value":"go"},{"from":"gpt","value":"<tool_call>{\"name\":\"f\"}</tool_call>"}]}"#;

#[test]
fn rows_with_marks_and_rows_without_them_stand_in_one_file() {
    let plain = r#"{"conversations":[{"from":"human","value":"hi"},{"from":"gpt","value":"hello"}]}"#;
    let scratch = Scratch::new(&[("a.jsonl", format!("{plain}\n{MARKED}\n{plain}\n").as_bytes())]);
    let report = run(&scratch.options(&["a.jsonl"])).unwrap();
    assert_eq!(report.formats, BTreeMap::from([("hermes", 1), ("sharegpt", 2)]));
    let read: Vec<_> = scratch.out().lines().map(|line| native::from_line(line, "out").unwrap()).collect();
    assert_eq!((read[1].tools.len(), read[1].messages[1].tool_calls.len()), (1, 1));
    let named = ImportOptions { format: Some(FormatName::Sharegpt), ..scratch.options(&["a.jsonl"]) };
    assert_eq!(run(&named).unwrap().formats, BTreeMap::from([("sharegpt", 3)]));
}

#[test]
fn a_field_that_is_not_read_is_counted_by_its_name() {
    let row = r#"{"prompt":"p","response":"x","id":1,"system":"Be brief."}"#;
    let scratch = Scratch::new(&[("a.jsonl", format!("{row}\n{row}\n").as_bytes())]);
    let report = run(&scratch.options(&["a.jsonl"])).unwrap();
    assert_eq!(report.unread, BTreeMap::from([("id".to_owned(), 2)]));
    assert!(report.to_string().contains("2 × field `id` not read"), "{report}");
}

#[test]
fn fields_of_very_many_names_are_counted_together() {
    let mut report = Report::default();
    (0..1000).for_each(|number| report.unread(&format!("{number}")));
    assert_eq!((report.unread.len(), report.unread["(others)"]), (51, 950));
}

#[test]
fn the_real_samples_are_imported_whole_or_with_a_reason_for_each_row() {
    for (set, names, rows, conversations) in [
        ("glaive-demo", ["glaive_toolcall_en_demo.json"].as_slice(), 300, 300),
        ("seal-tools", &["tool.jsonl", "dev.jsonl", "test_in_domain.jsonl"], 4_076 + 1_400, 1_400),
        ("viggo", &["valid.csv"], 714, 714),
    ] {
        let Some(folder) = crate::testing::data_set(set) else { continue };
        let scratch = Scratch::new(&[]);
        let files = names.iter().map(|name| folder.join(name)).collect();
        let report = run(&ImportOptions { files, ..scratch.options(&[]) }).unwrap();
        let rules: u64 = report.rules.values().sum();
        assert_eq!((report.rows, report.conversations + report.flawed.rows), (rows, conversations), "{report}");
        assert_eq!(report.rows, report.conversations + report.flawed.rows + rules, "{report}");
        assert!(report.flawed.rows * 10 < conversations, "{report}");
    }
}
