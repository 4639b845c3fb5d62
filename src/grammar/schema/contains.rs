//! `contains`: arrays with enough items of a kind, written out by position.
//!
//! Narrower than the keyword: the items that count are among the first few.

use super::super::GrammarError;
use super::keywords::count;
use super::refuse;
use super::rewrite::{Rewriter, weight};
use super::{atom, document::Draft};
use serde_json::{Value, json};

/// Positions at which an item may count.
const MAX_POSITIONS: usize = 8;
/// Ways to place them.
const MAX_WAYS: usize = 64;

impl Rewriter<'_, '_> {
    /// The keyword with its two counts; other types pass.
    pub(super) fn contains(&self, node: &Value, at: &str) -> Result<Value, GrammarError> {
        let bound = |keyword: &str| {
            let value = node.get(keyword).filter(|_| self.document.draft >= Draft::Nineteen);
            value.and_then(count).map(|count| usize::try_from(count).unwrap_or(usize::MAX))
        };
        let (least, most) = (bound("minContains").unwrap_or(1), bound("maxContains"));
        if least == 0 && most.is_none() {
            return Ok(Value::Bool(true));
        }
        let schema = node.get("contains").unwrap_or(&Value::Bool(true));
        let wanted = self.positive(schema)?;
        let mut ways = match most {
            None => self.with_items(&wanted, &Value::Bool(true), least..=least, at)?,
            Some(most) => self.with_items(&wanted, &self.negative(schema)?, least..=most.min(MAX_POSITIONS), at)?,
        };
        let other = atom::names_of(atom::types_of(node) & !atom::bits("array"));
        if !other.is_empty() {
            ways.push(self.made(json!({"type": other}), at)?);
        }
        self.any(ways, at)
    }

    /// Arrays with such an item.
    pub(super) fn has_item(&self, wanted: &Value, at: &str) -> Result<Value, GrammarError> {
        let ways = self.with_items(wanted, &Value::Bool(true), 1..=1, at)?;
        self.any(ways, at)
    }

    /// As many items as `counts` allows are `wanted`, and all the others are `other`.
    fn with_items(
        &self,
        wanted: &Value,
        other: &Value,
        counts: std::ops::RangeInclusive<usize>,
        at: &str,
    ) -> Result<Vec<Value>, GrammarError> {
        let positions = (1..=MAX_POSITIONS).rev().find(|positions| {
            positions >= counts.end()
                && counts.clone().map(|count| choices(*positions, count).len()).sum::<usize>() <= MAX_WAYS
        });
        let Some(positions) = positions else {
            return Err(refuse(
                at,
                format!("`contains` is enforced for up to {MAX_POSITIONS} items in few combinations"),
            ));
        };
        let chosen = counts.flat_map(|count| choices(positions, count));
        let (heavy, light) = (weight(wanted), weight(other));
        let way = |chosen: Vec<usize>| {
            let length = chosen.last().map_or(0, |last| last + 1);
            // Inside each other, these copies would multiply.
            self.spend(chosen.len() * heavy + (length + 1 - chosen.len()) * light, at)?;
            let item = |index: usize| if chosen.contains(&index) { wanted.clone() } else { other.clone() };
            self.tuple(&(0..length).map(item).collect::<Vec<_>>(), other, length, at)
        };
        chosen.map(way).collect()
    }
}

/// All ways to choose `count` of the numbers below `limit`, each in order.
pub(super) fn choices(limit: usize, count: usize) -> Vec<Vec<usize>> {
    let mut found = vec![Vec::new()];
    for _ in 0..count {
        let longer = |chosen: Vec<usize>| {
            let start = chosen.last().map_or(0, |last| last + 1);
            (start..limit).map(move |next| chosen.iter().copied().chain([next]).collect())
        };
        found = found.into_iter().flat_map(longer).collect();
    }
    found
}
