//! `--set key=value`: one value of a recipe replaced before it is read. Keys are dotted; list items go by number.

use crate::error::{Result, TrainError};
use toml::{Table, Value};

/// Applies one `a.b.0.c=value`. A value that is not TOML is taken as a string.
pub(super) fn apply(table: &mut Table, set: &str) -> Result<()> {
    let Some((key, value)) = set.split_once('=') else {
        return Err(TrainError::field(set, "--set takes KEY=VALUE, for example optim.lr=0.001"));
    };
    let key = key.trim();
    let (parents, last) = key.rsplit_once('.').unwrap_or(("", key));
    let mut place = Place::Table(table);
    for part in parents.split('.').filter(|part| !part.is_empty()) {
        place = place
            .enter(part)
            .ok_or_else(|| TrainError::field(key, format!("there is no list item or table `{part}`")))?;
    }
    place.insert(last, parse(value.trim())).ok_or_else(|| TrainError::field(key, "there is no such list item"))
}

fn parse(text: &str) -> Value {
    toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

enum Place<'a> {
    Table(&'a mut Table),
    List(&'a mut Vec<Value>),
}

impl<'a> Place<'a> {
    fn enter(self, part: &str) -> Option<Self> {
        let value = match self {
            Self::Table(table) => table.entry(part).or_insert_with(|| Value::Table(Table::new())),
            Self::List(list) => list.get_mut(part.parse::<usize>().ok()?)?,
        };
        match value {
            Value::Table(table) => Some(Self::Table(table)),
            Value::Array(list) => Some(Self::List(list)),
            _ => None,
        }
    }

    fn insert(self, part: &str, value: Value) -> Option<()> {
        match self {
            Self::Table(table) => drop(table.insert(part.to_owned(), value)),
            Self::List(list) => *list.get_mut(part.parse::<usize>().ok()?)? = value,
        }
        Some(())
    }
}
