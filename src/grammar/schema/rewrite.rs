//! Rewriting: a copy of the caller's schema in the keywords that the later passes enforce.
//!
//! `not`, `if`, `dependent…`, `contains` and a `oneOf` that is not provably exclusive become members of an `allOf`, which mean
//! the same or, where said, less. Every schema that is made here remembers where the caller wrote its cause. Knows how a
//! keyword reads positively; `negate` knows how it fails.
//!
//! Recurses over JSON that the guard has bounded; references are followed by `negate` alone, which counts the depth.

use super::super::GrammarError;
use super::document::{Document, Draft, escape};
use super::guard::{MAX_BYTES, MAX_SCHEMAS, holds_list, holds_map, holds_named, holds_schema};
use super::{atom, evaluated, too_complex};
use serde_json::{Map, Value, json};
use std::cell::Cell;
use std::collections::HashSet;

/// The key under which a rewritten schema says where the caller wrote its cause.
pub(super) const ORIGIN: &str = "x-callsmith-origin";

/// Whether a keyword with this value must be gone after rewriting.
pub(super) fn replaces(keyword: &str, value: &Value) -> bool {
    match keyword {
        "not" => !is_exclusion(value),
        _ => matches!(
            keyword,
            "if" | "then"
                | "else"
                | "contains"
                | "minContains"
                | "maxContains"
                | "dependentRequired"
                | "dependentSchemas"
                | "dependencies"
                | "$id"
        ),
    }
}

/// `{"enum": […]}` of scalars: the one negated schema that types enforce themselves.
fn is_exclusion(value: &Value) -> bool {
    let scalars = |list: &Vec<Value>| list.iter().all(|value| !value.is_array() && !value.is_object());
    value.get("enum").and_then(Value::as_array).is_some_and(scalars)
        && value.as_object().is_some_and(|map| map.keys().all(|key| key == "enum" || key == ORIGIN))
}

/// Keywords looked at and values copied, also where nothing comes of it.
const MAX_STEPS: usize = 200_000;
/// Bytes of a pointer whose writing is as much work as a keyword.
const POINTER_STEP: usize = 1_024;

/// What the passes of rewriting share.
pub(super) struct Rewriter<'d, 'a> {
    pub(super) document: &'d Document<'a>,
    /// Caller's pointers of `oneOf` owners whose branches must be told apart by negation.
    overlaps: &'d HashSet<String>,
    schemas: Cell<usize>,
    bytes: Cell<usize>,
    steps: Cell<usize>,
    pub(super) depth: Cell<usize>,
}

/// The whole document rewritten. Definitions that nothing refers to stay as they are.
pub(super) fn rewrite(document: &Document<'_>, overlaps: &HashSet<String>) -> Result<Value, GrammarError> {
    let zero = || Cell::new(0);
    let rewriter = Rewriter { document, overlaps, schemas: zero(), bytes: zero(), steps: zero(), depth: zero() };
    rewriter.positive(document.root)
}

impl Rewriter<'_, '_> {
    /// The schema in enforced keywords.
    pub(super) fn positive(&self, node: &Value) -> Result<Value, GrammarError> {
        let Some(map) = node.as_object() else { return Ok(node.clone()) };
        self.visit(node, map)?;
        let known = self.document.knows(node);
        let mut copy = Map::new();
        let mut added = Vec::new();
        for (keyword, value) in map {
            if keyword == ORIGIN || (known && self.replaced(node, keyword, value, &mut added)?) {
                continue;
            }
            copy.insert(keyword.clone(), self.copied(keyword, value)?);
        }
        added.retain(|schema| schema != &Value::Bool(true));
        if !added.is_empty() {
            let list = copy.entry("allOf").or_insert_with(|| json!([]));
            list.as_array_mut().into_iter().for_each(|list| list.append(&mut added));
        }
        self.charge(&copy, self.document.pointer(node))?;
        if known {
            copy.insert(ORIGIN.into(), json!(self.document.pointer(node)));
        }
        Ok(Value::Object(copy))
    }

