//! Locations as a graph without cycles and dead ends: recursion unrolled, what nothing can satisfy removed.
//!
//! Unrolling bounds the nesting of every answer, so that any JSON reader can read it (serde_json stops at 128 levels).

use super::super::GrammarError;
use super::array::Array;
use super::atom::{Atom, Choice};
use super::object::Object;
use super::{refuse, too_complex};
use std::collections::HashMap;

/// Levels of a recursion.
const MAX_RECURSION: usize = 16;
const MIN_RECURSION: usize = 4;
/// States after unrolling.
const MAX_STATES: usize = 8_000;
/// Nesting of an answer's JSON, constants excepted.
const MAX_NESTING: usize = 88;

/// One place of an instance; children of its atoms are states. No atoms: nothing is allowed there.
type State<'a> = Vec<Atom<'a>>;

/// States in an order where children come first; the root is the last.
pub(super) struct Graph<'a> {
    pub(super) states: Vec<State<'a>>,
}

impl<'a> Graph<'a> {
    pub(super) fn build(definitions: &[Vec<Choice<'a>>]) -> Result<Self, GrammarError> {
        let unrolled = unroll(definitions)?;
        let order = children_first(&unrolled);
        let mut position = vec![0; unrolled.len()];
        let mut states: Vec<State<'a>> = Vec::with_capacity(unrolled.len());
        let mut heights = Vec::with_capacity(unrolled.len());
        for id in order {
            position[id] = states.len();
            let alive = |child: usize| !states[position[child]].is_empty();
            let mut state: State<'a> = unrolled[id].iter().filter_map(|atom| prune(atom.clone(), &alive)).collect();
            state.iter_mut().for_each(|atom| atom.map_children(|child| position[child]));
            let height = state.iter().flat_map(Atom::children).map(|child: usize| heights[child] + 1).max();
            heights.push(height.unwrap_or(1));
            states.push(state);
        }
        if states.last().is_none_or(Vec::is_empty) {
            return Err(refuse("", "no value can satisfy this schema"));
        }
        if heights.last().is_some_and(|height| *height > MAX_NESTING) {
            return Err(too_complex("", format!("answers could nest deeper than {MAX_NESTING} levels")));
        }
        Ok(Self { states })
    }
}

/// Copies the recursive part level by level; references beyond the last level lead to a dead state.
fn unroll<'a>(definitions: &[Vec<Choice<'a>>]) -> Result<Vec<State<'a>>, GrammarError> {
    let edges: Vec<Vec<usize>> =
        definitions.iter().map(|choices| choices.iter().flat_map(|choice| choice.atom.children()).collect()).collect();
    let recursive = recursive(&edges);
    let size = recursive.iter().filter(|inside| **inside).count().max(1);
    let levels = (MAX_STATES / 2 / size).clamp(MIN_RECURSION, MAX_RECURSION);
    let mut keys = vec![(0, 0)];
    let mut ids = HashMap::from([((0, 0), 0)]);
    let mut states = Vec::new();
    while let Some((definition, level)) = keys.get(states.len()).copied() {
        let dead = level >= levels;
        let choices = if dead { &[][..] } else { &definitions[definition] };
        let mut state: State<'a> = choices.iter().map(|choice| choice.atom.clone()).collect();
        for atom in &mut state {
            atom.map_children(|child| {
                let deeper = recursive[definition] && recursive[child];
                let key = (child, if deeper { level + 1 } else { 0 });
                *ids.entry(key).or_insert_with(|| {
                    keys.push(key);
                    keys.len() - 1
                })
            });
        }
        states.push(state);
        if keys.len() > MAX_STATES {
            return Err(too_complex("", "its recursion unrolls into too many different places"));
        }
    }
    Ok(states)
}

/// Which nodes lie on a cycle or between two.
fn recursive(edges: &[Vec<usize>]) -> Vec<bool> {
    let mut reversed = vec![Vec::new(); edges.len()];
    for (from, targets) in edges.iter().enumerate() {
        targets.iter().for_each(|to| reversed[*to].push(from));
    }
    let mut inside = vec![true; edges.len()];
    peel(edges, &reversed, &mut inside);
    peel(&reversed, edges, &mut inside);
    inside
}

