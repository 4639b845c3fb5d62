//! Checkpoints: `checkpoint-<step>/` with values, moments, state and a manifest of sizes and SHA-256 sums.
//!
//! A checkpoint is written beside its place and renamed, and renamed before it is removed, so a name that exists is
//! complete; the manifest finds what was damaged later. Nothing non-finite is written. Knows no model: named flat f32
//! buffers.

use crate::atomic;
use crate::dataset::feeder::Cursor;
use crate::error::{Result, TrainError};
use crate::optim::{Moments, Slot};
use crate::selection::Selection;
use crate::tensors::{self, Layout, Plan};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
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

/// What a run is at a moment, to be saved.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    pub state: &'a State,
    pub values: &'a [f32],
    pub moments: &'a Moments,
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

/// Bytes that are summed at once.
const PIECE: usize = 1 << 20;

impl Entry {
    fn of(mut file: impl Read) -> io::Result<Self> {
        let (mut sum, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; PIECE]);
        loop {
            let count = file.read(&mut piece)?;
            if count == 0 {
                break;
            }
            sum.update(&piece[..count]);
            bytes += count as u64;
        }
        Ok(Self { bytes, sha256: sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect() })
    }
}

/// Writes `checkpoint-<step>` into `output` and removes all but the last `keep` and the best.
///
/// # Errors
/// When a value is not finite, or the files cannot be written; then the earlier checkpoints are as they were.
pub fn save(output: &Path, slots: &[Slot], snapshot: Snapshot<'_>, keep: usize) -> Result<PathBuf> {
    let Snapshot { state, values, moments } = snapshot;
    let dir = directory(output, state.step);
    atomic::directory(&dir, |temporary| {
        write(&temporary.join(VALUES), slots, &[("", values)])?;
        write(
            &temporary.join(MOMENTS),
            slots,
            &[("first.", moments.first.as_slice()), ("second.", moments.second.as_slice())],
        )?;
        atomic::file(&temporary.join(STATE), &json(&dir, state)?)?;
        let entry = |name: &str| {
            let path = temporary.join(name);
            let entry = File::open(&path).and_then(Entry::of).map_err(TrainError::io(path))?;
            Ok((name.to_owned(), entry))
        };
        let files = [VALUES, MOMENTS, STATE].into_iter().map(entry).collect::<Result<_>>()?;
        atomic::file(&temporary.join(MANIFEST), &json(&dir, &Manifest { files })?)
    })?;
    prune(output, keep, state)?;
    Ok(dir)
}

fn json(dir: &Path, value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|e| TrainError::output(dir, e.to_string()))
}

/// Slots of flat buffers, each under its prefix, → one safetensors file.
fn write(path: &Path, slots: &[Slot], buffers: &[(&str, &[f32])]) -> Result<()> {
    let mut parts = HashMap::new();
    let mut plans = Vec::new();
    for (prefix, values) in buffers {
        for slot in slots {
            let plan =
                Plan::new(format!("{prefix}{}", slot.name), Layout { dtype: Dtype::F32, shape: slot.shape.clone() });
            parts.insert(plan.name.clone(), &values[slot.range.clone()]);
            plans.push(plan);
        }
    }
    tensors::write::quiet_file(path, &plans, &mut |plan| {
        let values = parts[&plan.name];
        if !values.iter().all(|value| value.is_finite()) {
            let remedy = "lower optim.lr or raise optim.warmup_steps, then --resume --allow-changed-recipe";
            let message = format!("not written: `{}` holds values that are not finite; {remedy}", plan.name);
            return Err(TrainError::output(path, message));
        }
        Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect())
    })
}

/// The checkpoints in `output`, newest first.
pub fn list(output: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(output).map_err(TrainError::io(output))? {
        let entry = entry.map_err(TrainError::io(output))?;
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

/// Removes what is older than the last `keep`, and what is newer than the state: the run has passed over it as damaged.
fn prune(output: &Path, keep: usize, state: &State) -> Result<()> {
    let (best, last) = (state.selection.best_step().map(|step| directory(output, step)), directory(output, state.step));
    let found = list(output)?;
    let newer = found.iter().position(|dir| *dir == last).unwrap_or(0);
    let kept = found.iter().skip(newer).take(keep);
    let kept: Vec<_> = kept.chain(&best).collect();
    found.iter().filter(|dir| !kept.contains(dir)).try_for_each(|dir| atomic::remove(dir))
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
        if Entry::of(bytes.as_slice()).map_err(TrainError::io(&path))? != entry {
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
/// When there are checkpoints but all are damaged, or one cannot be read: what it holds is not known then, and it may not be
/// passed over, because whoever goes on from an older one removes it.
pub fn newest(output: &Path, slots: &[Slot], mut warn: impl FnMut(&str)) -> Result<Option<Checkpoint>> {
    let mut damaged: Vec<PathBuf> = Vec::new();
    loop {
        let found = list(output)?;
        let Some(dir) = found.into_iter().find(|dir| !damaged.contains(dir)) else { break };
        match load(&dir, slots) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            // A trainer that is at work here has removed it meanwhile: there are newer ones.
            Err(_) if is_gone(&dir) => {}
            Err(error) if !is_damage(&error) => return Err(error),
            Err(error) => {
                warn(&format!("{error}; trying the checkpoint before it"));
                damaged.push(dir);
            }
        }
    }
    match damaged.first() {
        Some(dir) => Err(TrainError::output(dir, "no checkpoint here is whole; start again with another `output`")),
        None => Ok(None),
    }
}

/// Whether a checkpoint that could not be loaded is not what was written, a part that is missing included.
fn is_damage(error: &TrainError) -> bool {
    match error {
        TrainError::Io { source, .. } => source.kind() == ErrorKind::NotFound,
        _ => true,
    }
}

fn is_gone(dir: &Path) -> bool {
    fs::symlink_metadata(dir).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

#[cfg(test)]
mod tests;