    /// Whether the keyword is dropped; what stands for it goes to `added`.
    fn replaced(
        &self,
        node: &Value,
        keyword: &str,
        value: &Value,
        added: &mut Vec<Value>,
    ) -> Result<bool, GrammarError> {
        let at = self.at(node, keyword);
        match keyword {
            "not" => added.push(self.negative(value)?),
            "if" => added.push(self.conditional(node, &at)?),
            "dependentRequired" | "dependentSchemas" | "dependencies" => {
                added.extend(self.dependencies(node, value, &at)?);
            }
            "contains" => added.push(self.contains(node, &at)?),
            "then" | "else" | "minContains" | "maxContains" | "$id" => {}
            "oneOf" if self.overlaps.contains(self.document.pointer(node)) => added.push(self.one_of(value, &at)?),
            "unevaluatedProperties" | "unevaluatedItems" => {
                evaluated::check(self.document, node, keyword, |node| {
                    self.overlaps.contains(self.document.pointer(node))
                })?;
                return Ok(false);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The value of a keyword that stays, with the schemas inside rewritten.
    fn copied(&self, keyword: &str, value: &Value) -> Result<Value, GrammarError> {
        match value {
            Value::Array(list) if holds_list(keyword) => {
                list.iter().map(|item| self.positive(item)).collect::<Result<Vec<_>, _>>().map(Value::Array)
            }
            Value::Object(map) if holds_named(keyword) => {
                let named = map.iter().map(|(name, item)| Ok((name.clone(), self.positive(item)?)));
                named.collect::<Result<Map<_, _>, GrammarError>>().map(Value::Object)
            }
            _ if holds_schema(keyword) => self.positive(value),
            _ => Ok(value.clone()),
        }
    }

    /// `if` with `then` and `else`: both hold, or the condition fails and the other holds.
    fn conditional(&self, node: &Value, at: &str) -> Result<Value, GrammarError> {
        let (Some(condition), then, otherwise) = (node.get("if"), node.get("then"), node.get("else")) else {
            return Ok(Value::Bool(true));
        };
        if then.is_none() && otherwise.is_none() {
            return Ok(Value::Bool(true));
        }
        let branch = |schema: Option<&Value>| schema.map_or(Ok(Value::Bool(true)), |schema| self.positive(schema));
        let met = self.all(vec![self.positive(condition)?, branch(then)?], at)?;
        let unmet = self.all(vec![self.negative(condition)?, branch(otherwise)?], at)?;
        self.any(vec![met, unmet], at)
    }

    /// For every name: it is absent, or its consequence holds, or the value is no object.
    fn dependencies(&self, node: &Value, value: &Value, at: &str) -> Result<Vec<Value>, GrammarError> {
        let named = value.as_object().into_iter().flatten();
        let other = atom::names_of(atom::types_of(node) & !atom::bits("object"));
        named
            .map(|(name, consequence)| {
                let at = &format!("{at}/{}", escape(name));
                let absent = self.made(json!({"type": "object", "properties": {name: false}}), at)?;
                let present = self.made(json!({"type": "object", "required": [name]}), at)?;
                let then = match consequence.as_array() {
                    Some(names) => self.made(json!({"type": "object", "required": names}), at)?,
                    None => self.positive(consequence)?,
                };
                let mut ways = vec![absent, self.all(vec![present, then], at)?];
                if !other.is_empty() {
                    ways.push(self.made(json!({"type": other}), at)?);
                }
                self.any(ways, at)
            })
            .collect()
    }

    /// Every branch with all others negated.
    fn one_of(&self, value: &Value, at: &str) -> Result<Value, GrammarError> {
        let branches = value.as_array().map_or(&[][..], Vec::as_slice);
        let mut ways = Vec::new();
        for (index, branch) in branches.iter().enumerate() {
            let mut parts = vec![self.positive(branch)?];
            for (_, rival) in branches.iter().enumerate().filter(|(other, _)| *other != index) {
                parts.push(self.negative(rival)?);
            }
            ways.push(self.all(parts, at)?);
        }
        self.any(ways, at)
    }

    /// The caller's pointer to a keyword.
    pub(super) fn at(&self, node: &Value, keyword: &str) -> String {
        format!("{}/{}", self.document.pointer(node), escape(keyword))
    }

    /// A new schema on account of what stands at `at`.
    pub(super) fn made(&self, mut schema: Value, at: &str) -> Result<Value, GrammarError> {
        if let Some(map) = schema.as_object_mut() {
            self.charge(map, at)?;
            map.insert(ORIGIN.into(), json!(at));
        }
        Ok(schema)
    }

    /// At least one of `ways`.
    pub(super) fn any(&self, mut ways: Vec<Value>, at: &str) -> Result<Value, GrammarError> {
        ways.retain(|way| way != &Value::Bool(false));
        if ways.contains(&Value::Bool(true)) {
            return Ok(Value::Bool(true));
        }
        match ways.len() {
            0 => Ok(Value::Bool(false)),
            1 => Ok(ways.swap_remove(0)),
            _ => self.made(json!({"anyOf": ways}), at),
        }
    }

    /// All of `parts`.
    pub(super) fn all(&self, mut parts: Vec<Value>, at: &str) -> Result<Value, GrammarError> {
        parts.retain(|part| part != &Value::Bool(true));
        if parts.contains(&Value::Bool(false)) {
            return Ok(Value::Bool(false));
        }
        match parts.len() {
            0 => Ok(Value::Bool(true)),
            1 => Ok(parts.swap_remove(0)),
            _ => self.made(json!({"allOf": parts}), at),
        }
    }

    /// A schema for arrays: these items first, then the rest.
    pub(super) fn tuple(&self, first: &[Value], rest: &Value, least: usize, at: &str) -> Result<Value, GrammarError> {
        let schema = match (first.is_empty(), self.document.draft) {
            (true, _) => json!({"type": "array", "items": rest, "minItems": least}),
            (_, Draft::Twenty) => json!({"type": "array", "prefixItems": first, "items": rest, "minItems": least}),
            _ => json!({"type": "array", "items": first, "additionalItems": rest, "minItems": least}),
        };
        self.made(schema, at)
    }

    /// Counts a schema and its bytes without those of the schemas inside. Pointers are counted by `visit`.
    fn charge(&self, map: &Map<String, Value>, at: &str) -> Result<(), GrammarError> {
        self.schemas.set(self.schemas.get() + 1);
        self.bytes.set(self.bytes.get() + map.iter().map(|(key, value)| own_bytes(key, value)).sum::<usize>());
        self.check_budget(at)
    }

    /// Counts the work on a schema: that much is done even where the outcome is `false` and no schema is made.
    pub(super) fn visit(&self, node: &Value, map: &Map<String, Value>) -> Result<(), GrammarError> {
        let at = self.document.pointer(node);
        self.spend((1 + map.len()) * (1 + at.len() / POINTER_STEP), at)
    }

    /// Counts other work.
    pub(super) fn spend(&self, steps: usize, at: &str) -> Result<(), GrammarError> {
        self.steps.set(self.steps.get().saturating_add(steps));
        self.check_budget(at)
    }

    fn check_budget(&self, at: &str) -> Result<(), GrammarError> {
        let within = self.schemas.get() <= 2 * MAX_SCHEMAS && self.bytes.get() <= 8 * MAX_BYTES;
        if within && self.steps.get() <= MAX_STEPS {
            return Ok(());
        }
        Err(too_complex(at, "its negations and conditions multiply out to too many schemas"))
    }
}

/// Bytes that a keyword adds to its schema: its value, or the names in it when that holds schemas.
fn own_bytes(keyword: &str, value: &Value) -> usize {
    let inner = holds_list(keyword) || holds_map(keyword) || holds_schema(keyword) || keyword.starts_with('$');
    let names = || value.as_object().into_iter().flatten().map(|(name, _)| name.len()).sum();
    // The only schema inside that is not made, hence not counted, on its own.
    let excluded = value.get("enum").filter(|_| keyword == "not");
    keyword.len()
        + if inner { names() } else { value.to_string().len() }
        + excluded.map_or(0, |list| list.to_string().len())
}

/// The JSON values in a value.
pub(super) fn weight(value: &Value) -> usize {
    let (mut open, mut count) = (vec![value], 0);
    while let Some(value) = open.pop() {
        count += 1;
        match value {
            Value::Array(list) => open.extend(list),
            Value::Object(map) => open.extend(map.values()),
            _ => {}
        }
    }
    count
}