/// Removes nodes without an edge to what is inside, until none is left.
fn peel(edges: &[Vec<usize>], reversed: &[Vec<usize>], inside: &mut [bool]) {
    let mut left: Vec<usize> = edges.iter().map(|to| to.iter().filter(|to| inside[**to]).count()).collect();
    let mut free: Vec<usize> = (0..edges.len()).filter(|node| inside[*node] && left[*node] == 0).collect();
    while let Some(node) = free.pop() {
        inside[node] = false;
        for from in &reversed[node] {
            left[*from] -= 1;
            if left[*from] == 0 && inside[*from] {
                free.push(*from);
            }
        }
    }
}

/// An order in which every state follows its children. The states have no cycles.
fn children_first(states: &[State<'_>]) -> Vec<usize> {
    let mut order = Vec::with_capacity(states.len());
    let mut seen = vec![false; states.len()];
    let mut stack = vec![(0, false)];
    while let Some((id, children_done)) = stack.pop() {
        if children_done {
            order.push(id);
        } else if !seen[id] {
            seen[id] = true;
            stack.push((id, true));
            stack.extend(
                states[id].iter().flat_map(Atom::children).filter(|child| !seen[*child]).map(|child| (child, false)),
            );
        }
    }
    order
}

/// The atom without its dead children; `None` when it cannot do without them.
fn prune<'a>(atom: Atom<'a>, alive: &impl Fn(usize) -> bool) -> Option<Atom<'a>> {
    match atom {
        Atom::Array(array) => prune_array(array, alive).map(Atom::Array),
        Atom::Object(object) => prune_object(object, alive).map(Atom::Object),
        other => Some(other),
    }
}

fn prune_array(mut array: Array, alive: &impl Fn(usize) -> bool) -> Option<Array> {
    if let Some(maximum) = array.maximum {
        array.prefix.truncate(usize::try_from(maximum).unwrap_or(usize::MAX));
    }
    array.rest = array.rest.filter(|rest| alive(*rest));
    if let Some(dead) = array.prefix.iter().position(|child| !alive(*child)) {
        array.prefix.truncate(dead);
        array.rest = None;
    }
    if array.rest.is_none() {
        let length = array.prefix.len() as u64;
        array.maximum = Some(array.maximum.map_or(length, |maximum| maximum.min(length)));
    }
    array.maximum.is_none_or(|maximum| array.minimum <= maximum).then_some(array)
}

fn prune_object(mut object: Object, alive: &impl Fn(usize) -> bool) -> Option<Object> {
    if object.fields.iter().any(|field| field.required && !alive(field.value)) {
        return None;
    }
    object.additional = object.additional.filter(|value| alive(*value));
    let open = object.additional.is_some() || !object.patterns.is_empty();
    // A forbidden name must stay known where other names are free.
    object.fields.retain(|field| open || alive(field.value));
    let required = object.fields.iter().filter(|field| field.required).count() as u64;
    let possible = object.fields.iter().filter(|field| alive(field.value)).count() as u64;
    let enough = open || possible >= object.minimum;
    let few = object.maximum.is_none_or(|maximum| required <= maximum && object.minimum <= maximum);
    (enough && few).then_some(object)
}

impl Atom<'_> {
    /// The places directly inside.
    pub(super) fn children(&self) -> Vec<usize> {
        match self {
            Atom::Array(array) => array.prefix.iter().copied().chain(array.rest).collect(),
            Atom::Object(object) => {
                let fields = object.fields.iter().map(|field| field.value);
                fields.chain(object.patterns.iter().map(|(_, value)| *value)).chain(object.additional).collect()
            }
            _ => Vec::new(),
        }
    }

    fn map_children(&mut self, mut map: impl FnMut(usize) -> usize) {
        match self {
            Atom::Array(array) => {
                array.prefix.iter_mut().chain(&mut array.rest).for_each(|child| *child = map(*child));
            }
            Atom::Object(object) => {
                let fields = object.fields.iter_mut().map(|field| &mut field.value);
                let patterns = object.patterns.iter_mut().map(|(_, value)| value);
                fields.chain(patterns).chain(&mut object.additional).for_each(|child| *child = map(*child));
            }
            _ => {}
        }
    }
}
