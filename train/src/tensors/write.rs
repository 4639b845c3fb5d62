//! Planned tensors → safetensors files, written as their bytes come; a model that is too large for one file becomes several
//! with an index, as Hugging Face publishes them.
//!
//! Own code because the `safetensors` crate asks for values that cannot fail.

use super::{Plan, Values, planned_bytes, progress_bar};
use crate::atomic::{self, Out};
use crate::error::{Result, TrainError};
use crate::faults;
use indicatif::ProgressBar;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

/// Largest file of a model unless said otherwise.
pub const SHARD_BYTES: u64 = 5_000_000_000;
/// Tensors begin at a multiple of this.
const ALIGNMENT: usize = 8;

/// Writes one file, whole or not at all.
///
/// # Errors
/// When `values` fails, or the file cannot be written.
pub fn file(path: &Path, plans: &[Plan], values: &mut Values<'_>) -> Result<()> {
    write(path, plans.iter().collect(), values, &progress_bar(plans)?)
}

/// The same without a progress bar, for who has the screen already.
///
/// # Errors
/// As [`file()`].
pub fn quiet_file(path: &Path, plans: &[Plan], values: &mut Values<'_>) -> Result<()> {
    write(path, plans.iter().collect(), values, &ProgressBar::hidden())
}

/// Writes `model.safetensors` into `dir`; where that would be larger than `limit` bytes, `model-00001-of-0000N.safetensors`
/// and so on with `model.safetensors.index.json`. A tensor that is larger than `limit` has a file to itself.
///
/// # Errors
/// When `values` fails, or a file cannot be written.
pub fn sharded(dir: &Path, plans: &[Plan], limit: u64, values: &mut Values<'_>) -> Result<()> {
    let shards = shards(plans, limit)?;
    if let [_] | [] = shards.as_slice() {
        return file(&dir.join("model.safetensors"), plans, values);
    }
    let bar = progress_bar(plans)?;
    let mut index = BTreeMap::new();
    let count = shards.len();
    for (number, shard) in shards.into_iter().enumerate() {
        let name = format!("model-{:05}-of-{count:05}.safetensors", number + 1);
        index.extend(shard.iter().map(|plan| (plan.name.clone(), name.clone())));
        write(&dir.join(name), shard, values, &bar)?;
    }
    let total = plans.iter().map(Plan::bytes).sum::<Result<usize>>()?;
    let text = format!("{:#}\n", json!({"metadata": {"total_size": total}, "weight_map": index}));
    atomic::file(&dir.join("model.safetensors.index.json"), text.as_bytes())
}

/// In the order of the plans, each file as full as the limit lets it be.
fn shards(plans: &[Plan], limit: u64) -> Result<Vec<Vec<&Plan>>> {
    let mut shards: Vec<Vec<&Plan>> = Vec::new();
    let mut filled = 0;
    for plan in plans {
        let bytes = plan.bytes()? as u64;
        match shards.last_mut() {
            Some(shard) if filled + bytes <= limit => shard.push(plan),
            _ => {
                shards.push(vec![plan]);
                filled = 0;
            }
        }
        filled += bytes;
    }
    Ok(shards)
}

fn write(path: &Path, mut plans: Vec<&Plan>, values: &mut Values<'_>, bar: &ProgressBar) -> Result<()> {
    // Wide values first, so that every tensor begins at a multiple of its width.
    plans.sort_by_key(|plan| std::cmp::Reverse(plan.layout.dtype));
    let header = header(path, &plans)?;
    atomic::produce(path, |out| {
        let put = |out: &mut Out<'_>, bytes: &[u8]| out.write_all(bytes).map_err(TrainError::io(path));
        put(out, &(header.len() as u64).to_le_bytes())?;
        put(out, &header)?;
        for plan in plans {
            let bytes = planned_bytes(plan, values)?;
            faults::point("tensor").map_err(TrainError::io(path))?;
            put(out, &bytes)?;
            bar.inc(bytes.len() as u64);
        }
        Ok(())
    })
}

fn header(path: &Path, plans: &[&Plan]) -> Result<Vec<u8>> {
    let mut offset = 0;
    let mut tensors = Vec::new();
    for plan in plans {
        let end = offset + plan.bytes()?;
        let info =
            TensorInfo { dtype: plan.layout.dtype, shape: plan.layout.shape.clone(), data_offsets: (offset, end) };
        tensors.push((plan.name.clone(), info));
        offset = end;
    }
    // Readers of the Hugging Face family refuse files without this entry.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), tensors).map_err(|error| TrainError::output(path, error.to_string()))?;
    let mut json = serde_json::to_vec(&metadata).map_err(|error| TrainError::output(path, error.to_string()))?;
    json.resize(json.len().next_multiple_of(ALIGNMENT), b' ');
    Ok(json)
}
