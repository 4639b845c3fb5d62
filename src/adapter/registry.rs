//! Adapter names → immutable generations; a request holds a lease, so a swap never disturbs it.

use super::AdapterError;
use crate::model::{AdapterWeights, ModelConfig};
use candle_core::{DType, Device};
use std::path::PathBuf;
use std::sync::Arc;

/// One loaded version of an adapter; never changes after publication.
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
    _private: (),
}

impl Registry {
    pub fn new(options: RegistryOptions, model: ModelConfig, dtype: DType, device: Device) -> Self {
        let _ = (options, model, dtype, device);
        todo!()
    }

    /// Reads a directory and publishes it under `name`. Blocking: call it off the async threads.
    /// `path` is absolute or relative to the root and must lie inside it.
    pub fn load(&self, name: &str, path: &str, replace: bool) -> Result<Lease, AdapterError> {
        let _ = (name, path, replace);
        todo!()
    }

    /// As [`Self::load`], for directories the operator named on the command line: no root jail.
    pub fn load_trusted(&self, name: &str, path: &std::path::Path) -> Result<Lease, AdapterError> {
        let _ = (name, path);
        todo!()
    }

    /// Removes the name; leased generations live on until their last lease drops.
    pub fn unload(&self, name: &str) -> Result<(), AdapterError> {
        let _ = name;
        todo!()
    }

    /// The current generation of `name`.
    pub fn lease(&self, name: &str) -> Option<Lease> {
        let _ = name;
        todo!()
    }

    /// All current generations, by name.
    pub fn list(&self) -> Vec<Lease> {
        todo!()
    }
}
