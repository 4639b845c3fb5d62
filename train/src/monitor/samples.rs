//! The sample generations that a line of the log carries, for whoever shows them.

use serde::Serialize;
use serde_json::Value;
use std::fmt::Write;

/// One generation beside what was wanted.
#[derive(Debug, Serialize)]
pub(super) struct Sample {
    pub(super) prompt: String,
    pub(super) wanted: String,
    pub(super) got: String,
    pub(super) right: bool,
}

/// The samples of a line; none of most.
pub(super) fn of(line: &Value) -> Vec<Sample> {
    let sample = |sample: &Value| Sample {
        prompt: text(&sample["prompt"]),
        wanted: text(&sample["wanted"]),
        got: text(&sample["got"]),
        right: sample["right"].as_bool().unwrap_or(false),
    };
    line["samples"].as_array().map_or_else(Vec::new, |samples| samples.iter().map(sample).collect())
}

/// Text as it is; all else as JSON.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| format!("{value:#}"), str::to_owned)
}

/// The samples as Markdown. What was written stands in indented blocks, where it means nothing but itself.
pub(super) fn markdown(samples: &[Sample]) -> String {
    let mut page = String::new();
    for (number, Sample { prompt, wanted, got, right }) in (1..).zip(samples) {
        let verdict = if *right { "right" } else { "wrong" };
        let _ = write!(page, "### {number}: {verdict}\n\n");
        for (label, text) in [("prompt, its end", prompt), ("wanted", wanted), ("got", got)] {
            let block: String = text.split(['\n', '\r']).map(|line| format!("    {line}\n")).collect();
            let _ = write!(page, "{label}\n\n{block}\n");
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_models_write_cannot_leave_its_block() {
        let line = json!({"samples": [{"prompt": "a\n# b\r\n<b>", "wanted": [{"name": "f"}], "got": "```\n\nout", "right": true}]});
        let page = markdown(&of(&line));
        let ours = ["### 1: right", "prompt, its end", "wanted", "got"];
        for text in page.lines().filter(|text| !text.is_empty()) {
            assert!(text.starts_with("    ") || ours.contains(&text), "{text}");
        }
        assert!(page.contains("    # b\n") && page.contains("    out\n") && page.contains("\"name\": \"f\""), "{page}");
        assert_eq!(markdown(&of(&json!({"event": "step"}))), "");
    }
}
