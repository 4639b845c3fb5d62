//! Soft prompts as PEFT's `PROMPT_TUNING` directories: one table with an embedding for each virtual token.
//!
//! How the table came about (a text, random values) says nothing of what it does, so the settings about that are not read.

use super::config::{Fields, field};
use super::header::Declared;
use super::invalid;
use super::save::{Beside, write_with};
use crate::adapter::{AdapterError, shown};
use crate::model::ModelConfig;
use candle_core::Tensor;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const METHOD: &str = "PROMPT_TUNING";
/// PEFT's name of the table.
pub const TENSOR: &str = "prompt_embeddings";
/// Settings that may be switched on: they matter to the start of training alone.
const UNDERSTOOD: [&str; 3] = ["inference_mode", "auto_mapping", "tokenizer_kwargs"];

/// Whether the settings are of a soft prompt.
pub(super) fn is_meant(settings: &Value) -> bool {
    settings["peft_type"] == METHOD
}

/// Shape of the table that the settings of a soft prompt speak of, `[n, hidden]`.
pub(super) fn shape(settings: &Value, model: &ModelConfig) -> Result<[usize; 2], AdapterError> {
    let fields = Fields::of(settings)?;
    fields.refuse_others(&UNDERSTOOD, "is not supported in a soft prompt; train without it")?;
    for (name, only) in [
        ("task_type", json!("CAUSAL_LM")),
        ("num_transformer_submodules", json!(1)),
        ("token_dim", json!(model.hidden_size)),
    ] {
        if fields.get(name).is_some_and(|value| *value != only) {
            return Err(field(name, format!("must be {only} for this model")));
        }
    }
    // One position is left for what the sequence says.
    let most = model.max_position_embeddings.saturating_sub(1);
    let count = fields.get("num_virtual_tokens").and_then(Value::as_u64);
    let count = count.filter(|count| (1..=most as u64).contains(count));
    let count = count.ok_or_else(|| field("num_virtual_tokens", format!("must be a whole number from 1 to {most}")))?;
    Ok([count as usize, model.hidden_size])
}

/// The table among the tensors of the file, which must have no other.
pub(super) fn find(mut declared: BTreeMap<String, Declared>, shape: &[usize]) -> Result<Declared, AdapterError> {
    let table = declared.remove(TENSOR).ok_or_else(|| invalid(format!("tensor `{TENSOR}` is missing")))?;
    if table.shape != shape {
        return Err(invalid(format!("tensor `{TENSOR}` has shape {:?}, expected {shape:?}", table.shape)));
    }
    match declared.keys().next() {
        None => Ok(table),
        Some(name) => Err(invalid(format!("tensor `{}` is not part of a soft prompt", shown(name)))),
    }
}

/// Writes a soft prompt `[n, hidden]` as [`super::save_with_template`] writes LoRA adapters.
///
/// # Errors
/// When a value is not finite, the directory holds anything but an adapter, or writing fails.
pub fn save_prompt(
    dir: &Path,
    prompt: &Tensor,
    base_model: Option<&str>,
    template: Option<&str>,
) -> Result<(), AdapterError> {
    let (count, width) = prompt.dims2()?;
    let settings = json!({
        "peft_type": METHOD,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "num_virtual_tokens": count,
        "token_dim": width,
        "num_transformer_submodules": 1,
        // PEFT would start from a text again if the file named one, and ask for its tokenizer.
        "prompt_tuning_init": "RANDOM",
        "inference_mode": true,
    });
    write_with(dir, &settings, &[(TENSOR.to_owned(), prompt)], Beside::template(template))
}
