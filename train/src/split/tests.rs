use super::*;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// A line whose assistant calls `called` where `offered` are offered.
fn line(request: &str, offered: &[String], called: &[String]) -> String {
    let call = |name: &String| json!({"id": "1", "type": "function", "function": {"name": name, "arguments": "{}"}});
    let answer = match called.is_empty() {
        true => json!({"role": "assistant", "content": "No."}),
        false => {
            json!({"role": "assistant", "content": null, "tool_calls": called.iter().map(call).collect::<Vec<_>>()})
        }
    };
    let tools: Vec<Value> =
        offered.iter().map(|name| json!({"type": "function", "function": {"name": name}})).collect();
    json!({"messages": [{"role": "user", "content": request}, answer], "tools": tools}).to_string()
}

fn function(number: usize) -> String {
    format!("f{number}")
}

/// 400 dialogues over 40 functions, each with a distractor; every eighth calls two, every tenth none.
fn dialogues() -> Vec<String> {
    let one = |n: usize| {
        let (first, second, distractor) = (function(n % 40), function((n + 1) % 40), function((n * 7 + 3) % 40));
        let called = match n {
            _ if n.is_multiple_of(10) => Vec::new(),
            _ if n % 8 == 3 => vec![first.clone(), second.clone()],
            _ => vec![first.clone()],
        };
        line(&format!("request {n}"), &[first, second, distractor], &called)
    };
    (0..400).map(one).collect()
}

struct Case {
    root: tempfile::TempDir,
}

impl Case {
    fn new(lines: &[String]) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("all"), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn split(&self, by: By, share: f64, seed: u64) -> Result<Report> {
        let (train, test, rest) = (self.path("train"), self.path("test"), self.path("rest"));
        let outputs = Outputs { train: &train, test: &test, rest: Some(&rest) };
        split(&self.path("all"), &Rule { by, share, seed, longest: 1 << 20 }, &outputs)
    }

    fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name)).unwrap().lines().map(str::to_owned).collect()
    }

    fn functions(&self, name: &str) -> BTreeSet<String> {
        self.lines(name).iter().flat_map(|line| called(&native::from_line(line, name).unwrap())).collect()
    }
}

#[test]
fn no_line_is_lost_and_the_share_is_about_what_was_asked_for() {
    let lines = dialogues();
    for by in [By::Dialogue, By::Function] {
        let case = Case::new(&lines);
        let report = case.split(by, 0.25, 1).unwrap();
        let share = report.test as f64 / (report.train + report.test) as f64;
        assert!((0.1..0.4).contains(&share), "{by:?}: {share}");
        let mut all = [case.lines("train"), case.lines("test"), case.lines("rest")].concat();
        assert_eq!((report.train + report.test + report.both) as usize, all.len());
        let mut expected = lines.clone();
        all.sort();
        expected.sort();
        assert_eq!(all, expected);
    }
}

#[test]
fn by_function_no_function_of_the_test_side_is_called_in_training() {
    let case = Case::new(&dialogues());
    let report = case.split(By::Function, 0.25, 1).unwrap();
    let (train, test) = (case.functions("train"), case.functions("test"));
    assert!(!test.is_empty() && train.is_disjoint(&test), "{train:?} {test:?}");
    assert_eq!((train, test), (report.train_functions.clone(), report.test_functions.clone()));
    assert!(report.both > 0 && report.both as usize == case.lines("rest").len());
    assert!(report.to_string().contains(&format!("{} dialogues that call functions of both sides", report.both)));
}

#[test]
fn by_family_every_dialogue_has_a_side_and_families_stay_together() {
    // Families of four; the calls of each connect them, the distractors do not.
    let one = |n: usize| {
        let (family, member) = (n % 10, n / 10 % 4);
        let [first, second] = [member, (member + 1) % 4].map(|member| function(family * 4 + member));
        let distractor = function((n * 7 + 1) % 40);
        line(&format!("{n}"), &[first.clone(), second.clone(), distractor], &[first, second])
    };
    let case = Case::new(&(0..200).map(one).collect::<Vec<_>>());
    let report = case.split(By::Family, 0.3, 2).unwrap();
    let (train, test) = (case.functions("train"), case.functions("test"));
    assert!(train.is_disjoint(&test) && !test.is_empty() && test.len().is_multiple_of(4), "{test:?}");
    assert_eq!((report.both, report.train + report.test), (0, 200));
}

