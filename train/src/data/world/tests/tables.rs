//! The built-in families: complete, with names of their own, and with values that fit their schemas.

use super::*;
use callsmith::chat::dialect::{self, TurnSpec};
use callsmith::chat::reasoning::Reasoning;
use callsmith::chat::{Conversation, ToolChoice};
use callsmith::grammar::{schema, text};
use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;

fn all() -> impl Iterator<Item = &'static Family> {
    [Split::Train, Split::HeldOut].into_iter().flat_map(families)
}

#[test]
fn every_family_has_what_dialogues_need() {
    assert!(all().count() >= 16);
    for family in all() {
        let has = |wanted: fn(&Op) -> bool| family.functions.iter().any(|function| wanted(&function.op));
        assert!((4..=9).contains(&family.functions.len()), "{}", family.one);
        assert!(has(|op| *op == Op::Create) && has(|op| *op == Op::Find) && has(|op| *op == Op::Get), "{}", family.one);
        assert!(family.functions.iter().any(|function| function.takes.is_empty()), "{}", family.one);
        assert!(family.functions.iter().any(|function| function.is_keyed() && function.writes()), "{}", family.one);
        for function in &family.functions {
            assert!(
                !function.ask.is_empty() && !function.about.is_empty() && function.names.len() > 1,
                "{}",
                family.one
            );
            assert!(function.ask.iter().any(|ask| !ask.is_question()), "{}: only asks", function.names[0]);
            let keyed = function.takes.iter().position(|take| take.field == 0);
            assert!(keyed.is_none_or(|at| at == 0), "{}: the id comes first", function.names[0]);
            let find = function.op == Op::Find;
            assert!(
                !find
                    || function
                        .takes
                        .iter()
                        .all(|take| !take.required && family.fields[take.field].part != Part::Argument)
            );
        }
        for field in &family.fields {
            let flag = field.kind == Kind::Flag;
            assert!(field.say.iter().all(|say| say.contains("{}") != flag), "{} {}", family.one, field.name);
            let deniable = flag && field.part == Part::Given;
            assert!(field.deny.is_empty() != deniable, "{} {}", family.one, field.name);
            let hides = |deny: &str| field.say.iter().any(|say| deny.contains(say) || say.contains(deny));
            assert!(
                !field.deny.iter().any(|deny| hides(deny)),
                "{} {}: yes and no sound alike",
                family.one,
                field.name
            );
            assert!(!field.about.is_empty() && !field.question.is_empty(), "{} {}", family.one, field.name);
        }
    }
}

#[test]
fn drawn_values_fit_their_schemas_and_are_found_in_what_is_said() {
    let mut dice = Dice::new(4, 0);
    for family in all() {
        for field in family.fields.iter().filter(|field| field.kind != Kind::Key) {
            for _ in 0..60 {
                let value = field.kind.draw(&mut dice, 0.2);
                let schema = field.kind.schema(family.prefix);
                assert!(jsonschema::is_valid(&schema, &value), "{} {}: {value} {schema}", family.one, field.name);
                let said = field.kind.said(&value, &mut dice);
                assert!(
                    field.kind == Kind::Flag || field.kind.is_said(&value, &format!("so: {said}.")),
                    "{value}: {said}"
                );
            }
            if let Some((said, _)) = field.kind.impossible(&mut dice) {
                let value = Json::String(said);
                assert!(
                    field.kind == Kind::Date
                        || !jsonschema::options()
                            .should_validate_formats(true)
                            .build(&field.kind.schema(family.prefix))
                            .unwrap()
                            .is_valid(&value)
                );
            }
        }
    }
}

/// The folder of a data set under `$CALLSMITH_DATA` (default `../shared/data` beside the repository). Without it the caller
/// checks nothing, which is said on standard error; a variable that points to nothing is a mistake.
pub(crate) fn data_set(name: &str) -> Option<PathBuf> {
    let given = std::env::var_os("CALLSMITH_DATA");
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data"));
    let folder = given.as_ref().map_or_else(beside, PathBuf::from).join(name);
    if folder.exists() {
        return Some(folder);
    }
    assert!(given.is_none(), "{} is not there: set CALLSMITH_DATA to the folder of the data sets", folder.display());
    let _ = writeln!(std::io::stderr(), "SKIPPED: {} is not there (set CALLSMITH_DATA)", folder.display());
    None
}

#[test]
fn no_function_is_named_as_one_of_bfcl() {
    let plain = |name: &str| name.replace(['_', '-', '.'], "").to_lowercase();
    let mut ours: HashMap<String, &str> = HashMap::new();
    for name in all().flat_map(|family| &family.functions).flat_map(|function| &function.names) {
        assert_eq!(ours.insert(plain(name), name), None, "{name} occurs twice");
    }
    let Some(folder) = data_set("bfcl") else { return };
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|end| end != "json") {
            continue;
        }
        for line in std::fs::read_to_string(&file).unwrap().lines().filter(|line| !line.trim().is_empty()) {
            let row: Json = serde_json::from_str(line).unwrap();
            for function in row["function"].as_array().into_iter().flatten() {
                let name = function["name"].as_str().unwrap();
                let last = name.rsplit('.').next().unwrap_or(name);
                for name in [name, last] {
                    assert_eq!(ours.get(&plain(name)), None, "{name} is in {}", file.display());
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 1000);
}

/// The server forces calls into a grammar made of the tools: what is trained must be inside it.
#[test]
fn every_call_is_accepted_by_the_grammar_of_its_turn() {
    let grammars = text::TextGrammars::new().unwrap();
    let few = WorldConfig {
        distractors: (0, 2),
        noise: Noise { unicode: 0.3, ..Noise::default() },
        ..WorldConfig::default()
    };
    let mut calls = 0;
    for (index, config) in [few.clone(), WorldConfig { split: Split::HeldOut, ..few }].iter().enumerate() {
        for sample in samples(config, 60) {
            let dialect = dialect::by_name(["tool_uses", "hermes"][index]).unwrap();
            let Conversation { messages, tools, .. } = &sample.dialogue.conversation;
            let functions: Vec<_> = tools
                .iter()
                .map(|tool| (tool.name.clone(), schema::admit_parameters(&tool.parameters).unwrap()))
                .collect();
            let control = dialect::ControlTokens::new();
            let turn = TurnSpec {
                tools: &functions,
                choice: &ToolChoice::Auto,
                parallel: true,
                reasoning: Reasoning::default(),
                control: &control,
                answer: None,
            };
            let constraint = grammars.compile(&dialect.grammar(&turn).unwrap()).unwrap();
            for message in messages.iter().filter(|message| !message.tool_calls.is_empty()) {
                let written = dialect.render_calls(&message.tool_calls);
                let verdict = text::verdict(constraint.fork(), written.as_bytes()).unwrap();
                assert!(verdict.accepted, "{written}: leaves the grammar at {}", &written[verdict.at..]);
                calls += message.tool_calls.len();
            }
        }
    }
    assert!(calls > 80, "{calls}");
}
