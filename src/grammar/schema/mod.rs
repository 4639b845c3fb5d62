//! Schema admission: the caller's schema in, the copy for the grammar compiler out, or a clear refusal.
//!
//! The copy accepts only instances that the caller's schema accepts (by the `jsonschema` crate), never more. It may accept
//! fewer, in documented ways: numbers stay within ±1e15 and integers within ±(2^53 − 1), objects that declare properties are
//! closed unless they say otherwise, recursion is unrolled to a fixed depth, `format` is a plain subset of the format, items
//! that `contains` asks for are among the first few, large sets under `uniqueItems` come in the order of their `enum`, names
//! that a pattern lists (`^(de|en)$`) in the order of the list.
//!
//! The passes: `guard` and `keywords` (limits and refusals) → `rewrite` with `negate` and `contains` (conditions and negations
//! in the keywords below) → the guard again → `location` (which keywords meet at one place of the instance) → `atom` (one type,
//! all its constraints) → `exclusive` (proofs for `oneOf`, against the caller's schema; what is not proved is rewritten) →
//! `graph` (recursion, dead ends) → `emit` with `count` and `unique`. Every pass walks with an explicit stack or worklist, or recurses over what is bounded: a
//! schema cannot overflow the thread's stack. Before them, where a request is read, `spelling` gives types their standard
//! names. Knows no dialect.

mod array;
mod atom;
mod complement;
mod contains;
mod count;
mod document;
mod emit;
mod evaluated;
mod exclusive;
mod format;
mod graph;
mod guard;
mod keywords;
mod location;
mod names;
mod negate;
mod number;
mod object;
mod pattern;
mod rewrite;
mod spelling;
mod strict;
mod text;
mod unique;

#[cfg(test)]
mod tests;

pub(super) use pattern::is_endless;
pub use spelling::standardised;
pub use strict::check_strict;

use super::GrammarError;
use document::Document;
use serde_json::{Value, json};
use std::collections::HashSet;

/// Checks a caller's schema (function parameters or a response format) and returns the copy for the compiler.
///
/// # Errors
/// [`GrammarError::Schema`] for what is malformed, unknown or not exactly enforceable; [`GrammarError::TooComplex`] for what
/// exceeds a limit. Both carry a JSON pointer into `schema`.
pub fn admit(schema: &Value) -> Result<Value, GrammarError> {
    guard::check_json(schema)?;
    let mut document = Document::new(schema)?;
    guard::check_schemas(&mut document)?;
    document.check_metaschema()?;
    let mut overlapping = HashSet::new();
    let mut overlaps = match enforce(&document, &rewrite::rewrite(&document, &overlapping)?)? {
        Verdict::Enforced(copy) => return Ok(copy),
        Verdict::Overlaps(overlaps) => overlaps,
    };
    // Each round takes the next level of `oneOf`.
    for _ in 0..MAX_ROUNDS {
        overlapping.extend(overlaps.iter().map(|overlap| overlap.owner.clone()));
        let copy = rewrite::rewrite(&document, &overlapping);
        let copy = copy.map_err(|error| overlaps[0].refusal(&format!("; {error}")))?;
        overlaps = match enforce(&document, &copy).map_err(|error| explained(error, &overlaps[0]))? {
            Verdict::Enforced(copy) => return Ok(copy),
            Verdict::Overlaps(overlaps) => overlaps,
        };
    }
    Err(overlaps[0].refusal(""))
}

/// Levels of overlapping `oneOf` inside each other.
const MAX_ROUNDS: usize = 4;

enum Verdict {
    Enforced(Value),
    /// At least one.
    Overlaps(Vec<exclusive::Overlap>),
}

/// Names the `oneOf` when telling its branches apart has left nothing of the schema.
fn explained(error: GrammarError, overlap: &exclusive::Overlap) -> GrammarError {
    match &error {
        GrammarError::Schema { pointer, message } if pointer.is_empty() => overlap.refusal(&format!("; {message}")),
        _ => error,
    }
}

/// The compiler's copy of `schema`, which `rewrite` has made of the caller's.
fn enforce(caller: &Document<'_>, schema: &Value) -> Result<Verdict, GrammarError> {
    let mut document = Document::of_rewritten(schema)?;
    guard::check_schemas(&mut document)?;
    let definitions = atom::definitions(&document)?;
    let overlaps = exclusive::overlaps(caller, &document, &definitions);
    if !overlaps.is_empty() {
        return Ok(Verdict::Overlaps(overlaps));
    }
    emit::emit(&graph::Graph::build(&definitions)?).map(Verdict::Enforced)
}

/// Checks the `parameters` of a function: an object schema. `None`, `null` and `{}` mean a function without arguments.
///
/// # Errors
/// As [`admit`]; also when the root is not an object schema.
pub fn admit_parameters(parameters: &Option<Value>) -> Result<Value, GrammarError> {
    let schema = match parameters {
        None | Some(Value::Null) => json!({"type": "object", "properties": {}}),
        Some(Value::Object(map)) => Value::Object(root_object(map)?),
        Some(_) => return Err(refuse("", "function parameters must be a JSON Schema object")),
    };
    admit(&schema)
}

/// The root with its implied parts written out: its type, and that an object which declares nothing takes nothing.
fn root_object(map: &serde_json::Map<String, Value>) -> Result<serde_json::Map<String, Value>, GrammarError> {
    let mut root = map.clone();
    match root.get("type") {
        None => root.insert("type".into(), json!("object")),
        Some(Value::String(name)) if name == "object" => None,
        Some(_) => return Err(refuse("/type", "the parameters of a function must have `\"type\": \"object\"`")),
    };
    let declares =
        ["patternProperties", "additionalProperties", "required", "$ref", "allOf", "anyOf", "oneOf", "const", "enum"];
    if !declares.iter().any(|keyword| root.contains_key(*keyword)) {
        root.entry("properties").or_insert_with(|| json!({}));
    }
    Ok(root)
}

/// A regular expression as JSON Schema writes it, as the compiler reads it.
///
/// # Errors
/// When it cannot be enforced; the text completes the sentence "the expression …".
pub(super) fn translate_pattern(regex: &str) -> Result<String, String> {
    pattern::translate(regex)
}

/// A refusal of something malformed or not enforceable.
fn refuse(pointer: impl Into<String>, message: impl Into<String>) -> GrammarError {
    GrammarError::Schema { pointer: pointer.into(), message: message.into() }
}

/// A refusal of something beyond a limit.
fn too_complex(pointer: impl Into<String>, message: impl Into<String>) -> GrammarError {
    GrammarError::TooComplex { pointer: pointer.into(), message: message.into() }
}
