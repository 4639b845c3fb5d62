//! `callsmith grammar`: explains the grammar of a turn, judges texts by it and samples it, as the server would enforce it.
//!
//! Builds a chat request's body and asks `api` for its grammar, so that there is one way to make it. Knows no engine.

use crate::api::{TurnContext, read_turn, turn_grammar};
use crate::chat::dialect::{ControlTokens, Delta, Dialect, DialectChoice};
use crate::chat::reasoning::Reasoning;
use crate::chat::template::ChatTemplate;
use crate::chat::tokenizer::ChatTokenizer;
use crate::chat::{Conversation, Message, Role};
use crate::cli::{AcceptsArgs, GrammarCommand, SampleArgs, TurnArgs};
use crate::grammar::text::{self, TextGrammars, Verdict};
use serde_json::{Map, Value, json};
use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Allows everything; a turn without tools and form.
const ANY_TEXT: &str = "start: TEXT\nTEXT: /(.|\\n)*/\n";
/// Bytes of the text that are shown around a place.
const CONTEXT: usize = 40;

/// Runs the command; false when a text is not accepted.
///
/// # Errors
/// Unreadable files, refused schemas, unknown dialects; the error says which and why.
pub fn run(command: &GrammarCommand) -> anyhow::Result<bool> {
    match obey(command) {
        // Whoever read enough has closed the pipe.
        Err(error) if is_broken_pipe(&error) => Ok(true),
        outcome => outcome,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn obey(command: &GrammarCommand) -> anyhow::Result<bool> {
    match command {
        GrammarCommand::Explain(turn) => explain(turn).map(|()| true),
        GrammarCommand::Accepts(args) if args.jsonl => judge_lines(args).map(|()| true),
        GrammarCommand::Accepts(args) => judge(args),
        GrammarCommand::Sample(args) => sample(args).map(|()| true),
    }
}

/// The model whose turns are looked at, as far as grammars depend on it.
pub(crate) struct Model {
    pub(crate) dialect: Arc<dyn Dialect>,
    several_calls: bool,
    reasoning: Reasoning,
}

impl Model {
    pub(crate) fn of(turn: &TurnArgs) -> anyhow::Result<Self> {
        let choice = DialectChoice { name: turn.dialect.clone(), dir: turn.dialect_dir.clone() };
        let Some(dir) = &turn.model else {
            let dialect = choice.resolve(None)?;
            return Ok(Self { dialect, several_calls: true, reasoning: Reasoning::Absent });
        };
        let [template, bos, eos] = ChatTokenizer::prompt_files(dir)?;
        let dialect = choice.resolve(template.as_deref())?;
        let template = ChatTemplate::new(template.as_deref(), Arc::clone(&dialect), Vec::new(), bos, eos)?;
        let question = Conversation { messages: vec![Message::text(Role::User, "?")], ..Conversation::default() };
        let reasoning = template.reasoning_after(&template.render(&question, true)?);
        Ok(Self { dialect, several_calls: template.several_calls(), reasoning })
    }

    /// What a grammar depends on beside the request.
    pub(crate) fn context<'a>(&'a self, control: &'a ControlTokens) -> TurnContext<'a> {
        let Self { dialect, several_calls, reasoning } = self;
        TurnContext { dialect: dialect.as_ref(), control, several_calls: *several_calls, reasoning: *reasoning }
    }

    /// Tags are judged as text, so the grammar is the one for a tokenizer without control tokens.
    fn grammar(&self, body: &Map<String, Value>) -> anyhow::Result<String> {
        let lark = turn_grammar(body, self.context(&ControlTokens::new()))?;
        Ok(lark.unwrap_or_else(|| ANY_TEXT.to_owned()))
    }
}

/// The body of a request for the turn that the arguments describe.
fn body(turn: &TurnArgs) -> anyhow::Result<Map<String, Value>> {
    request(&asked(turn)?)
}

/// Tools, choice and form, under the keys of a JSON line.
fn asked(turn: &TurnArgs) -> anyhow::Result<Map<String, Value>> {
    let mut asked = Map::new();
    if let Some(path) = &turn.tools {
        asked.insert("tools".to_owned(), tools(&read_json(path)?)?.into());
    }
    if let Some(path) = &turn.response_format {
        asked.insert("response_format".to_owned(), read_json(path)?);
    }
    if let Some(choice) = &turn.choice {
        asked.insert("tool_choice".to_owned(), json!(choice));
    }
    if turn.no_parallel_tool_calls {
        asked.insert("parallel_tool_calls".to_owned(), json!(false));
    }
    Ok(asked)
}

/// The body for `{tools, choice, response_format, parallel_tool_calls}`, each of which may be absent.
pub(crate) fn request(asked: &Map<String, Value>) -> anyhow::Result<Map<String, Value>> {
    let mut body = Map::from_iter([
        ("model".to_owned(), json!("-")),
        ("messages".to_owned(), json!([{"role": "user", "content": "?"}])),
    ]);
    let tools = asked.get("tools").filter(|tools| !tools.is_null()).map(tools).transpose()?.unwrap_or_default();
    if let Some(choice) = asked.get("choice").or(asked.get("tool_choice")).filter(|choice| !choice.is_null()) {
        body.insert("tool_choice".to_owned(), tool_choice(choice));
    }
    if !tools.is_empty() {
        body.insert("tools".to_owned(), tools.into());
    }
    for key in ["response_format", "parallel_tool_calls"] {
        body.extend(asked.get(key).filter(|value| !value.is_null()).map(|value| (key.to_owned(), value.clone())));
    }
    Ok(body)
}

/// OpenAI's tool objects; bare functions and an object around the list are understood.
pub(crate) fn tools(given: &Value) -> anyhow::Result<Vec<Value>> {
    let list = given.as_array().or_else(|| given["tools"].as_array());
    let list = list.ok_or_else(|| anyhow::anyhow!("the tools must be a list of OpenAI tools or of functions"))?;
    let wrap = |tool: &Value| match tool.get("function") {
        None if tool.get("name").is_some() => json!({"type": "function", "function": tool}),
        _ => tool.clone(),
    };
    Ok(list.iter().map(wrap).collect())
}

/// `auto`, `required`, `none`, a function's name, or OpenAI's own object.
fn tool_choice(given: &Value) -> Value {
    match given.as_str() {
        Some("auto" | "required" | "none") | None => given.clone(),
        Some(name) => json!({"type": "function", "function": {"name": name}}),
    }
}

/// A file of JSON; errors name it.
pub(crate) fn read_json(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(path).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

fn explain(turn: &TurnArgs) -> anyhow::Result<()> {
    let model = Model::of(turn)?;
    let lark = model.grammar(&body(turn)?)?;
    let started = Instant::now();
    let constraint = TextGrammars::new()?.compile(&lark)?;
    let elapsed = started.elapsed();
    let forced = text::forced_start(constraint.fork())?;
    let next = text::verdict(constraint, &forced)?;
    let mut out = io::stdout().lock();
    writeln!(out, "// dialect {}, thoughts before the answer: {}", model.dialect.name(), thoughts(model.reasoning))?;
    writeln!(out, "// {} bytes, compiled in {:.1} ms", lark.len(), elapsed.as_secs_f64() * 1e3)?;
    let start = if forced.is_empty() {
        String::new()
    } else {
        format!("every turn begins with {:?}; then ", String::from_utf8_lossy(&forced))
    };
    writeln!(out, "// {start}{}", expected(&next))?;
    write!(out, "{lark}")?;
    Ok(())
}

fn thoughts(reasoning: Reasoning) -> &'static str {
    match reasoning {
        Reasoning::Absent => "none",
        Reasoning::Optional => "allowed",
        Reasoning::Open => "begun by the prompt",
    }
}

fn judge(args: &AcceptsArgs) -> anyhow::Result<bool> {
    let mut input = Vec::new();
    io::stdin().lock().read_to_end(&mut input)?;
    // The line break that shells and editors put at the end of a file is not part of the turn.
    let turn = input.strip_suffix(b"\n").unwrap_or(&input);
    let lark = Model::of(&args.turn)?.grammar(&body(&args.turn)?)?;
    let constraint = TextGrammars::new()?.compile(&lark)?;
    let verdict = text::verdict(constraint, turn)?;
    let mut out = io::stdout().lock();
    if verdict.accepted {
        writeln!(out, "accepted: {} bytes, a complete turn", turn.len())?;
    } else {
        writeln!(out, "not accepted at byte {}: {}", verdict.at, complaint(&verdict, turn))?;
        writeln!(out, "{}", place(turn, verdict.at))?;
    }
    Ok(verdict.accepted)
}

/// A verdict a line, in order; a line that cannot be judged says why.
fn judge_lines(args: &AcceptsArgs) -> anyhow::Result<()> {
    let (model, grammars, shared) = (Model::of(&args.turn)?, TextGrammars::new()?, asked(&args.turn)?);
    // Line by line: whoever writes one may wait for its verdict.
    let mut out = io::LineWriter::new(io::stdout().lock());
    for line in io::stdin().lock().split(b'\n') {
        let line = line?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let verdict = judge_line(&line, &model, &grammars, &shared)
            .unwrap_or_else(|error| json!({"accepted": false, "at": null, "error": format!("{error:#}")}));
        writeln!(out, "{verdict}")?;
    }
    Ok(())
}

fn judge_line(
    line: &[u8],
    model: &Model,
    grammars: &TextGrammars,
    shared: &Map<String, Value>,
) -> anyhow::Result<Value> {
    let asked: Value = serde_json::from_slice(line)?;
    let asked = asked.as_object().ok_or_else(|| anyhow::anyhow!("a line must be an object with `text`"))?;
    let text = asked.get("text").and_then(Value::as_str).ok_or_else(|| anyhow::anyhow!("`text` must be a string"))?;
    // What the line leaves open, the command line may say.
    let mut all = shared.clone();
    all.extend(asked.clone());
    let verdict = text::verdict(grammars.compile(&model.grammar(&request(&all)?)?)?, text.as_bytes())?;
    let error = (!verdict.accepted).then(|| complaint(&verdict, text.as_bytes()));
    Ok(json!({"accepted": verdict.accepted, "at": verdict.at, "error": error}))
}

/// What is wrong at the place that a verdict names.
fn complaint(verdict: &Verdict, text: &[u8]) -> String {
    match text.get(verdict.at..).filter(|rest| !rest.is_empty()) {
        None => format!("the turn is not complete; {}", expected(verdict)),
        Some(rest) => {
            let found = String::from_utf8_lossy(rest).chars().next().unwrap_or_default();
            format!("{found:?} cannot stand here; {}", expected(verdict))
        }
    }
}

/// The bytes that may come, runs of them as ranges.
fn expected(verdict: &Verdict) -> String {
    let mut parts: Vec<String> = Vec::new();
    for run in verdict.allowed.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
        match run {
            [first, .., last] if run.len() > 3 => parts.push(format!("{} to {}", shown(*first), shown(*last))),
            few => parts.extend(few.iter().map(|byte| shown(*byte))),
        }
    }
    if verdict.may_end {
        parts.push("the end of the turn".to_owned());
    }
    format!("allowed: {}", if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") })
}

fn shown(byte: u8) -> String {
    if byte.is_ascii() { format!("{:?}", char::from(byte)) } else { format!("byte {byte:#04x}") }
}

/// The text before a place and after it, with a mark between.
fn place(text: &[u8], at: usize) -> String {
    let (before, after) = text.split_at(at);
    let before = &before[before.len().saturating_sub(CONTEXT)..];
    let after = &after[..after.len().min(CONTEXT)];
    format!("  {} <<HERE>> {}", String::from_utf8_lossy(before), String::from_utf8_lossy(after))
}

fn sample(args: &SampleArgs) -> anyhow::Result<()> {
    let model = Model::of(&args.turn)?;
    let body = body(&args.turn)?;
    let constraint = TextGrammars::new()?.compile(&model.grammar(&body)?)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for index in 0..args.count {
        let text = text::sample(&constraint, args.seed.wrapping_add(index), args.max_bytes)?;
        let text = text
            .ok_or_else(|| anyhow::anyhow!("no turn of at most {} bytes found; raise --max-bytes", args.max_bytes))?;
        let text = String::from_utf8_lossy(&text);
        match args.jsonl {
            true => writeln!(out, "{}", read(&model, &body, &text)?)?,
            false => writeln!(out, "{text}")?,
        }
    }
    Ok(out.flush()?)
}

/// A turn's text with what a client would get of it.
fn read(model: &Model, body: &Map<String, Value>, text: &str) -> anyhow::Result<Value> {
    let (mut thoughts, mut content, mut calls) = (String::new(), String::new(), Vec::<(String, String)>::new());
    for delta in read_turn(body, model.context(&ControlTokens::new()), text)? {
        match delta {
            Delta::Thought(more) => thoughts.push_str(&more),
            Delta::Text(more) => content.push_str(&more),
            Delta::CallStart { name, .. } => calls.push((name, String::new())),
            Delta::CallArguments { index, fragment } => calls[index].1.push_str(&fragment),
            Delta::CallEnd { .. } => {}
        }
    }
    let calls: Vec<Value> =
        calls.iter().map(|(name, arguments)| json!({"name": name, "arguments": arguments})).collect();
    Ok(json!({"text": text, "reasoning_content": thoughts, "content": content, "calls": calls}))
}
