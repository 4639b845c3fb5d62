//! Which keywords meet at one place of the instance: `$ref`, `allOf`, `anyOf` and `oneOf` multiplied out.

use super::super::GrammarError;
use super::document::{Document, Node};
use super::{atom, too_complex};
use serde_json::Value;
use std::collections::HashMap;

/// Ways to satisfy one place; bounds the product of alternatives that meet under an `allOf`.
const MAX_ALTERNATIVES: usize = 256;
/// Attempts to find them; also counts those that contradict themselves.
const MAX_ATTEMPTS: usize = 4_000;
/// Different places.
const MAX_LOCATIONS: usize = 5_000;

/// The places of an instance, each the list of schemas that all hold there. An empty list is any JSON value.
///
/// Equal lists are one location, which is how recursion closes.
#[derive(Default)]
pub(super) struct Locations<'a> {
    nodes: Vec<Vec<Node<'a>>>,
    ids: HashMap<Vec<*const Value>, usize>,
}

impl<'a> Locations<'a> {
    /// The number of the place where all of `nodes` hold.
    pub(super) fn id(&mut self, nodes: impl IntoIterator<Item = Node<'a>>) -> usize {
        let mut list: Vec<Node<'a>> = Vec::new();
        for node in nodes {
            let known = list.iter().any(|other| std::ptr::eq(*other, node));
            if !known && !matches!(node, Value::Bool(true)) {
                list.push(node);
            }
        }
        let mut key: Vec<*const Value> = list.iter().map(|node| std::ptr::from_ref(*node)).collect();
        key.sort_unstable();
        let next = self.nodes.len();
        let id = *self.ids.entry(key).or_insert(next);
        if id == next {
            self.nodes.push(list);
        }
        id
    }

    /// The schemas of place `id`, or `None` when there are no more places.
    pub(super) fn get(&self, id: usize) -> Result<Option<Vec<Node<'a>>>, GrammarError> {
        if self.nodes.len() > MAX_LOCATIONS {
            return Err(too_complex("", format!("its combinations give more than {MAX_LOCATIONS} different places")));
        }
        Ok(self.nodes.get(id).cloned())
    }
}

/// One way to satisfy a place: the plain keywords of all parts hold together.
#[derive(Debug, Clone, Default)]
pub(super) struct Alternative<'a> {
    pub(super) parts: Vec<Node<'a>>,
    /// The branch taken of every `oneOf`.
    pub(super) chosen: Vec<Chosen<'a>>,
}

/// A branch of a `oneOf`; the others must not hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Chosen<'a> {
    pub(super) owner: Node<'a>,
    pub(super) branch: usize,
}

#[derive(Clone, Default)]
struct State<'a> {
    pending: Vec<Node<'a>>,
    /// Schemas whose `anyOf` or `oneOf` is still to be chosen from.
    forks: Vec<(Node<'a>, &'static str)>,
    done: Alternative<'a>,
}

/// Every way to satisfy all of `nodes`.
pub(super) fn alternatives<'a>(
    document: &Document<'a>,
    nodes: &[Node<'a>],
) -> Result<Vec<Alternative<'a>>, GrammarError> {
    let mut found = Vec::new();
    let mut open = vec![State { pending: nodes.iter().rev().copied().collect(), ..State::default() }];
    let mut attempts = 0;
    while let Some(mut state) = open.pop() {
        if !expand(document, &mut state) {
            continue;
        }
        let Some((owner, keyword)) = state.forks.pop() else {
            found.push(state.done);
            continue;
        };
        let branches = owner.get(keyword).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for (branch, node) in branches.iter().enumerate().rev() {
            let mut next = state.clone();
            next.pending.push(node);
            if keyword == "oneOf" {
                next.done.chosen.push(Chosen { owner, branch });
            }
            open.push(next);
        }
        attempts += branches.len();
        if open.len() + found.len() > MAX_ALTERNATIVES || attempts > MAX_ATTEMPTS {
            let message = format!("`anyOf`/`oneOf` combine into more than {MAX_ALTERNATIVES} alternatives");
            return Err(too_complex(document.pointer(owner), message));
        }
    }
    Ok(found)
}

/// Follows references and `allOf` until only choices are left. False when nothing can satisfy the state.
fn expand<'a>(document: &Document<'a>, state: &mut State<'a>) -> bool {
    while let Some(node) = state.pending.pop() {
        let map = match node {
            Value::Object(map) => map,
            Value::Bool(true) => continue,
            _ => return false,
        };
        if state.done.parts.iter().any(|part| std::ptr::eq(*part, node)) {
            continue;
        }
        state.done.parts.push(node);
        state.pending.extend(map.get("allOf").and_then(Value::as_array).into_iter().flatten().rev());
        let target = map.get("$ref").and_then(Value::as_str).and_then(|text| document.resolve(text));
        state.pending.extend(target.map(|(_, node)| node));
        state.forks.extend(["anyOf", "oneOf"].into_iter().filter(|key| map.contains_key(*key)).map(|key| (node, key)));
    }
    state.done.parts.iter().fold(u8::MAX, |types, part| types & atom::types_of(part)) != 0
}
