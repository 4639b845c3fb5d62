//! The leaderboard's files: questions with their functions, and the gold answers beside them. JSON lines, whatever their ending.

use super::check::{Form, Gold};
use crate::data::native;
use crate::error::{Result, TrainError};
use callsmith::chat::Conversation;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// A question and what answers it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: String,
    /// The file's kind of question, for example `live_simple`.
    pub(super) category: String,
    pub(super) form: Form,
    /// As the models see it: standard type names, functions without dots.
    pub(super) conversation: Conversation,
    /// As the file has them.
    pub(super) functions: Vec<Value>,
    pub(super) gold: Vec<Gold>,
}

/// Reads the first `limit` questions, and their answers by their ids.
///
/// # Errors
/// A file that cannot be read, the first wrong line by number and field, a question without an answer or with the id of an earlier
/// one, and kinds of questions that are not single turns with Python's types.
pub(super) fn read(questions: &Path, answers: Option<&Path>, limit: usize) -> Result<Vec<Row>> {
    let mut gold: HashMap<String, Vec<Gold>> = HashMap::new();
    for (place, line) in answers.map(lines).transpose()?.unwrap_or_default() {
        gold.insert(text(&line, "id", &place)?, golds(&line, &place)?);
    }
    let mut seen = HashSet::new();
    let row = |(place, line): (String, Value)| {
        let id = text(&line, "id", &place)?;
        if !seen.insert(id.clone()) {
            return Err(wrong(&place, "id", &format!("{id} is the id of an earlier question; give each its own")));
        }
        row(&line, &place, &mut gold)
    };
    let rows: Vec<Row> = lines(questions)?.into_iter().take(limit).map(row).collect::<Result<_>>()?;
    if rows.is_empty() { Err(TrainError::input(questions, "holds no question")) } else { Ok(rows) }
}

/// The JSON objects of a file with their places.
fn lines(path: &Path) -> Result<Vec<(String, Value)>> {
    let text = std::fs::read_to_string(path).map_err(TrainError::io(path))?;
    let filled = (1..).zip(text.trim_start_matches('\u{feff}').lines()).filter(|(_, line)| !line.trim().is_empty());
    let parsed = |(number, line): (usize, &str)| {
        let place = format!("{}:{number}", path.display());
        let value =
            serde_json::from_str(line).map_err(|error| TrainError::Data(format!("{place}: not JSON: {error}")))?;
        Ok((place, value))
    };
    filled.map(parsed).collect()
}

fn wrong(place: &str, field: &str, problem: &str) -> TrainError {
    TrainError::Data(format!("{place}: `{field}`: {problem}"))
}

fn text(line: &Value, field: &str, place: &str) -> Result<String> {
    line[field].as_str().map(str::to_owned).ok_or_else(|| wrong(place, field, "must be a text"))
}

fn row(line: &Value, place: &str, gold: &mut HashMap<String, Vec<Gold>>) -> Result<Row> {
    let id = text(line, "id", place)?;
    let category = category(&id);
    let form = form(&category).ok_or_else(|| wrong(place, "id", &foreign(&category)))?;
    let functions = line["function"].as_array().cloned();
    let functions = functions.ok_or_else(|| wrong(place, "function", "must be a list of functions"))?;
    let conversation = conversation(line, &functions, place)?;
    let wanted = matches!(form, Form::One | Form::Several);
    let gold = match gold.remove(&id) {
        Some(gold) => gold,
        None if wanted => {
            return Err(wrong(place, "id", &format!("no gold answer to {id}; name the file of answers with --gold")));
        }
        None => Vec::new(),
    };
    Ok(Row { id, category, form, conversation, functions, gold })
}

fn foreign(category: &str) -> String {
    format!(
        "{category} cannot be measured here; known: simple_python, multiple, parallel, parallel_multiple, irrelevance, and these after live_"
    )
}

/// `live_simple` of `live_simple_12-3-0`.
fn category(id: &str) -> String {
    let words = id.split('_').take_while(|word| !word.starts_with(|first: char| first.is_ascii_digit()));
    words.collect::<Vec<_>>().join("_")
}

fn form(category: &str) -> Option<Form> {
    Some(match category.strip_prefix("live_").unwrap_or(category) {
        "simple" | "simple_python" | "multiple" => Form::One,
        "parallel" | "parallel_multiple" => Form::Several,
        "irrelevance" => Form::Silence,
        "relevance" => Form::Any,
        _ => return None,
    })
}

/// The question as a conversation of one turn.
fn conversation(line: &Value, functions: &[Value], place: &str) -> Result<Conversation> {
    let [messages] = line["question"].as_array().map(Vec::as_slice).unwrap_or_default() else {
        return Err(wrong(place, "question", "must be a list of one turn, which is a list of messages"));
    };
    let tool = |function: &Value| json!({"type": "function", "function": function});
    let tools: Vec<Value> = functions.iter().map(tool).collect();
    Ok(native::from_json(&json!({"messages": messages, "tools": tools}), place)?)
}

fn golds(line: &Value, place: &str) -> Result<Vec<Gold>> {
    let problem = "must be a list of objects {function: {argument: [allowed values]}}";
    let gold = |call: &Value| {
        let (function, arguments) = call.as_object()?.iter().next()?;
        Some(Gold { function: function.clone(), arguments: arguments.as_object()?.clone() })
    };
    let calls = line["ground_truth"].as_array().and_then(|calls| calls.iter().map(gold).collect::<Option<_>>());
    calls.ok_or_else(|| wrong(place, "ground_truth", problem))
}
