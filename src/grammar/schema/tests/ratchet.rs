//! JSON-Schema-Test-Suite, BFCL and Seal-Tools against a ratchet: every schema is refused or right, and what was right stays so.
//!
//! Without the data it says so and checks nothing. `CALLSMITH_UPDATE_RATCHET=1` writes the files anew,
//! `CALLSMITH_SCHEMA_SAMPLES` asks for more random answers of each schema.

use super::coverage::{ANNOTATIONS, rows, table};
use crate::grammar::schema::{admit, admit_parameters, standardised};
use crate::grammar::testing::{Lab, Random, WordEnv, byte_env, complaint};
use crate::testing::data_set;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Verdicts by suite file.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Counts {
    pub(super) right: usize,
    /// Valid, but never generated.
    pub(super) narrowed: usize,
    pub(super) refused: usize,
}

pub(super) type Ratchet = BTreeMap<String, Counts>;

const DRAFTS: [(&str, &str); 2] = [
    ("draft2020-12", "https://json-schema.org/draft/2020-12/schema"),
    ("draft7", "http://json-schema.org/draft-07/schema#"),
];

fn ratchet_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/grammar/schema/tests/ratchet.json")
}

fn table_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("grammars/SCHEMA.md")
}

fn read_ratchet() -> Ratchet {
    let text = std::fs::read_to_string(ratchet_file()).unwrap_or_else(|_| "{}".into());
    let all: BTreeMap<String, [usize; 3]> = serde_json::from_str(&text).unwrap();
    let counts = |[right, narrowed, refused]: [usize; 3]| Counts { right, narrowed, refused };
    all.into_iter().map(|(name, row)| (name, counts(row))).collect()
}

/// One line for each entry: right, narrowed, refused.
fn written(ratchet: &Ratchet) -> String {
    let line = |(name, counts): (&String, &Counts)| {
        format!("  \"{name}\": [{}, {}, {}]", counts.right, counts.narrowed, counts.refused)
    };
    format!("{{\n{}\n}}\n", ratchet.iter().map(line).collect::<Vec<_>>().join(",\n"))
}

/// The random answers asked of each schema.
fn samples(default: u64) -> u64 {
    std::env::var("CALLSMITH_SCHEMA_SAMPLES").ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}

struct Judge {
    bytes: Lab,
    words: Lab,
    found: Ratchet,
    wrong: Vec<String>,
    answers: usize,
}

impl Judge {
    fn new() -> Self {
        let (bytes, words) = (Lab::new(byte_env()), Lab::new(WordEnv::shared()));
        Self { bytes, words, found: Ratchet::new(), wrong: Vec::new(), answers: 0 }
    }

    fn count(&mut self, key: &str) -> &mut Counts {
        self.found.entry(key.to_owned()).or_default()
    }

    /// One schema of the suite with its instances.
    fn group(&mut self, key: &str, schema: &Value, group: &Value) {
        let tests = group["tests"].as_array().unwrap();
        let copy = admit(schema);
        let Ok(constraint) = copy.as_ref().map_err(Clone::clone).and_then(|copy| self.bytes.schema(copy)) else {
            self.count(key).refused += tests.len();
            return;
        };
        let name = format!("{key}: {}", group["description"]);
        self.wrong.extend(ignored(schema).into_iter().map(|keyword| format!("{name} ignores `{keyword}`")));
        for test in tests {
            let accepted = self.bytes.accepts(constraint.fork(), &test["data"].to_string());
            match (accepted, test["valid"] == true) {
                (true, false) => self.wrong.push(format!("{name} accepts {}", test["description"])),
                (false, true) => self.count(key).narrowed += 1,
                _ => self.count(key).right += 1,
            }
        }
        self.decode(&name, schema, &copy.unwrap(), samples(12));
    }

    /// One function of a catalogue.
    fn function(&mut self, key: &str, name: &str, parameters: &Value) {
        let copy = admit_parameters(&Some(parameters.clone()));
        if copy.as_ref().map_err(Clone::clone).and_then(|copy| self.words.schema(copy)).is_err() {
            self.count(key).refused += 1;
            return;
        }
        self.count(key).right += 1;
        self.decode(name, parameters, &copy.unwrap(), samples(1));
    }

    /// Random answers keep the promise.
    fn decode(&mut self, name: &str, schema: &Value, copy: &Value, samples: u64) {
        let constraint = self.words.schema(copy).unwrap();
        for seed in 0..samples {
            let answer = self.words.sample(constraint.fork(), &mut Random::new(seed + 1), 200);
            self.answers += usize::from(answer.is_some());
            let complaint = answer.and_then(|text| complaint(schema, &text));
            self.wrong.extend(complaint.map(|complaint| format!("{name}: {complaint}")));
        }
    }

