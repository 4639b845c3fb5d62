//! Checkpoints: `checkpoint-<step>/` with values, moments, state and a manifest of sizes and SHA-256 sums.
//!
//! A checkpoint is written beside its place and renamed, so a name that exists is complete; the manifest finds what
//! was damaged later. Nothing non-finite is written. Knows no model: named flat f32 buffers.

use crate::atomic;
use crate::dataset::feeder::Cursor;
use crate::error::{Result, TrainError};
use crate::optim::{Moments, Slot};
use crate::selection::Selection;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const VALUES: &str = "model.safetensors";
const MOMENTS: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
const MANIFEST: &str = "manifest.json";
const PREFIX: &str = "checkpoint-";

/// Where a run stands. Random streams need no state: they depend on the seed and on these counters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The next step to run.
    pub step: u64,
    /// Optimizer updates made (steps less the skipped ones).
    pub updates: u64,
    pub cursor: Cursor,
    /// Tokens seen.
    pub tokens: u64,
    pub skipped: u64,
    pub dropped: u64,
    /// What evaluations have shown.
    #[serde(default)]
    pub selection: Selection,
    /// [`crate::recipe::Recipe::digest`] of the run.
    pub recipe_digest: String,
}

/// All that a run needs to continue.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    pub state: State,
    pub values: Vec<f32>,
    pub moments: Moments,
}

/// Size and sum of each file.
#[derive(Serialize, Deserialize)]
struct Manifest {
    files: BTreeMap<String, Entry>,
}

#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    sha256: String,
}

impl Entry {
    fn of(bytes: &[u8]) -> Self {
        let sha256 = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { bytes: bytes.len() as u64, sha256 }
    }
}

/// Writes `checkpoint-<step>` into `output` and removes all but the last `keep` and the best.
pub fn save(output: &Path, slots: &[Slot], checkpoint: &Checkpoint, keep: usize) -> Result<PathBuf> {
    let Checkpoint { state, values, moments } = checkpoint;
    let dir = directory(output, state.step);
    let named = |prefix: &'static str| slots.iter().map(move |slot| (format!("{prefix}{}", slot.name), slot));
    let first = named("first.").map(|(name, slot)| (name, slot, moments.first.as_slice()));
    let second = named("second.").map(|(name, slot)| (name, slot, moments.second.as_slice()));
    let files = [
        (VALUES, encode(named("").map(|(name, slot)| (name, slot, values.as_slice())), &dir)?),
        (MOMENTS, encode(first.chain(second), &dir)?),
        (STATE, json(&dir, state)?),
    ];
    let entries = files.iter().map(|(name, bytes)| ((*name).to_owned(), Entry::of(bytes))).collect();
    atomic::directory(&dir, |temporary| {
        files.iter().try_for_each(|(name, bytes)| atomic::file(&temporary.join(name), bytes))?;
        atomic::file(&temporary.join(MANIFEST), &json(&dir, &Manifest { files: entries })?)
    })?;
    prune(output, keep, state.selection.best_step())?;
    Ok(dir)
}

fn json(dir: &Path, value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|e| TrainError::output(dir, e.to_string()))
}

/// Slots of a flat buffer → safetensors bytes.
fn encode<'a>(tensors: impl Iterator<Item = (String, &'a Slot, &'a [f32])>, dir: &Path) -> Result<Vec<u8>> {
    let mut buffers = Vec::new();
    for (name, slot, values) in tensors {
        let values = &values[slot.range.clone()];
        if !values.iter().all(|value| value.is_finite()) {
            return Err(TrainError::output(dir, format!("not written: `{name}` holds values that are not finite")));
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        buffers.push((name, slot.shape.clone(), bytes));
    }
    let wrong = |e: safetensors::SafeTensorError| TrainError::output(dir, e.to_string());
    let views =
        buffers.iter().map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)));
    let views: Vec<_> = views.collect::<Result<_, _>>().map_err(wrong)?;
    safetensors::serialize(views, None).map_err(wrong)
}

