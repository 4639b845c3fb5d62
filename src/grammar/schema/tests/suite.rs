//! JSON-Schema-Test-Suite and BFCL: every schema is refused or right, and real functions are not refused. Without the data
//! they say so and check nothing.

use crate::grammar::schema::{admit, admit_parameters, standardised};
use crate::grammar::testing::{Lab, Random, WordEnv, byte_env, complaint};
use crate::testing::data_set;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn groups(suite: &Path, draft: &str) -> Vec<(String, Value)> {
    let folder = suite.join(draft);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: &PathBuf| -> Vec<(String, Value)> {
        let groups: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        groups.into_iter().map(|group| (format!("{name}: {}", group["description"]), group)).collect()
    };
    files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "json")).flat_map(read).collect()
}

#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    not_compiled: usize,
    admitted: usize,
    right: usize,
    narrowed: usize,
    samples: usize,
    wrong: Vec<String>,
}

#[test]
fn every_schema_of_the_suite_is_refused_or_right() {
    let Some(suite) = data_set("json-schema-test-suite/tests") else { return };
    let (bytes, words) = (Lab::new(byte_env()), Lab::new(WordEnv::shared()));
    for (draft, uri) in [("draft2020-12", None), ("draft7", Some("http://json-schema.org/draft-07/schema#"))] {
        let mut tally = Tally::default();
        for (name, group) in groups(&suite, draft) {
            let mut schema = group["schema"].clone();
            if let (Some(map), Some(uri)) = (schema.as_object_mut(), uri) {
                map.insert("$schema".into(), json!(uri));
            }
            let admitted = match admit(&schema) {
                Ok(admitted) => admitted,
                Err(_) => {
                    tally.refused += 1;
                    continue;
                }
            };
            match bytes.schema(&admitted) {
                Ok(constraint) => {
                    tally.admitted += 1;
                    for test in group["tests"].as_array().unwrap() {
                        let accepted = bytes.accepts(constraint.fork(), &test["data"].to_string());
                        match (accepted, test["valid"] == true) {
                            (true, false) => tally.wrong.push(format!("{name}: {}", test["description"])),
                            (false, true) => tally.narrowed += 1,
                            _ => tally.right += 1,
                        }
                    }
                }
                Err(_) => {
                    tally.not_compiled += 1;
                    continue;
                }
            }
            let constraint = words.schema(&admitted).unwrap();
            for seed in 1..60 {
                let Some(text) = words.sample(constraint.fork(), &mut Random::new(seed), 200) else { continue };
                tally.samples += 1;
                tally.wrong.extend(complaint(&schema, &text).map(|complaint| format!("{name}: {complaint}")));
            }
        }
        println!("{draft}: {tally:#?}");
        assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
        assert!(tally.admitted >= 130 && tally.not_compiled <= 6 && tally.right >= 450, "{tally:#?}");
    }
}

#[test]
fn functions_of_bfcl_are_admitted() {
    let Some(bfcl) = data_set("bfcl") else { return };
    let lab = Lab::new(byte_env());
    let (mut admitted, mut refused) = (0, Vec::new());
    for file in ["live_simple", "multiple", "parallel", "simple_python", "irrelevance"] {
        let text = std::fs::read_to_string(bfcl.join(format!("BFCL_v4_{file}.json"))).unwrap();
        for line in text.lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            for function in case["function"].as_array().unwrap() {
                let schema = standardised(&function["parameters"]);
                match admit_parameters(&Some(schema)).and_then(|copy| lab.schema(&copy)) {
                    Ok(_) => admitted += 1,
                    Err(error) => refused.push(format!("{}: {error}", function["name"])),
                }
            }
        }
    }
    println!("{admitted} admitted, refused: {refused:#?}");
    assert!(admitted > 100 * refused.len());
}