#[test]
fn a_line_keeps_its_side_whatever_else_the_file_holds() {
    let lines = dialogues();
    let (whole, half) = (Case::new(&lines), Case::new(&lines[..200]));
    for by in [By::Dialogue, By::Function] {
        whole.split(by, 0.3, 5).unwrap();
        half.split(by, 0.3, 5).unwrap();
        let before = half.lines("test");
        assert_eq!(whole.lines("test")[..before.len()], before);
        whole.split(by, 0.3, 6).unwrap();
        assert_ne!(whole.lines("test").get(..before.len()), Some(&before[..]), "another seed divides otherwise");
    }
}

#[test]
fn copies_of_a_dialogue_stay_on_one_side() {
    let lines = dialogues();
    let case = Case::new(&[lines.clone(), lines].concat());
    case.split(By::Dialogue, 0.5, 3).unwrap();
    let (train, test) = (case.lines("train"), case.lines("test"));
    assert!(test.iter().all(|line| !train.contains(line)));
}

#[test]
fn lines_that_cannot_be_read_are_counted_with_their_reason() {
    let mut lines = dialogues();
    lines.insert(2, "{\"messages\": 3}".to_owned());
    let case = Case::new(&lines);
    let report = case.split(By::Dialogue, 0.2, 0).unwrap();
    assert_eq!((report.unreadable, case.lines("rest")), (1, vec![lines[2].clone()]));
    assert!(report.reasons[0].contains("all:3: `messages`"), "{:?}", report.reasons);
}

#[test]
fn a_line_above_the_limit_is_counted_and_never_held() {
    let mut lines = dialogues();
    lines.insert(1, line(&"x".repeat(1 << 20), &[], &[]));
    let report = Case::new(&lines).split(By::Dialogue, 0.2, 0).unwrap();
    assert_eq!(report.unreadable, 1);
    assert!(
        report.reasons[0].contains("all:2: longer than 1048576 bytes; raise --max-row-mib"),
        "{:?}",
        report.reasons
    );
}

#[test]
fn what_cannot_be_read_twice_is_not_divided_by_family() {
    let rule = Rule { by: By::Family, share: 0.5, seed: 0, longest: 1 << 20 };
    let outputs = Outputs { train: Path::new("train"), test: Path::new("test"), rest: None };
    let error = split(Path::new("/dev/null"), &rule, &outputs).unwrap_err().to_string();
    assert!(error.contains("/dev/null: is read twice by family"), "{error}");
}

#[test]
fn what_cannot_be_divided_leaves_no_file() {
    let one = Case::new(&[line("a", &[function(1)], &[function(1)])]);
    let error = one.split(By::Function, 0.5, 0).unwrap_err().to_string();
    assert!(error.contains("nothing is left for the") && error.contains("--seed"), "{error}");
    assert!(one.split(By::Dialogue, 1.0, 0).unwrap_err().to_string().contains("--share 1"));
    let all = one.path("all");
    let outputs = Outputs { train: &all, test: &one.path("test"), rest: None };
    let rule = Rule { by: By::Dialogue, share: 0.5, seed: 0, longest: 1 << 20 };
    assert!(split(&all, &rule, &outputs).unwrap_err().to_string().contains("named twice"));
    fs::create_dir(one.path("folder")).unwrap();
    let (folder, again) = (one.path("folder"), one.path("folder/../all"));
    for train in [&folder, &again] {
        let outputs = Outputs { train, test: &one.path("test"), rest: None };
        assert!(split(&all, &rule, &outputs).is_err(), "{}", train.display());
    }
    fs::remove_dir(folder).unwrap();
    assert_eq!(fs::read_dir(one.root.path()).unwrap().count(), 1);
}
