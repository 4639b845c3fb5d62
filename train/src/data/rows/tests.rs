//! What comes out of files that are not as they should be.

use super::*;
use std::path::PathBuf;

/// Line and content of each row, flaws by their reason.
fn read(name: &str, bytes: &[u8], longest: usize) -> Vec<String> {
    let (_folder, path) = file(name, bytes);
    let row = |row: io::Result<Row>| {
        let Row { line, json, .. } = row.unwrap();
        format!("{line}: {}", json.map_or_else(|flaw| flaw.reason.to_string(), |json| json.to_string()))
    };
    open(&path, Some(longest)).unwrap().map(row).collect()
}

fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn lines_are_rows_whatever_stands_between_them() {
    let bytes = b"\xef\xbb\xbf{\"a\":1}\r\n\r\n  \n{\"b\":\xff}\n{\"c\":\"\0\"}\nwords\n{\"d\":\n{\"e\":5}";
    let expected = ["1: {\"a\":1}", "4: not UTF-8", "5: NUL byte", "6: not JSON", "7: cut off", "8: {\"e\":5}"];
    assert_eq!(read("a.jsonl", bytes, 100), expected);
}

#[test]
fn a_row_that_is_too_long_is_skipped_and_the_next_is_read() {
    let long = "x".repeat(500);
    let lines = format!("{{\"a\":1}}\n\"{long}\"\n{{\"b\":2}}\n\"{long}\"");
    let expected = ["1: {\"a\":1}", "2: too long", "3: {\"b\":2}", "4: too long"];
    assert_eq!(read("a.jsonl", lines.as_bytes(), 100), expected);
    let array = format!("[{{\"a\":1}},\n\"{long}\",\n{{\"b\":2}}]");
    assert_eq!(read("a.json", array.as_bytes(), 100), expected[..3]);
    let table = format!("a,b\n1,2\n\"{long}\",2\n3,4\n");
    let expected = ["2: {\"a\":\"1\",\"b\":\"2\"}", "3: too long", "4: {\"a\":\"3\",\"b\":\"4\"}"];
    assert_eq!(read("a.csv", table.as_bytes(), 100), expected);
}

#[test]
fn a_row_of_exactly_the_longest_length_is_taken() {
    assert_eq!(
        read("a.jsonl", b"123456\n1234567\n12345678\n123456789", 7),
        ["1: 123456", "2: 1234567", "3: too long", "4: too long"]
    );
}

#[test]
fn elements_of_an_array_are_rows_wherever_their_lines_break() {
    let text = "\u{feff} [ {\"a\": \"],[\\\"\"},\n {\n\"b\": [1, {\"c\": 2}]\n} , 3\n, {\"d\":}, \"x\" ]\n\n";
    let expected = ["1: {\"a\":\"],[\\\"\"}", "2: {\"b\":[1,{\"c\":2}]}", "4: 3", "5: not JSON", "5: \"x\""];
    assert_eq!(read("a.json", text.as_bytes(), 100), expected);
    assert_eq!(read("a.json", b"[]", 100), [] as [&str; 0]);
}

#[test]
fn an_array_that_is_cut_off_or_goes_on_keeps_its_good_elements() {
    assert_eq!(read("a.json", b"[{\"a\":1},\n{\"b\":", 100), ["1: {\"a\":1}", "2: cut off"]);
    assert_eq!(read("a.json", b"[1", 100), ["1: cut off"]);
    assert_eq!(read("a.json", b"[1,,2]\n[3]", 100), ["1: 1", "1: not JSON", "1: 2", "2: not JSON"]);
}

