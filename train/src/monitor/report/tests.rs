use super::*;
use serde_json::json;

/// The log of a run of 40 steps with evaluations at 20 and 40.
fn lines() -> Vec<Value> {
    let mut lines = vec![json!({"event": "start", "step": 0, "total_steps": 40, "trainable": 777, "time": 1e9})];
    for step in [9, 19, 29, 39] {
        lines.push(json!({"event": "step", "step": step, "loss": 4.0 / step as f64, "token_accuracy": 0.5, "lr": 0.1,
            "gradient_norm": 1.0, "tokens": 100, "tokens_per_second": 50.0, "skipped": 3, "dropped": 17, "time": 1e9 + step as f64}));
    }
    for (step, loss) in [(20, 0.25), (40, 0.75)] {
        lines.push(json!({"event": "eval", "step": step, "best": step == 20, "held_out": {"loss": loss, "exact": {"single call": 0.125}}, "time": 1e9 + 40.0}));
    }
    lines
}

fn page(lines: &[Value], recipe: &str) -> String {
    let root = tempfile::tempdir().unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(root.path().join("train.jsonl"), text).unwrap();
    fs::write(root.path().join("recipe.toml"), recipe).unwrap();
    fs::read_to_string(write(root.path()).unwrap()).unwrap()
}

#[test]
fn every_evaluation_is_in_the_table_and_the_best_is_marked() {
    let page = page(&lines(), "");
    assert!(page.contains("<th>step</th><th>loss</th><th>exact single call</th><th>perplexity</th>"), "{page}");
    let row = |begin: &str| page.lines().find(|line| line.starts_with(begin)).unwrap().to_owned();
    assert!(row("<tr class=\"best\"><td>20</td><td>0.2500</td><td>0.1250</td>").ends_with("<td>best</td></tr>"));
    assert!(row("<tr><td>40</td><td>0.7500</td>").ends_with("<td></td></tr>"));
}

#[test]
fn the_counts_and_the_settings_are_shown() {
    let page = page(&lines(), "lr = 0.001");
    for (label, value) in [
        ("Steps", "40 of 40"),
        ("Trained values", "777"),
        ("Skipped steps", "3"),
        ("Dropped samples", "17"),
        ("Time", "0:00:40"),
    ] {
        assert!(page.contains(&format!("<dt>{label}</dt><dd>{value}</dd>")), "{label}: {page}");
    }
    assert!(page.contains("<pre>lr = 0.001</pre>") && page.contains("Sun, 09 Sep 2001 01:46:40 GMT"), "{page}");
}

#[test]
fn images_are_sound_and_those_without_curves_are_left_out() {
    let page = page(&lines(), "");
    let images: Vec<_> = page.split("<svg").skip(1).map(|rest| rest.split("</svg>").next().unwrap()).collect();
    for image in &images {
        roxmltree::Document::parse(&format!("<svg{image}</svg>")).unwrap();
    }
    let titles = ["Loss", "Accuracy of answer tokens", "Learning rate", "Gradient norm", "Throughput"];
    assert_eq!(images.len(), titles.len());
    assert!(titles.iter().all(|title| page.contains(&format!("<b>{title}</b>"))), "{page}");
    assert!(!page.contains("Gradient noise scale"));
}

#[test]
fn nothing_is_fetched_and_what_users_wrote_is_escaped() {
    let mut lines = lines();
    let evil = "<script>alert(\"a & b\")</script>";
    lines.push(json!({"event": "eval", "step": 40, "held_out": {"loss": 0.5, "call_accuracy": 0.5}, "samples": [
        {"prompt": evil, "wanted": [{"name": evil}], "got": "</td>", "right": false}, {"prompt": "p", "wanted": "w", "got": "g", "right": true}]}));
    lines.push(json!({"event": "failed", "step": 40, "error": evil}));
    let page = page(&lines, evil);
    assert!(!page.contains("<script") && !page.contains("got</td></td>"), "{page}");
    // The recipe, a prompt, a wanted name, and the error at the top and in the history.
    assert_eq!(page.matches("&lt;script&gt;").count(), 5);
    assert!(page.contains("<td>&lt;&#x2f;td&gt;</td><td><span class=\"bad\">wrong</span></td>"), "{page}");
    assert!(page.contains("<td>p</td><td>w</td><td>g</td><td><span class=\"good\">right</span></td>"), "{page}");
    assert!(page.contains("<b>Sample generations</b>") && page.contains("<dd>50.0 %</dd>"), "{page}");
    // The name of SVG's language is no address that is asked.
    assert!(!page.replace("http://www.w3.org/2000/svg", "").contains("http"), "{page}");
}

#[test]
fn a_long_run_shows_the_samples_of_its_first_its_best_and_its_last_evaluation() {
    let evaluation = |step: u64| {
        let samples = json!([{"prompt": "p", "wanted": "w", "got": format!("answer {step};"), "right": true}]);
        json!({"event": "eval", "step": step, "best": step <= 30, "held_out": {"loss": 0.5}, "samples": samples})
    };
    let of = |count: u64| page(&(1..=count).map(|n| evaluation(10 * n)).collect::<Vec<_>>(), "");
    let long = of(90);
    let shown: Vec<u64> = (1..=90).map(|n| 10 * n).filter(|step| long.contains(&format!("answer {step};"))).collect();
    assert_eq!(shown, [10, 30, 900]);
    assert!(long.contains("<summary>Step 30, the best</summary>"), "{long}");
    assert!(long.contains("train.jsonl has the samples of 87 more"), "{long}");
    assert!(!of(2).contains("train.jsonl"));
}

#[test]
fn the_end_is_that_of_the_last_process() {
    let ends = |events: &[&str]| {
        let lines: Vec<_> = events.iter().map(|event| json!({"event": event, "step": 7})).collect();
        ending(&lines)
    };
    assert_eq!(ends(&["start", "finished"]), "finished after 7 steps");
    assert_eq!(ends(&["start", "failed"]), "failed after step 7");
    let failed = json!({"event": "failed", "step": 7, "error": "no space"});
    assert_eq!(ending(&[failed]), "failed after step 7: no space");
    assert!(ends(&["start", "stopped"]).starts_with("stopped after step 7"));
    assert!(ends(&["start", "stopped", "resume", "start"]).contains("still running"));
    assert!(ends(&[]).contains("at step 0"));
}

#[test]
fn a_run_without_measurements_has_a_report_and_a_directory_without_a_run_has_none() {
    assert!(page(&[json!({"event": "start", "step": 0})], "").contains("Nothing has been measured yet"));
    let root = tempfile::tempdir().unwrap();
    assert!(write(root.path()).unwrap_err().to_string().contains("train.jsonl"));
}
