//! The promise: a model that knows nothing, at temperature 2, still never says anything malformed.
//!
//! `CALLSMITH_SAMPLES=60000` for the long form: that many finished answers, each also read by Python.

use crate::support::schemas::{COUNT, schemas};
use crate::support::{TestServer, Transcript, assert_valid, report, tool};
use callsmith::chat::ToolChoice;
use callsmith::chat::dialect::TurnSpec;
use callsmith::chat::reasoning::Reasoning;
use callsmith::grammar::{Constraint, schema};
use futures::{StreamExt, stream};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Finished answers that the test sees, unless `CALLSMITH_SAMPLES` says how many.
const ENOUGH: usize = 2_400;
/// Requests that run at once.
const TOGETHER: usize = 24;
/// Reads lines of JSON strings that hold JSON, as strictly as Python can.
const PYTHON: &str = r#"
import json, math, sys
def pairs(items):
    assert len(items) == len({key for key, _ in items}), items
    assert all(math.isfinite(value) for _, value in items if isinstance(value, float)), items
    return dict(items)
def refuse(word):
    raise ValueError(word)
count = 0
for line in sys.stdin:
    json.loads(json.loads(line), object_pairs_hook=pairs, parse_constant=refuse)
    count += 1
print(count)
"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Required,
    Named,
    Auto,
    Format,
}

const MODES: [Mode; 4] = [Mode::Required, Mode::Named, Mode::Auto, Mode::Format];

/// One request of the long row: its number says everything about it.
#[derive(Debug, Clone, Copy)]
struct Sample(usize);

impl Sample {
    fn mode(self) -> Mode {
        MODES[self.0 % MODES.len()]
    }

    fn streamed(self) -> bool {
        self.0 / MODES.len() % 2 == 1
    }

    /// Which of the schemas it is about.
    fn schema(self) -> usize {
        self.0 / (2 * MODES.len()) % COUNT
    }

    fn parallel(self) -> bool {
        self.mode() != Mode::Named && (self.0 / (2 * MODES.len() * COUNT)).is_multiple_of(2)
    }

    /// Most are given room to finish; some are cut early.
    fn max_tokens(self) -> usize {
        if self.0 % 9 == 8 { 4 + self.0 % 41 } else { 200 }
    }

    /// A request at temperature 2. A few tokens are favoured, so that answers end before they are cut.
    fn request(self, server: &TestServer, schemas: &[Value]) -> Value {
        let opening = if self.mode() == Mode::Auto { 10.0 } else { 5.0 };
        let ends = [("\"", 4.0), ("}", 4.0), ("]", 4.0), ("{", opening)];
        let mut bias: Map<String, Value> =
            ends.iter().map(|&(text, value)| (server.token(text), json!(value))).collect();
        bias.insert(server.end_token(), json!(6));
        let mut body = json!({
            "model": "base", "messages": [{"role": "user", "content": format!("Do it {}.", self.0)}],
            "temperature": 2, "top_p": 1, "seed": self.0, "max_tokens": self.max_tokens(), "logit_bias": bias, "stream": self.streamed(),
        });
        self.ask(&mut body, &schemas[self.schema()]);
        body
    }

    fn ask(self, body: &mut Value, schema: &Value) {
        if self.mode() == Mode::Format {
            body["response_format"] =
                json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}});
            return;
        }
        let other = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]});
        body["tools"] = json!([tool("main_tool", schema), tool("other-tool_2", &other)]);
        body["parallel_tool_calls"] = json!(self.parallel());
        body["tool_choice"] = match self.mode() {
            Mode::Named => json!({"type": "function", "function": {"name": "main_tool"}}),
            Mode::Auto => json!("auto"),
            Mode::Required | Mode::Format => json!("required"),
        };
    }
}

/// What came of the answers.
#[derive(Debug, Default)]
struct Tally {
    finished: BTreeMap<(Mode, bool), usize>,
    cut: usize,
    calls: usize,
    several: usize,
    /// Schemas whose tool was called, or that an answer had.
    seen: HashSet<usize>,
    /// Every finished JSON text.
    texts: Vec<String>,
}

impl Tally {
    fn total(&self) -> usize {
        self.finished.values().sum()
    }

    /// Judges one answer.
    fn add(&mut self, sample: Sample, body: &Value, (message, finish): (Value, Value), prefixes: &Prefixes<'_>) {
        let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
        if finish == "length" {
            self.cut += 1;
            return prefixes.check(sample, &message, &calls);
        }
        *self.finished.entry((sample.mode(), sample.streamed())).or_default() += 1;
        assert_eq!(finish, if calls.is_empty() { "stop" } else { "tool_calls" }, "{message}");
        match sample.mode() {
            Mode::Format => {
                self.text(&body["response_format"]["json_schema"]["schema"], message["content"].as_str().unwrap());
                self.seen.insert(sample.schema());
            }
            Mode::Auto => {}
            Mode::Required | Mode::Named => assert!(!calls.is_empty(), "no call in {sample:?}: {message}"),
        }
        assert!(calls.len() <= 1 || sample.parallel(), "{sample:?}: {message}");
        self.several += usize::from(calls.len() > 1);
        calls.iter().for_each(|call| self.call(sample, body, call));
    }

