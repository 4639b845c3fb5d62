//! Dialogues and pairs as files of JSON lines. Knows how they are stored, not how they are made.

use super::{Sample, WorldConfig, generate, pairs};
use crate::atomic;
use crate::data::{DataError, native};
use crate::error::{Result, TrainError};
use rayon::prelude::*;
use serde_json::{Value as Json, json};
use std::io::Write;
use std::path::Path;

/// Lines that are made at once.
const BATCH: u64 = 1024;

/// Writes `count` dialogues as JSON lines in the native format, whole or not at all; `metadata.class` is the scenario class.
///
/// # Errors
/// An invalid configuration, or a file that cannot be written.
pub fn write_dialogues(config: &WorldConfig, count: u64, path: &Path) -> Result<()> {
    config.validate()?;
    write_samples(count, path, |index| generate(config, index))
}

/// The same of samples that are made elsewhere, by index.
///
/// # Errors
/// The first that cannot be made, or a file that cannot be written.
pub fn write_samples(count: u64, path: &Path, sample: impl Fn(u64) -> Result<Sample, DataError> + Sync) -> Result<()> {
    write(count, path, |index| {
        let sample = sample(index)?;
        let mut line = native::dialogue_to_json(&sample.dialogue);
        line["metadata"] = json!({"class": sample.class});
        Ok(line)
    })
}

/// Writes `count` single calls as JSON lines in the shape of instruction_tune (see `pairs`), whole or not at all.
///
/// # Errors
/// As [`write_dialogues`].
pub fn write_pairs(config: &WorldConfig, count: u64, path: &Path) -> Result<()> {
    config.validate()?;
    write(count, path, |index| Ok(pairs::pair(config, index)?))
}

/// Writes lines by index, made in parallel and written in order.
fn write(count: u64, path: &Path, line: impl Fn(u64) -> Result<Json> + Sync) -> Result<()> {
    atomic::produce(path, |out| {
        for first in (0..count).step_by(BATCH as usize) {
            let numbers = first..(first + BATCH).min(count);
            let lines: Vec<Json> = numbers.into_par_iter().map(&line).collect::<Result<_>>()?;
            lines.iter().try_for_each(|line| writeln!(out, "{line}")).map_err(TrainError::io(path))?;
        }
        Ok(())
    })
}