#[test]
fn a_missing_quote_or_bracket_costs_its_element_alone() {
    let broken = [
        r#"{"p":"x,"r":["y"]}"#,
        r#"{"p":"x","r":["y]}"#,
        r#"{"p:"x","r":["y"]}"#,
        r#"{"p":"say "x" now","r":["y"]}"#,
        r#"{"p":"x","r":["y"]"#,
        r#"{"p":"x","r":["y"}"#,
        r#"{"p":"x","r":"y"]}"#,
        r#"{"p":"x","r":"y"}}"#,
        r#"{"p":[{"r":"y",{"r":"z"}]}"#,
    ];
    for element in broken {
        for between in [",", ",\n", ", \n  "] {
            let good = [r#"{"p":"a","r":["b"]}"#, r#"{"p":"c","r":[{"q":"d"},{"q":"e"}]}"#];
            let text = format!("[{between}{}]", [good[0], element, good[1], good[0]].join(between));
            let text = text.replacen(between.trim_end(), "", 1);
            let rows = read("a.json", text.as_bytes(), 1000);
            let kept = rows.iter().filter(|row| row.contains(": {")).count();
            assert_eq!(kept, 3, "{text}: {rows:?}");
            assert!(rows.len() <= 5, "{text}: {rows:?}");
        }
    }
}

#[test]
fn a_broken_element_over_several_lines_costs_itself_alone() {
    let element = "  {\n    \"p\": [\n      {\"q\": \"x\"},\n      {\"q\": \"y\"}\n    ]\n  }";
    for (sound, broken) in [("\"x\"}", "\"x}"), ("\"x\"}", "\"x\""), ("\n    ]", ""), ("\"p\"", "\"p")] {
        let text = format!("[\n{element},\n{},\n{element}\n]\n", element.replace(sound, broken));
        let rows = read("a.json", text.as_bytes(), 1000);
        let kept = rows.iter().filter(|row| row.contains(": {")).count();
        assert!(kept == 2 && rows.len() <= 4, "{text}: {rows:?}");
    }
}

#[test]
fn what_is_not_read_is_told_by_its_size() {
    let flaws = |name: &str, bytes: &[u8]| {
        let (_folder, path) = file(name, bytes);
        let rows = open(&path, Some(100)).unwrap().map(Result::unwrap);
        rows.filter_map(|row| row.json.err()).map(|flaw| flaw.detail).collect::<Vec<_>>()
    };
    let open = format!("a,b\n\"1,2\n{}", "3,4\n".repeat(100));
    assert_eq!(
        flaws("a.csv", open.as_bytes()),
        ["a quote opens here and never closes; the 405 bytes after it are not read"]
    );
    assert_eq!(flaws("a.json", b"[{\"a\":[1"), ["the file ends inside this element, of which 7 bytes are not read"]);
    assert_eq!(flaws("a.json", b"[1]\n{}}"), ["text after the array, of which 3 bytes are not read"]);
}

#[test]
fn a_quote_within_a_cell_is_text_also_at_the_end_of_the_file() {
    let expected = [r#"2: {"a":"x","b":"27\" wide"}"#, r#"3: {"a":"y","b":"28\" wide"}"#];
    assert_eq!(read("a.csv", b"a,b\nx,27\" wide\ny,28\" wide", 100), expected);
    assert_eq!(read("a.csv", b"a,b\nx,\"27\"\" wide\"\ny,28\" wide", 100), expected);
}

#[test]
fn json_that_would_not_be_kept_as_it_is_is_a_flaw() {
    let bytes = b"{\"a\":1,\"a\":2}\n{\"a\":123456789012345678901}\n{\"a\":1}";
    assert_eq!(read("a.jsonl", bytes, 100), ["1: unkeepable values", "2: unkeepable values", "3: {\"a\":1}"]);
}

#[test]
fn a_row_has_its_text_on_one_line() {
    let (_folder, path) = file("a.json", b"[{\"a\":\n  1.50}]");
    let texts: Vec<_> = open(&path, None).unwrap().map(|row| row.unwrap().text).collect();
    assert_eq!(texts, ["{\"a\":   1.50}"]);
}

#[test]
fn cells_keep_their_commas_quotes_and_line_breaks() {
    let text = "\u{feff}mr,ref\r\n\"a, b\",\"say \"\"hi\"\"\r\nthere\"\r\n\r\nx,y\r\n";
    let expected = ["2: {\"mr\":\"a, b\",\"ref\":\"say \\\"hi\\\"\\r\\nthere\"}", "5: {\"mr\":\"x\",\"ref\":\"y\"}"];
    assert_eq!(read("a.csv", text.as_bytes(), 100), expected);
}

#[test]
fn a_flawed_row_of_a_table_leaves_the_others() {
    let bytes = b"a,b\n1,2,3\n\xff,2\n\0,2\n3,4\n5,\"6";
    let expected =
        ["2: wrong number of cells", "3: not UTF-8", "4: NUL byte", "5: {\"a\":\"3\",\"b\":\"4\"}", "6: cut off"];
    assert_eq!(read("a.CSV", bytes, 100), expected);
}

#[test]
fn a_header_that_names_a_column_twice_is_refused() {
    let (_folder, path) = file("a.csv", b"a,b, a\n1,2,3\n");
    let error = open(&path, None).err().unwrap().to_string();
    assert!(error.contains("a.csv: header: wrong number of cells: two columns are called `a`"), "{error}");
}

#[test]
fn empty_files_have_no_rows() {
    for name in ["a.jsonl", "a.csv", "a.json"] {
        assert_eq!(read(name, b"", 100), [] as [&str; 0]);
        assert_eq!(read(name, b"\xef\xbb\xbf\n", 100), [] as [&str; 0]);
    }
}

#[test]
fn archives_and_other_forms_are_refused_with_what_to_do() {
    let mut tar = vec![b'a'; 512];
    tar[257..262].copy_from_slice(b"ustar");
    for (bytes, remedy) in [
        (b"PK\x03\x04../x".as_slice(), "unzip"),
        (b"\x1f\x8b\x08", "gunzip"),
        (&tar, "tar -x"),
        (b"PAR1", "Parquet"),
        (b"\xff\xfea\0", "iconv"),
    ] {
        let (_folder, path) = file("a.jsonl", bytes);
        let error = open(&path, None).err().unwrap().to_string();
        assert!(error.contains(remedy) && error.contains("a.jsonl"), "{error}");
    }
}
