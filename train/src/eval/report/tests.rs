//! The page: what it shows, and that nothing a model wrote is markup.

use super::*;
use crate::eval::answerer::Reply;
use crate::eval::judged::{Figure, Judged, Verdict};
use callsmith::chat::{Conversation, Role};
use serde_json::Value;

struct Two(Vec<Case>);

impl Task for Two {
    fn title(&self) -> String {
        "a <task>".to_owned()
    }

    fn cases(&self) -> &[Case] {
        &self.0
    }

    fn judge(&self, _: &[Reply]) -> Judged {
        let figure = Figure { name: "exact".to_owned(), share: Some(0.5), of: 2 };
        let verdict = |right: bool, called: &str| Verdict {
            right,
            wanted: "f()".to_owned(),
            fault: (!right).then(|| "another function".to_owned()),
            functions: ("f".to_owned(), called.to_owned()),
        };
        Judged { metrics: Value::Null, figures: vec![figure], verdicts: vec![verdict(true, "f"), verdict(false, "g")] }
    }
}

#[test]
fn the_page_shows_figures_confusions_and_failures_and_no_foreign_markup() {
    let case = |id: &str, text: &str| Case {
        id: id.to_owned(),
        conversation: Conversation { messages: vec![Message::text(Role::User, text)], ..Conversation::default() },
    };
    let task = Two(vec![case("1", "good"), case("2", "<script>bad</script>")]);
    let reply = |text: &str| Reply { text: text.to_owned(), ..Reply::default() };
    let replies = vec![reply("f()"), reply("g(<b>)")];
    let outcome = Outcome { name: "base & more".to_owned(), judged: task.judge(&replies), replies };
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("report.html");
    write(&path, &task, &[outcome]).unwrap();
    let page = std::fs::read_to_string(&path).unwrap();
    for shown in ["a &lt;task&gt;", "base &amp; more", "50.0 %", "1 failing cases", "g(&lt;b&gt;)", "another function"]
    {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(!page.contains("<script>") && !page.contains("<td>good</td>"), "{page}");
    assert!(page.contains("rgb(var(--good) / 30%)") && page.contains("rgb(var(--bad) / 30%)"), "{page}");
}

#[test]
fn a_matrix_of_too_many_functions_keeps_those_that_were_confused() {
    let names: Vec<String> = (0..40).map(|number| format!("f{number:02}")).collect();
    let right = names.iter().flat_map(|name| [(name.as_str(), name.as_str()); 3]);
    let matrix = Matrix::of(right.chain([("f38", "f39")]));
    assert_eq!(matrix.lines.len(), FUNCTIONS);
    assert!(matrix.called.contains(&"f38") && matrix.called.contains(&"f39"));
    assert_eq!(matrix.left_out, 3 * (40 - FUNCTIONS));
}
