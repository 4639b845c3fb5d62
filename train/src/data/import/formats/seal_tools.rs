//! Seal-Tools: a catalogue of functions (`api_name`, `parameters`) and, in rows after it, queries with the calls that answer
//! them (`query`, `calling`).
//!
//! A query offers the functions that it needs among others drawn from the catalogue. Calls whose arguments are the results
//! of other calls (`API_call_0`) make a row flawed: the results themselves are not in the data.

use super::super::calls;
use super::super::dialogue::{Call, Dialogue};
use super::super::fields::{list, text};
use super::super::functions;
use super::{Format, Read, Rules};
use crate::data::rows::{Flaw, Reason};
use crate::random;
use callsmith::chat::{Conversation, Role, Tool};
use rand::RngExt;
use rand::seq::SliceRandom;
use serde_json::{Value as Json, json};
use std::collections::HashMap;

/// Functions of the largest catalogue, and bytes of their descriptions and schemas.
const LARGEST: usize = 20_000;
const LARGEST_BYTES: usize = 16 << 20;

pub(super) struct SealTools {
    others: usize,
    seed: u64,
    catalogue: Vec<Tool>,
    bytes: usize,
    /// Where each is.
    places: HashMap<String, usize>,
    queries: u64,
}

impl SealTools {
    /// Each query offers so many `others` beside what it needs.
    pub(super) fn new(others: usize, seed: u64) -> Self {
        Self { others, seed, catalogue: Vec::new(), bytes: 0, places: HashMap::new(), queries: 0 }
    }

    fn declare(&mut self, row: &Json) -> Result<(), Flaw> {
        let name = text(row, "api_name")?;
        let described = json!({"name": name, "description": row["api_description"], "parameters": row["parameters"]});
        let mut tool = functions::one(&described)?;
        if let Some(schema) = &mut tool.parameters {
            schema["required"] = if row["required"].is_array() { row["required"].clone() } else { json!([]) };
        }
        self.bytes +=
            [&row["api_description"], &row["parameters"]].map(|part| part.to_string().len()).iter().sum::<usize>();
        if self.catalogue.len() >= LARGEST || self.bytes > LARGEST_BYTES {
            let detail = format!("more than {LARGEST} functions, or {LARGEST_BYTES} bytes of them");
            return Err(Flaw::new(Reason::Tools, detail));
        }
        if self.places.insert(name.to_owned(), self.catalogue.len()).is_some() {
            return Err(Flaw::new(Reason::Tools, format!("a second function `{name}`")));
        }
        self.catalogue.push(tool);
        Ok(())
    }

    fn query(&mut self, row: &Json) -> Result<Conversation, Flaw> {
        self.queries += 1;
        let calls: Vec<Call> = list(row, "calling")?.iter().map(call).collect::<Result<_, _>>()?;
        let mut dialogue = Dialogue::default();
        dialogue.say(Role::User, text(row, "query")?);
        let tools = self.offer(&calls)?;
        dialogue.call("", calls);
        dialogue.finish(tools)
    }

    /// The called functions among others, in any order.
    fn offer(&self, calls: &[Call]) -> Result<Vec<Tool>, Flaw> {
        let mut random = random::stream(self.seed, "seal-tools functions", self.queries);
        let mut places = Vec::new();
        for call in calls {
            let unknown =
                || Flaw::new(Reason::Tools, format!("`{}` is not declared; import the catalogue first", call.name));
            places.push(*self.places.get(&call.name).ok_or_else(unknown)?);
        }
        places.extend((0..self.others).map(|_| random.random_range(0..self.catalogue.len())));
        places.sort_unstable();
        places.dedup();
        places.shuffle(&mut random);
        Ok(places.into_iter().map(|place| self.catalogue[place].clone()).collect())
    }
}

impl Format for SealTools {
    fn row(&mut self, row: &Json, rules: &mut Rules) -> Read {
        if row.get("api_name").is_none() {
            return self.query(row).map(|read| Some(read.into()));
        }
        self.declare(row)?;
        *rules.entry("seal-tools: function taken into the catalogue").or_default() += 1;
        Ok(None)
    }
}

fn call(value: &Json) -> Result<Call, Flaw> {
    let call = calls::one(&json!({"name": value["api"], "arguments": value["parameters"]}))?;
    let depends = |value: &Json| value.as_str().is_some_and(|text| text.starts_with("API_call_"));
    match call.arguments.as_object().into_iter().flatten().find(|(_, value)| depends(value)) {
        Some((name, _)) => Err(Flaw::new(Reason::Call, format!("`{name}` is the result of another call"))),
        None => Ok(call),
    }
}
