//! The gold calls of BFCL: every dialect that can write them takes them and reads them back, and how much of them is forced.

use super::*;
use crate::bfcl::{gold_calls, without_exponents};
use crate::chat::tokenizer::ChatTokenizer;
use crate::grammar::schema::{admit_parameters, standardised};
use crate::grammar::text::{TextGrammars, verdict};
use crate::grammar::{Constraint, GrammarCompiler};
use crate::testing::data_set;
use std::path::Path;

const FILES: [&str; 5] = ["simple_python", "multiple", "parallel", "parallel_multiple", "live_simple"];

/// A question's functions and the calls that answer it.
struct Gold {
    id: String,
    tools: Vec<Function>,
    calls: Vec<ToolCall>,
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The cases whose gold calls fit their own schemas, and how many do not.
fn golds(bfcl: &Path) -> (Vec<Gold>, usize) {
    let (mut found, mut misfits) = (Vec::new(), 0);
    for file in FILES {
        let questions = lines(&bfcl.join(format!("BFCL_v4_{file}.json")));
        let answers = lines(&bfcl.join(format!("possible_answer/BFCL_v4_{file}.json")));
        for answer in &answers {
            let question = questions.iter().find(|question| question["id"] == answer["id"]).unwrap();
            match gold(question, answer) {
                Some(gold) => found.push(gold),
                None => misfits += 1,
            }
        }
    }
    (found, misfits)
}

fn gold(question: &Value, answer: &Value) -> Option<Gold> {
    let calls = gold_calls(question, answer)?;
    let tool = |function: &Value| {
        let admitted = admit_parameters(&Some(standardised(&function["parameters"]))).ok()?;
        Some((function["name"].as_str()?.replace('.', "_"), admitted))
    };
    let tools = question["function"].as_array()?.iter().map(tool).collect::<Option<Vec<_>>>()?;
    Some(Gold { id: answer["id"].as_str()?.to_owned(), tools, calls })
}

fn turn_lark(dialect: &dyn Dialect, tools: &[Function], choice: &ToolChoice) -> Result<String, ChatError> {
    let control = ControlTokens::new();
    dialect.grammar(&TurnSpec {
        tools,
        choice,
        parallel: true,
        reasoning: Reasoning::Absent,
        control: &control,
        answer: None,
    })
}

/// What a client would read.
fn read_back(dialect: &dyn Dialect, tools: &[Function], text: &str) -> Vec<(String, Value)> {
    let mut parser = dialect.parser(tools);
    let mut turn = Turn::default();
    turn.take(parser.push(text));
    turn.take(parser.finish());
    turn.calls.into_iter().map(|(name, arguments, _)| (name, serde_json::from_str(&arguments).unwrap())).collect()
}

#[test]
fn every_gold_call_is_taken_and_read_back_by_each_dialect_that_can_write_it() {
    let Some(bfcl) = data_set("bfcl") else { return };
    let (golds, misfits) = golds(&bfcl);
    let grammars = TextGrammars::new().unwrap();
    assert!(golds.len() > 1_100 && misfits < 130, "{} golds, {misfits} that break their own schema", golds.len());
    for name in Dialects::built_in().names() {
        let dialect = by_name(name).unwrap();
        let (mut taken, mut cannot, mut refused) = (0, 0, Vec::new());
        for gold in &golds {
            let calls = if SINGLE.contains(&name) || name == "viggo" { &gold.calls[..1] } else { &gold.calls[..] };
            let Ok(lark) = turn_lark(dialect.as_ref(), &gold.tools, &ToolChoice::Auto) else {
                cannot += 1;
                continue;
            };
            let text = without_exponents(&dialect.render_calls(calls));
            let expected: Vec<_> = calls.iter().map(|call| (call.name.clone(), call.arguments.clone())).collect();
            let good = verdict(grammars.compile(&lark).unwrap(), text.as_bytes()).unwrap().accepted
                && read_back(dialect.as_ref(), &gold.tools, &text) == expected;
            match good {
                true => taken += 1,
                // Text that its brackets cannot hold, or a list whose items have commas.
                false if name == "viggo" => cannot += 1,
                false => refused.push(format!("{}: {text}", gold.id)),
            }
        }
        println!("{name}: {taken} taken, {cannot} inexpressible, {misfits} gold calls break their own schema");
        assert!(refused.is_empty(), "{name}: {refused:#?}");
        assert!(taken > if name == "viggo" { 500 } else { 1_100 }, "{name}: {taken}");
    }
}

/// How the tokens of gold turns come about.
#[derive(Debug, Default)]
struct Share {
    forced: usize,
    /// Forced, and not what the tokenizer makes of the whole text.
    foreign: usize,
    all: usize,
}

/// Follows a text as the engine would: what is forced is taken, the rest is the tokenizer's next token.
fn follow(mut constraint: Constraint, tokenizer: &ChatTokenizer, text: &str, share: &mut Share) {
    let canonical = tokenizer.encode_text(text).unwrap();
    let mut written = String::new();
    loop {
        let forced = constraint.take_forced().unwrap();
        let expected = tokenizer.encode_text(&text[written.len()..]).unwrap();
        share.foreign += forced.iter().zip(&expected).filter(|(a, b)| a != b).count();
        share.forced += forced.len();
        share.all += forced.len();
        written += &tokenizer.decode(&forced);
        let rest = &text[written.len()..];
        if rest.is_empty() {
            break;
        }
        let next = if canonical.is_empty() { 0 } else { tokenizer.encode_text(rest).unwrap()[0] };
        constraint.commit(next).unwrap();
        share.all += 1;
        written += &tokenizer.decode(&[next]);
    }
}

#[test]
fn half_of_a_gold_calls_tokens_are_forced_and_are_the_tokenizers_own() {
    let (Some(bfcl), Some(files)) = (data_set("bfcl"), data_set("tokenizers/qwen2_5")) else { return };
    let tokenizer = ChatTokenizer::load(&files, 151_936).unwrap();
    let compiler = GrammarCompiler::new(tokenizer.tok_env(), 1).unwrap();
    let (golds, _) = golds(&bfcl);
    for name in ["tool_uses", "hermes", "llama3", "mistral", "llama_functions"] {
        let dialect = by_name(name).unwrap();
        let mut share = Share::default();
        for gold in golds.iter().filter(|gold| gold.id.starts_with("multiple")).step_by(4) {
            let lark = turn_lark(dialect.as_ref(), &gold.tools, &ToolChoice::Required).unwrap();
            let text = without_exponents(&dialect.render_calls(&gold.calls[..1]));
            follow(compiler.compile_blocking(&lark).unwrap(), &tokenizer, &text, &mut share);
        }
        println!("{name}: {share:?}, {:.1} % forced", 100.0 * share.forced as f64 / share.all as f64);
        assert!(share.forced * 100 > share.all * 45, "{name}: {share:?}");
        assert!(share.foreign * 100 <= share.forced, "{name}: {share:?}");
    }
}