    fn call(&mut self, sample: Sample, body: &Value, call: &Value) {
        let name = &call["function"]["name"];
        assert!(sample.mode() != Mode::Named || name == "main_tool", "{call}");
        let called = body["tools"].as_array().unwrap().iter().find(|tool| tool["function"]["name"] == *name);
        let called = called.unwrap_or_else(|| panic!("unknown tool in {call}"));
        self.text(&called["function"]["parameters"], call["function"]["arguments"].as_str().unwrap());
        self.calls += 1;
        if name == "main_tool" {
            self.seen.insert(sample.schema());
        }
    }

    fn text(&mut self, schema: &Value, text: &str) {
        assert_valid(schema, text);
        self.texts.push(text.to_owned());
    }
}

/// Judges cut answers: what has come must be the beginning of something allowed.
struct Prefixes<'a> {
    server: &'a TestServer,
    schemas: &'a [Value],
}

impl Prefixes<'_> {
    fn check(&self, sample: Sample, message: &Value, calls: &[Value]) {
        let schema = &self.schemas[sample.schema()];
        if sample.mode() == Mode::Format {
            let lark = format!("start: %json {}", schema::admit(schema).unwrap());
            return self.begins(&lark, message["content"].as_str().unwrap_or_default());
        }
        let Some((last, whole)) = calls.split_last() else { return };
        for call in whole {
            serde_json::from_str::<Value>(call["function"]["arguments"].as_str().unwrap()).unwrap();
        }
        if last["function"]["name"] == "main_tool" {
            let admitted = schema::admit_parameters(&Some(schema.clone())).unwrap();
            let tools = [("main_tool".to_owned(), admitted)];
            let (choice, reasoning) = (&ToolChoice::Required, Reasoning::Absent);
            let control = self.server.state.tokenizer.control_ids();
            let turn = TurnSpec { tools: &tools, choice, parallel: false, reasoning, control, answer: None };
            let arguments = last["function"]["arguments"].as_str().unwrap();
            let text = format!(r#"{{"tool_uses":[{{"recipient_name":"functions.main_tool","parameters":{arguments}"#);
            self.begins(&self.server.state.voices.base().dialect.grammar(&turn).unwrap(), &text);
        }
    }

    fn begins(&self, lark: &str, text: &str) {
        let mut constraint: Constraint = self.server.state.compiler.compile_blocking(lark).unwrap();
        for id in self.server.state.tokenizer.tok_env().tokenize_bytes(text.as_bytes()) {
            constraint.commit(id).unwrap_or_else(|error| panic!("{error}: {text} cannot begin anything in {lark}"));
        }
    }
}

/// The message and the finish reason of one answer.
async fn answer(server: &TestServer, body: &Value) -> (Value, Value) {
    let reply = server.chat(body).await;
    assert_eq!(reply.status, 200, "{} for {body}", reply.text);
    if body["stream"] == json!(true) {
        let transcript = Transcript::read(&reply.text);
        assert!(transcript.done, "{}", reply.text);
        return (transcript.message(0), transcript.finish_reason(0));
    }
    let choice = reply.choice();
    (choice["message"].clone(), choice["finish_reason"].clone())
}

/// Python's own reader takes every text, or says where not; without Python that is said.
fn read_by_python(texts: &[String]) {
    let python = Command::new("python3").args(["-c", PYTHON]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut python) = python else { return report(format_args!("NOT CHECKED: Python's json (no python3)")) };
    let mut input = python.stdin.take().unwrap();
    texts.iter().for_each(|text| writeln!(input, "{}", json!(text)).unwrap());
    drop(input);
    let output = python.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), texts.len().to_string(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_model_answers_always_validate() {
    let enough = std::env::var("CALLSMITH_SAMPLES").map_or(ENOUGH, |number| number.parse().unwrap());
    let server = Arc::new(TestServer::with_options(&["--max-batch", "24"]));
    let (schemas, mut tally) = (schemas(), Tally::default());
    let prefixes = Prefixes { server: &server, schemas: &schemas };
    let mut answers = stream::iter(0..2 * enough)
        .map(|number| {
            let (sample, server) = (Sample(number), Arc::clone(&server));
            let body = sample.request(&server, &schemas);
            async move { (sample, answer(&server, &body).await, body) }
        })
        .buffer_unordered(TOGETHER);
    while let Some((sample, answer, body)) = answers.next().await {
        tally.add(sample, &body, answer, &prefixes);
        if tally.total() >= enough {
            break;
        }
    }
    drop(answers);
    read_by_python(&tally.texts);
    let Tally { finished, cut, calls, several, seen, texts } = &tally;
    report(format_args!(
        "{} finished ({finished:?}), {cut} cut, {calls} calls, {several} with several, {} texts",
        tally.total(),
        texts.len()
    ));
    assert!(tally.total() >= enough && *several > 0 && *cut > 0, "{finished:?}");
    let missing: Vec<usize> = (0..COUNT).filter(|&schema| !seen.contains(&schema)).collect();
    assert!(missing.is_empty(), "no finished answer has the schemas {missing:?}");
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.contains("callsmith_constraint_violations_total 0"), "{metrics}");
}
