//! The caller's schema with what the passes look up in it: references, pointers, and the `jsonschema` crate's verdicts.

use super::super::GrammarError;
use super::{pattern, refuse, rewrite};
use jsonschema::{Validator, ValidatorMap};
use serde_json::{Value, json};
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;

/// A schema inside the document: an object or a boolean.
pub(super) type Node<'a> = &'a Value;

/// The dialects of JSON Schema that are told apart, oldest semantics first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Draft {
    /// Draft 4: as 7, without `const`.
    Four,
    /// Draft 6: as 7, without `if`.
    Six,
    /// Draft 7: `$ref` hides its siblings, tuples are written as `items: []`.
    Seven,
    /// Draft 2019-09: tuples are written as `items: []`.
    Nineteen,
    /// Draft 2020-12, also when nothing is said.
    Twenty,
}

const DRAFTS: [(&str, Draft); 5] = [
    ("https://json-schema.org/draft/2020-12/schema", Draft::Twenty),
    ("https://json-schema.org/draft/2019-09/schema", Draft::Nineteen),
    ("http://json-schema.org/draft-07/schema", Draft::Seven),
    ("http://json-schema.org/draft-06/schema", Draft::Six),
    ("http://json-schema.org/draft-04/schema", Draft::Four),
];

/// JSON pointers of a schema: in this document, and in the caller's.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub(super) here: String,
    pub(super) caller: String,
}

impl Place {
    /// The place of a child.
    pub(super) fn child(&self, tokens: &str) -> Self {
        Self { here: format!("{}/{tokens}", self.here), caller: format!("{}/{tokens}", self.caller) }
    }

    /// A place that a reference names, which is the same in both documents.
    pub(super) fn target(pointer: String) -> Self {
        Self { here: pointer.clone(), caller: pointer }
    }
}

/// The schema and its indexes.
pub(super) struct Document<'a> {
    pub(super) root: Node<'a>,
    pub(super) draft: Draft,
    /// A copy by `rewrite`, whose schemas may say where the caller wrote them.
    pub(super) rewritten: bool,
    /// Every schema that the guard reached, by address.
    places: HashMap<*const Value, Place>,
    validators: OnceCell<Option<ValidatorMap>>,
    name_matchers: RefCell<HashMap<String, Option<Validator>>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(root: Node<'a>) -> Result<Self, GrammarError> {
        Ok(Self {
            root,
            draft: draft_of(root)?,
            rewritten: false,
            places: HashMap::new(),
            validators: OnceCell::new(),
            name_matchers: RefCell::default(),
        })
    }

    /// A copy by `rewrite`.
    pub(super) fn of_rewritten(root: Node<'a>) -> Result<Self, GrammarError> {
        Ok(Self { rewritten: true, ..Self::new(root)? })
    }

    /// The pointer and schema that a `$ref` names; `None` when it names nothing in this document.
    pub(super) fn resolve(&self, reference: &str) -> Option<(String, Node<'a>)> {
        let pointer = percent_decode(reference.strip_prefix('#')?)?;
        let node = self.root.pointer(&pointer)?;
        Some((pointer, node))
    }

    /// Remembers where a schema stands. False when it was already known.
    pub(super) fn note(&mut self, node: Node<'a>, place: &Place) -> bool {
        self.places.insert(std::ptr::from_ref(node), place.clone()).is_none()
    }

    /// Whether the guard reached a schema.
    pub(super) fn knows(&self, node: &Value) -> bool {
        self.places.contains_key(&std::ptr::from_ref(node))
    }

    /// Where the caller wrote a schema, for refusals.
    pub(super) fn pointer(&self, node: &Value) -> &str {
        self.places.get(&std::ptr::from_ref(node)).map_or("", |place| place.caller.as_str())
    }

    /// Where the caller wrote a rewritten schema, when it says so itself.
    pub(super) fn origin(&self, node: &'a Value) -> Option<&'a str> {
        if self.rewritten { node.get(rewrite::ORIGIN)?.as_str() } else { None }
    }

    /// Refuses what the metaschema refuses, so that the final check of an answer can always be built.
    pub(super) fn check_metaschema(&self) -> Result<(), GrammarError> {
        match jsonschema::validator_for(self.root) {
            Ok(_) => Ok(()),
            Err(error) => {
                let message: String = error.to_string().chars().take(200).collect();
                Err(refuse(error.instance_path().to_string(), message))
            }
        }
    }

    /// Whether `jsonschema` accepts `value` at `node`. `None` when it cannot tell.
    pub(super) fn accepts(&self, node: Node<'a>, value: &Value) -> Option<bool> {
        if let Value::Bool(verdict) = node {
            return Some(*verdict);
        }
        let map = self.validators.get_or_init(|| self.built_validators()).as_ref()?;
        let place = self.places.get(&std::ptr::from_ref(node))?;
        Some(map.get(&format!("#{}", place.here))?.is_valid(value))
    }

    /// Without the root's `$id`, which would name every schema in the map.
    fn built_validators(&self) -> Option<ValidatorMap> {
        if self.root.get("$id").is_none() {
            return jsonschema::validator_map_for(self.root).ok();
        }
        let mut root = self.root.clone();
        root.as_object_mut()?.remove("$id");
        jsonschema::validator_map_for(&root).ok()
    }

    /// Whether a `patternProperties` pattern covers a name, as `jsonschema` sees it. Unusable patterns cover everything,
    /// which only ever adds constraints.
    pub(super) fn name_matches(&self, regex: &str, name: &str) -> bool {
        let mut matchers = self.name_matchers.borrow_mut();
        let matcher = matchers
            .entry(regex.to_owned())
            .or_insert_with(|| jsonschema::validator_for(&json!({ "pattern": regex })).ok());
        matcher.as_ref().is_none_or(|matcher| matcher.is_valid(&json!(name)))
    }

    /// The pattern in the grammar compiler's syntax, or a refusal.
    pub(super) fn translate(&self, regex: &str, node: Node<'a>, keyword: &str) -> Result<String, GrammarError> {
        pattern::translate(regex).map_err(|message| refuse(format!("{}/{keyword}", self.pointer(node)), message))
    }
}

fn draft_of(root: &Value) -> Result<Draft, GrammarError> {
    let Some(uri) = root.get("$schema") else { return Ok(Draft::Twenty) };
    let known = uri.as_str().and_then(|uri| {
        let uri = uri.strip_suffix('#').unwrap_or(uri);
        DRAFTS.iter().find(|(known, _)| *known == uri)
    });
    let hint = "`$schema` must be one of the standard drafts (04, 06, 07, 2019-09, 2020-12); leave it out for 2020-12";
    known.map(|(_, draft)| *draft).ok_or_else(|| refuse("/$schema", hint))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// One reference token of a JSON pointer.
pub(super) fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}