/// The checkpoints in `output`, newest first.
pub fn list(output: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(output).map_err(TrainError::io(output))?.flatten() {
        let name = entry.file_name();
        let step = name.to_string_lossy().strip_prefix(PREFIX).and_then(|step| step.parse().ok());
        found.extend(step.map(|step| (step, entry.path())));
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The directory of the checkpoint after `step` steps.
pub fn directory(output: &Path, step: u64) -> PathBuf {
    output.join(format!("{PREFIX}{step}"))
}

fn prune(output: &Path, keep: usize, best: Option<u64>) -> Result<()> {
    let best = best.map(|step| directory(output, step));
    for old in list(output)?.into_iter().skip(keep).filter(|old| best.as_ref() != Some(old)) {
        fs::remove_dir_all(&old).map_err(TrainError::io(&old))?;
    }
    Ok(())
}

/// Reads a checkpoint back, checking every file against the manifest.
pub fn load(dir: &Path, slots: &[Slot]) -> Result<Checkpoint> {
    let mut files = verified(dir)?;
    let mut take = |name: &str| files.remove(name).ok_or_else(|| TrainError::output(dir, format!("{name} is missing")));
    let state: State =
        serde_json::from_slice(&take(STATE)?).map_err(|e| TrainError::output(&dir.join(STATE), e.to_string()))?;
    let values = decode(&dir.join(VALUES), &take(VALUES)?, slots, "")?;
    let moments = take(MOMENTS)?;
    let path = dir.join(MOMENTS);
    let first = decode(&path, &moments, slots, "first.")?;
    let second = decode(&path, &moments, slots, "second.")?;
    let moments = Moments { first, second, updates: state.updates };
    Ok(Checkpoint { state, values, moments })
}

/// The contents of all files that the manifest names, if they are what it says.
fn verified(dir: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let read = |path: &Path| fs::read(path).map_err(TrainError::io(path));
    let path = dir.join(MANIFEST);
    let manifest: Manifest =
        serde_json::from_slice(&read(&path)?).map_err(|e| TrainError::output(&path, format!("damaged: {e}")))?;
    let check = |(name, entry): (String, Entry)| {
        let path = dir.join(&name);
        let bytes = read(&path)?;
        if Entry::of(&bytes) != entry {
            let message = format!("damaged: it is not the file of {} bytes that was written", entry.bytes);
            return Err(TrainError::output(&path, message));
        }
        Ok((name, bytes))
    };
    manifest.files.into_iter().map(check).collect()
}

fn decode(path: &Path, bytes: &[u8], slots: &[Slot], prefix: &str) -> Result<Vec<f32>> {
    let wrong = |message: String| TrainError::output(path, message);
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| wrong(e.to_string()))?;
    let mut values = Vec::with_capacity(slots.last().map_or(0, |slot| slot.range.end));
    for slot in slots {
        let name = format!("{prefix}{}", slot.name);
        let view =
            tensors.tensor(&name).map_err(|e| wrong(format!("`{name}`: {e}; the recipe's model has changed")))?;
        if view.shape() != slot.shape || view.dtype() != Dtype::F32 {
            let message = format!("`{name}` has shape {:?}, the recipe's model {:?}", view.shape(), slot.shape);
            return Err(wrong(message));
        }
        let (chunks, _) = view.data().as_chunks::<4>();
        values.extend(chunks.iter().map(|&chunk| f32::from_le_bytes(chunk)));
    }
    Ok(values)
}

/// The newest checkpoint that is whole; `warn` is told of each one that is not. `None` when there is none at all.
///
/// # Errors
/// When there are checkpoints but all are damaged.
pub fn newest(output: &Path, slots: &[Slot], mut warn: impl FnMut(&str)) -> Result<Option<Checkpoint>> {
    let found = list(output)?;
    for dir in &found {
        match load(dir, slots) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(error) => warn(&format!("{error}; trying the checkpoint before it")),
        }
    }
    match found.first() {
        Some(dir) => Err(TrainError::output(dir, "no checkpoint here is whole; start again with another `output`")),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests;
