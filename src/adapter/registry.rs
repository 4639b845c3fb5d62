//! Adapter names → immutable generations; a request holds a lease, so a swap never disturbs it.
//!
//! Loads run one at a time and do all their reading before the names are touched; looking a name up never waits for
//! the disk. Nothing counts references by hand: a generation ends with its last `Arc`.
//! Knows nothing of requests, HTTP or the engine.

use super::budget::Budget;
use super::files::{AdapterFiles, Jail};
use super::peft::Checked;
use super::{AdapterError, shown};
use crate::model::{AdapterWeights, ModelConfig};
use candle_core::{DType, Device};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(test)]
mod tests;

const MAX_NAME_LEN: usize = 128;
/// Hexadecimal digits of the content digest that make a generation's id.
const ID_LEN: usize = 16;

/// One loaded version of an adapter; never changes after publication.
#[derive(Debug)]
pub struct Generation {
    pub name: String,
    /// First 16 hexadecimal digits of the content digest: identical files give the identical generation.
    pub id: String,
    pub rank: usize,
    pub bytes: usize,
    pub path: PathBuf,
    /// Unix seconds of publication.
    pub created: u64,
    pub weights: Arc<AdapterWeights>,
}

/// Pins a generation until dropped.
pub type Lease = Arc<Generation>;

/// What a registry may hold and where it may read.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    pub base_name: String,
    pub root: Option<PathBuf>,
    pub byte_budget: u64,
    pub max_rank: usize,
}

/// All published adapters of one base model.
pub struct Registry {
    options: RegistryOptions,
    model: ModelConfig,
    dtype: DType,
    device: Device,
    budget: Budget,
    /// Held while files are read; lookups do not need it.
    loading: Mutex<()>,
    published: RwLock<BTreeMap<String, Lease>>,
}

impl Registry {
    pub fn new(options: RegistryOptions, model: ModelConfig, dtype: DType, device: Device) -> Self {
        let budget = Budget::new(options.byte_budget);
        Self { options, model, dtype, device, budget, loading: Mutex::default(), published: RwLock::default() }
    }

    /// Reads a directory and publishes it under `name`. Blocking: call it off the async threads.
    /// `path` is absolute or relative to the root and must lie inside it.
    ///
    /// With `replace`, a taken name gets the new generation when it is complete, and keeps the old one on any error;
    /// unchanged files give the generation that is already there.
    pub fn load(&self, name: &str, path: &str, replace: bool) -> Result<Lease, AdapterError> {
        self.publish(name, replace, || {
            let root = self.options.root.as_deref().ok_or_else(|| AdapterError::Forbidden { path: shown(path) })?;
            let jail = Jail::new(root)?;
            AdapterFiles::open(&jail.resolve(path)?, Some(&jail))
        })
    }

    /// As [`Self::load`], for directories the operator named on the command line: no root jail.
    pub fn load_trusted(&self, name: &str, path: &Path) -> Result<Lease, AdapterError> {
        self.publish(name, false, || AdapterFiles::open(path, None))
    }

    /// Removes the name; leased generations live on until their last lease drops.
    pub fn unload(&self, name: &str) -> Result<(), AdapterError> {
        // Dropped after the lock: freeing the tensors of a last lease takes time.
        let removed = self.published.write().remove(name);
        removed.map(drop).ok_or_else(|| AdapterError::NotFound(shown(name)))
    }

    /// The current generation of `name`.
    pub fn lease(&self, name: &str) -> Option<Lease> {
        self.published.read().get(name).cloned()
    }

    /// All current generations, by name.
    pub fn list(&self) -> Vec<Lease> {
        self.published.read().values().cloned().collect()
    }

    /// Leases on the current generation of `name`, or nothing if there is no such name.
    pub fn in_flight(&self, name: &str) -> Option<usize> {
        self.published.read().get(name).map(|generation| Arc::strong_count(generation) - 1)
    }

    /// Memory of all adapters in bytes: published, being loaded, or replaced and still leased.
    pub fn bytes_used(&self) -> u64 {
        self.budget.used()
    }

    fn publish(
        &self,
        name: &str,
        replace: bool,
        open: impl FnOnce() -> Result<AdapterFiles, AdapterError>,
    ) -> Result<Lease, AdapterError> {
        self.check_name(name)?;
        let _one_at_a_time = self.loading.lock();
        let current = self.lease(name);
        if current.is_some() && !replace {
            return Err(AdapterError::AlreadyLoaded(name.to_owned()));
        }
        let files = open()?;
        let path = files.dir.clone();
        let checked = Checked::open(files, &self.model)?;
        let rank = checked.rank;
        let (id, weights) = self.weights(checked)?;
        if let Some(same) = current.filter(|current| Arc::ptr_eq(&current.weights, &weights)) {
            return Ok(self.put(same));
        }
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        let bytes = weights.bytes();
        Ok(self.put(Arc::new(Generation { name: name.to_owned(), id, rank, bytes, path, created, weights })))
    }

    /// The id and the tensors; content that is already in memory, under whatever name, is shared.
    fn weights(&self, checked: Checked) -> Result<(String, Arc<AdapterWeights>), AdapterError> {
        if checked.rank > self.options.max_rank {
            let (rank, most) = (checked.rank, self.options.max_rank);
            return Err(AdapterError::Invalid(format!("rank {rank} is larger than the largest allowed, {most}")));
        }
        let bytes = checked.bytes(self.dtype);
        self.budget.admit(bytes)?;
        let snapshot = checked.read()?;
        let id = snapshot.digest[..ID_LEN].to_owned();
        if let Some(weights) = self.budget.find(&snapshot.digest) {
            return Ok((id, weights));
        }
        let reservation = self.budget.reserve(bytes)?;
        let weights = Arc::new(snapshot.build(self.dtype, &self.device)?);
        reservation.settle(snapshot.digest, &weights);
        Ok((id, weights))
    }

    fn put(&self, generation: Lease) -> Lease {
        // The replaced generation is dropped after the lock.
        let _replaced = self.published.write().insert(generation.name.clone(), generation.clone());
        generation
    }

    fn check_name(&self, name: &str) -> Result<(), AdapterError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
        let reason = if name.is_empty() {
            "it is empty"
        } else if name.len() > MAX_NAME_LEN {
            "it is longer than 128 characters"
        } else if !name.chars().all(allowed) {
            "only letters, digits and `.`, `_`, `:`, `-` can be used"
        } else if name == self.options.base_name {
            "it is the base model's name"
        } else {
            return Ok(());
        };
        Err(AdapterError::Name { name: shown(name), reason })
    }
}