    /// Nothing is wrong, and nothing that was right is so no more. Updates the files when asked to.
    fn compare(self, prefixes: &[&str]) {
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
        let mine = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let mut all = read_ratchet();
        if std::env::var_os("CALLSMITH_UPDATE_RATCHET").is_some() {
            all.retain(|name, _| !mine(name));
            all.extend(self.found.clone());
            std::fs::write(ratchet_file(), written(&all)).unwrap();
            std::fs::write(table_file(), table(&all)).unwrap();
        }
        let right = |ratchet: &Ratchet, name: &str| ratchet.get(name).map_or(0, |counts| counts.right);
        let fallen: Vec<&String> =
            all.keys().filter(|name| mine(name) && right(&self.found, name) < right(&all, name)).collect();
        assert!(fallen.is_empty(), "fewer cases are right than before: {fallen:?}");
        if self.found.iter().any(|(name, counts)| all.get(name) != Some(counts)) {
            println!(
                "The ratchet can be tightened: CALLSMITH_UPDATE_RATCHET=1 cargo test -p callsmith --lib schema::tests::ratchet -- --test-threads=1"
            );
        }
        for prefix in prefixes {
            let rows = || self.found.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, counts)| counts);
            let (right, narrowed) =
                (rows().map(|row| row.right).sum::<usize>(), rows().map(|row| row.narrowed).sum::<usize>());
            let refused: usize = rows().map(|row| row.refused).sum();
            println!("{prefix} {right} right, {narrowed} narrowed, {refused} refused; {} random answers", self.answers);
        }
    }
}

/// Keywords of an admitted schema that the table does not list as enforced and that are no annotation.
fn ignored(schema: &Value) -> Vec<String> {
    let enforced: Vec<String> = rows().into_iter().filter(|row| row.1 != "refused").map(|row| row.0).collect();
    let known = |key: &str| {
        enforced.iter().any(|keyword| keyword == key) || ANNOTATIONS.contains(&key) || key.starts_with("x-")
    };
    let (mut open, mut found) = (vec![schema], Vec::new());
    while let Some(map) = open.pop() {
        for (key, value) in map.as_object().into_iter().flatten() {
            found.extend((!known(key)).then(|| key.clone()));
            open.extend(schemas_in(key, value));
        }
    }
    found
}

fn schemas_in<'a>(keyword: &str, value: &'a Value) -> Vec<&'a Value> {
    match (keyword, value) {
        ("enum" | "const" | "default" | "examples" | "required", _) => Vec::new(),
        (_, Value::Array(list)) => list.iter().collect(),
        ("properties" | "patternProperties" | "dependentSchemas" | "dependencies" | "dependentRequired", _) => {
            value.as_object().into_iter().flatten().map(|(_, inner)| inner).collect()
        }
        // Definitions count where something refers to them; their own keywords are checked there.
        ("$defs" | "definitions", _) => Vec::new(),
        _ => vec![value],
    }
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect();
    files.sort();
    files
}

#[test]
fn every_schema_of_the_suite_is_refused_or_right() {
    let Some(suite) = data_set("json-schema-test-suite/tests") else { return };
    let mut judge = Judge::new();
    for (draft, uri) in DRAFTS {
        for path in files(&suite.join(draft)) {
            let key = format!("{draft}/{}", path.file_stem().unwrap().to_string_lossy());
            let groups: Vec<Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            for group in groups {
                let mut schema = group["schema"].clone();
                if let Some(map) = schema.as_object_mut() {
                    map.insert("$schema".into(), json!(uri));
                }
                judge.group(&key, &schema, &group);
            }
        }
    }
    judge.compare(&["draft2020-12/", "draft7/"]);
}

#[test]
fn functions_of_real_catalogues_are_admitted() {
    let (Some(bfcl), Some(seal)) = (data_set("bfcl"), data_set("seal-tools")) else { return };
    let mut judge = Judge::new();
    for path in files(&bfcl) {
        let key = format!("bfcl/{}", path.file_stem().unwrap().to_string_lossy());
        for case in lines(&path) {
            for function in case["function"].as_array().unwrap() {
                judge.function(&key, &function["name"].to_string(), &standardised(&function["parameters"]));
            }
        }
    }
    for tool in lines(&seal.join("tool.jsonl")) {
        judge.function("seal-tools/tool", &tool["api_name"].to_string(), &standardised(&seal_parameters(&tool)));
    }
    judge.compare(&["bfcl/", "seal-tools/"]);
}

/// Seal-Tools lists properties where JSON Schema has an object schema, and calls an `enum` `choices`.
fn seal_parameters(tool: &Value) -> Value {
    let property = |(name, given): (&String, &Value)| {
        let keyword = |key: &str| match key {
            "choices" => "enum".to_owned(),
            "unit" | "example_values" => format!("x-{key}"),
            other => other.to_owned(),
        };
        let schema = given.as_object().into_iter().flatten().map(|(key, value)| (keyword(key), value.clone()));
        (name.clone(), Value::Object(schema.collect()))
    };
    let properties: Map<String, Value> = tool["parameters"].as_object().into_iter().flatten().map(property).collect();
    json!({"type": "object", "properties": properties, "required": tool["required"]})
}

#[test]
fn the_coverage_table_is_up_to_date() {
    if data_set("json-schema-test-suite/tests").is_none() || std::env::var_os("CALLSMITH_UPDATE_RATCHET").is_some() {
        return;
    }
    let shown = std::fs::read_to_string(table_file()).unwrap_or_default();
    let hint = "CALLSMITH_UPDATE_RATCHET=1 cargo test -p callsmith --lib schema::tests::ratchet -- --test-threads=1";
    assert_eq!(shown, table(&read_ratchet()), "grammars/SCHEMA.md is out of date; run {hint}");
}
