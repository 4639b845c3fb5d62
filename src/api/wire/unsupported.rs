//! Fields that are refused because ignoring them would change the output, and fields that are checked and ignored.

use super::fields::{Fields, string, wrong_value};
use crate::api::error::{ApiError, Kind};

/// Known to OpenAI or to other servers, and they change the output: refused rather than ignored.
const REFUSED: [&str; 36] = [
    "functions",
    "function_call",
    "audio",
    "prediction",
    "web_search_options",
    "reasoning_effort",
    "verbosity",
    "chat_template",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "documents",
    "echo",
    "suffix",
    "best_of",
    "use_beam_search",
    "length_penalty",
    "min_tokens",
    "ignore_eos",
    "stop_token_ids",
    "bad_words",
    "allowed_token_ids",
    "include_stop_str_in_output",
    "skip_special_tokens",
    "truncate_prompt_tokens",
    "prompt_logprobs",
    "logits_processors",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "grammar",
    "json_schema",
    "typical_p",
    "mirostat",
    "thinking",
];

/// Refuses what cannot be honoured; `known` are those of the fields that this route takes all the same.
pub(super) fn refuse(fields: &Fields<'_>, known: &[&str]) -> Result<(), ApiError> {
    match fields.keys().find(|key| REFUSED.contains(key) && !known.contains(key)) {
        Some(key) => Err(unsupported(key)),
        None => modalities(fields),
    }
}

/// The parameter exists elsewhere but is not supported here.
pub(super) fn unsupported(path: &str) -> ApiError {
    let message = format!("Unsupported parameter: '{path}' is not supported with this model. Remove it.");
    ApiError::at(Kind::UnsupportedParameter, path, message)
}

fn modalities(fields: &Fields<'_>) -> Result<(), ApiError> {
    for (item, path) in fields.array("modalities")?.unwrap_or_default() {
        if string(item, &path)? != "text" {
            let message = "Only the modality \"text\" is supported.";
            return Err(ApiError::at(Kind::UnsupportedValue, path, message));
        }
    }
    Ok(())
}

/// Checks the types of fields that have no effect here, but for those in `meant`, which have one on this route.
pub(super) fn check_ignored(fields: &Fields<'_>, meant: &[&str]) -> Result<(), ApiError> {
    for key in ["user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"] {
        fields.string(key)?;
    }
    if let Some(tier) = fields.string("service_tier")? {
        let known = ["auto", "default", "flex", "scale", "priority", "standard", "standard_only"];
        if !known.contains(&tier) {
            return Err(wrong_value("service_tier", tier, "Supported values are: 'auto' and 'default'."));
        }
    }
    if fields.boolean("store")? == Some(true) && !meant.contains(&"store") {
        let message = "Completions are not stored here: send \"store\": false or leave it out.";
        return Err(ApiError::at(Kind::UnsupportedValue, "store", message));
    }
    metadata(fields)
}

fn metadata(fields: &Fields<'_>) -> Result<(), ApiError> {
    let Some(metadata) = fields.object("metadata")? else { return Ok(()) };
    if metadata.keys().count() > 16 {
        let message = "Invalid 'metadata': too many properties. Expected an object with at most 16 properties.";
        return Err(ApiError::at(Kind::ObjectTooLarge, "metadata", message));
    }
    for key in metadata.keys() {
        metadata.string(key)?;
    }
    Ok(())
}
