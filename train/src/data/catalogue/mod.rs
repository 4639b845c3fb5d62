//! Functions that others have written down, as tools: OpenAPI documents (JSON or YAML) and the tool list of Seal-Tools.
//! And dialogues that call them, in the classes that need no results.
//!
//! Knows what these files look like; whether a service answers is none of its business.

mod all_of;
mod ask;
mod command;
mod dialogue;
mod openapi;
mod seal;
#[cfg(test)]
mod tests;
mod values;

pub use dialogue::Catalogue;

use super::DataError;
use callsmith::chat::Tool;
use serde_json::Value as Json;
use std::path::Path;

/// Reads the functions of a file: an OpenAPI document (`.json`, `.yaml`, `.yml`), or tools as Seal-Tools has them, one JSON
/// object a line.
///
/// # Errors
/// A file that cannot be read, is neither, or holds no function; with its line or field where one is to blame.
pub fn read(path: &Path) -> Result<Vec<Tool>, DataError> {
    let text = std::fs::read_to_string(path).map_err(|e| DataError::file(path, e))?;
    let text = text.trim_start_matches('\u{feff}');
    let place = path.display().to_string();
    let is_yaml = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
    let document = match is_yaml {
        true => {
            Some(serde_saphyr::from_str::<Json>(text).map_err(|e| DataError::file(path, format!("not YAML: {e}")))?)
        }
        false => serde_json::from_str::<Json>(text).ok(),
    };
    let tools = match document {
        Some(document) if document.get("paths").is_some() => openapi::tools(&document, &place)?,
        Some(document) if document.get("api_name").is_none() => {
            let problem = "holds no `paths`; give an OpenAPI document, or a file with one tool of Seal-Tools a line";
            return Err(DataError::file(path, problem));
        }
        _ => seal::tools(text, &place)?,
    };
    if tools.is_empty() { Err(DataError::file(path, "holds no function")) } else { Ok(tools) }
}

/// A legal function name: letters, digits, `_` and `-`, at most 64 of them.
fn legal(name: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    let name: String = name.trim().chars().map(legal).take(64).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

/// An error about a field of a file.
fn wrong(place: &str, field: impl Into<String>, problem: impl Into<String>) -> DataError {
    DataError::Field { place: place.to_owned(), field: field.into(), problem: problem.into() }
}
