//! Adapter names → immutable generations; a request holds a lease, so a swap never disturbs it.
//!
//! Loads run one at a time and do all their reading before the names are touched; looking a name up never waits for
//! the disk. Nothing counts references by hand: a generation ends with its last `Arc`.
//! Knows nothing of requests, HTTP or the engine.

use super::budget::{Budget, Reservation};
use super::files::{AdapterFiles, BuiltIn, CONFIG_FILE, Jail, TEMPLATE_FILE};
pub use super::generation::{Card, Generation, Lease};
use super::names;
use super::peft::{self, Checked};
use super::shelf::{Shelf, Source};
use super::{AdapterError, excerpt, shown};
use crate::model::{AdapterWeights, Checkpoint, ModelConfig, Packing};
use candle_core::{DType, Device};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(test)]
mod tests;

/// How often room is looked for again, every few milliseconds.
const EVICTION_PATIENCE: usize = 4;
/// Hexadecimal digits of the content digest that make a generation's id.
const ID_LEN: usize = 16;

/// What a registry may hold and where it may read.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    pub base_name: String,
    pub root: Option<PathBuf>,
    pub byte_budget: u64,
    pub max_rank: usize,
    /// How adapters are held for serving on the CPU; `None` = as tensors.
    pub packing: Option<Packing>,
    /// Adapters below the root may bring chat templates, as those may that the operator has named. A template is a program: it can take
    /// much time and memory.
    pub root_templates: bool,
}

/// How an adapter is to be published.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// A taken name gets the new generation when it is complete, and keeps the old one on any error.
    pub replace: bool,
    /// Never evicted to make room for others.
    pub pinned: bool,
    /// Only if this is the name's present generation.
    pub expected: Option<String>,
    /// Nobody has asked for it by this route: what was unloaded on request stays away.
    pub automatic: bool,
}

/// A published adapter as operators see it.
#[derive(Debug, Clone)]
pub struct Listed {
    pub lease: Lease,
    pub pinned: bool,
}

/// Says of an adapter's chat template why it cannot be used, if it cannot.
pub type TemplateJudge = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// All published adapters of one base model.
pub struct Registry {
    options: RegistryOptions,
    model: ModelConfig,
    dtype: DType,
    device: Device,
    base: Option<Arc<Checkpoint<'static>>>,
    judge: Option<TemplateJudge>,
    budget: Budget,
    /// Held while files are read; lookups do not need it.
    loading: Mutex<()>,
    shelf: RwLock<Shelf>,
    evictions: AtomicU64,
    swaps: AtomicU64,
}

impl Registry {
    pub fn new(options: RegistryOptions, model: ModelConfig, dtype: DType, device: Device) -> Self {
        let budget = Budget::new(options.byte_budget);
        let (loading, shelf, evictions) = (Mutex::default(), RwLock::default(), AtomicU64::new(0));
        let swaps = AtomicU64::new(0);
        Self { options, model, dtype, device, base: None, judge: None, budget, loading, shelf, evictions, swaps }
    }

    /// With the base weights at hand, which DoRA adapters are measured against when they load.
    pub fn with_base(self, base: Arc<Checkpoint<'static>>) -> Self {
        Self { base: Some(base), ..self }
    }

    /// With someone who knows chat templates, who is asked before an adapter that has one is published.
    pub fn with_judge(self, judge: TemplateJudge) -> Self {
        Self { judge: Some(judge), ..self }
    }

    /// Reads a directory and publishes it under `name`. Blocking: call it off the async threads.
    /// `path` is absolute or relative to the root and must lie inside it. Where the budget is used up, idle adapters that
    /// are not pinned make room, the least recently used first; they come back at their next use.
    ///
    /// Unchanged files give the generation that is already there.
    pub fn load(&self, name: &str, path: &str, options: &LoadOptions) -> Result<Lease, AdapterError> {
        self.publish(name, Source::Jailed(path.to_owned()), options)
    }

    /// As [`Self::load`], for directories the operator named on the command line: no root jail, and pinned.
    pub fn load_trusted(&self, name: &str, path: &Path) -> Result<Lease, AdapterError> {
        self.publish(name, Source::Trusted(path.to_owned()), &LoadOptions { pinned: true, ..LoadOptions::default() })
    }

    /// As [`Self::load_trusted`], for an adapter that is part of the program.
    pub fn load_built_in(&self, name: &str, files: BuiltIn) -> Result<Lease, AdapterError> {
        self.publish(name, Source::BuiltIn(files), &LoadOptions { pinned: true, ..LoadOptions::default() })
    }

    /// Loads a name again from where it came from, or the directory of the root that has this name. Blocking.
    pub fn reload(&self, name: &str) -> Result<Lease, AdapterError> {
        let known = self.shelf.read().source(name);
        let source = known.unwrap_or_else(|| Source::Jailed(name.to_owned()));
        let pinned = !matches!(source, Source::Jailed(_));
        self.publish(name, source, &LoadOptions { replace: true, pinned, ..LoadOptions::default() })
    }

    /// Whether [`Self::resolve`] would find something to load: the name was evicted, or is a directory of the root.
    pub fn may_resolve(&self, name: &str) -> bool {
        self.source(name).is_some()
    }

    /// The name's generation, read again or for the first time if need be. Blocking.
    pub fn resolve(&self, name: &str) -> Result<Lease, AdapterError> {
        let Some(source) = self.source(name) else {
            return self.lease(name).ok_or_else(|| AdapterError::NotFound(shown(name)));
        };
        match self.publish(name, source, &LoadOptions { automatic: true, ..LoadOptions::default() }) {
            // Another request was faster.
            Err(AdapterError::AlreadyLoaded(_)) => self.lease(name).ok_or_else(|| AdapterError::NotFound(shown(name))),
            // Its directory is gone, and so is the adapter.
            Err(AdapterError::FileNotFound { .. }) => {
                self.shelf.write().forget(name);
                Err(AdapterError::NotFound(shown(name)))
            }
            outcome => outcome,
        }
    }

    /// Where a name that is not published can be read from. Asks the disk only about names that can be directories.
    fn source(&self, name: &str) -> Option<Source> {
        let shelf = self.shelf.read();
        if shelf.get(name).is_some() || shelf.is_withdrawn(name) {
            return None;
        }
        if let Some(source) = shelf.source(name) {
            return Some(source);
        }
        drop(shelf);
        self.on_disk(name)
    }

    /// The names that are not loaded and whose directory is there, sorted, and whether they stay so because they were unloaded.
    pub fn loadable(&self) -> Vec<(String, bool)> {
        let entries = self.options.root.iter().filter_map(|root| std::fs::read_dir(root).ok()).flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: BTreeSet<String> = names.filter(|name| self.on_disk(name).is_some()).collect();
        let shelf = self.shelf.read();
        names.extend(shelf.absent().filter(|(_, source)| self.is_there(source)).map(|(name, _)| name.to_owned()));
        names.retain(|name| shelf.get(name).is_none());
        names.into_iter().map(|name| (name.clone(), shelf.is_withdrawn(&name))).collect()
    }

    /// The directory of the root that has this name.
    fn on_disk(&self, name: &str) -> Option<Source> {
        let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        let may_be_one =
            self.options.root.is_some() && begins_well && names::check(name, &self.options.base_name).is_ok();
        let source = Source::Jailed(name.to_owned());
        (may_be_one && self.is_there(&source)).then_some(source)
    }

    fn is_there(&self, source: &Source) -> bool {
        let place = match source {
            Source::Jailed(path) => self.place_of(path),
            Source::Trusted(path) => path.clone(),
            Source::BuiltIn(_) => return true,
        };
        place.join(CONFIG_FILE).is_file()
    }

    /// Removes the name; leased generations live on until their last lease drops. It does not come back by itself.
    pub fn unload(&self, name: &str, expected: Option<&str>) -> Result<(), AdapterError> {
        let mut shelf = self.shelf.write();
        shelf.check_expected(name, expected)?;
        let removed = shelf.withdraw(name);
        // Dropped after the lock: freeing the tensors of a last lease takes time.
        drop(shelf);
        removed.map(drop).ok_or_else(|| AdapterError::NotFound(shown(name)))
    }

    /// Keeps an adapter from being evicted, or no longer.
    pub fn pin(&self, name: &str, pinned: bool) -> Result<(), AdapterError> {
        let found = self.shelf.write().pin(name, pinned);
        if found { Ok(()) } else { Err(AdapterError::NotFound(shown(name))) }
    }

    /// The current generation of `name`.
    pub fn lease(&self, name: &str) -> Option<Lease> {
        self.shelf.read().lease(name)
    }

    /// What is told of every adapter that has a name, those included that made room for others and come back at their next use.
    pub fn cards(&self) -> Vec<Card> {
        self.shelf.read().cards()
    }

    /// The same of one.
    pub fn card(&self, name: &str) -> Option<Card> {
        self.shelf.read().card(name)
    }

    /// All current generations, by name.
    pub fn list(&self) -> Vec<Listed> {
        let listed =
            |resident: &super::shelf::Resident| Listed { lease: Arc::clone(&resident.lease), pinned: resident.pinned };
        self.shelf.read().all().map(listed).collect()
    }

    /// Where a path below the root leads, links not followed.
    pub(super) fn place_of(&self, path: &str) -> PathBuf {
        self.options.root.as_deref().unwrap_or(Path::new("")).join(path)
    }

    /// The adapters that came from the root, and from where.
    pub(super) fn watched(&self) -> Vec<(Lease, Source)> {
        let shelf = self.shelf.read();
        let jailed = shelf.all().filter(|resident| matches!(resident.source, Source::Jailed(_)));
        jailed.map(|one| (Arc::clone(&one.lease), one.source.clone())).collect()
    }

    /// Leases on the current generation of `name`, or nothing if there is no such name.
    pub fn in_flight(&self, name: &str) -> Option<usize> {
        self.shelf.read().get(name).map(|resident| Arc::strong_count(&resident.lease) - 1)
    }

    /// Memory of all adapters in bytes: published, being loaded, or replaced and still leased.
    pub fn bytes_used(&self) -> u64 {
        self.budget.used()
    }

    /// Most memory that adapters may take, in bytes.
    pub fn byte_budget(&self) -> u64 {
        self.options.byte_budget
    }

    /// Adapters that had to make room for others so far.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }

    /// Names that got another generation so far.
    pub fn swaps(&self) -> u64 {
        self.swaps.load(Relaxed)
    }

    fn publish(&self, name: &str, source: Source, options: &LoadOptions) -> Result<Lease, AdapterError> {
        names::check(name, &self.options.base_name)?;
        let _one_at_a_time = self.loading.lock();
        let current = self.current(name, options)?;
        let files = self.open(&source)?;
        let path = files.dir.clone();
        let checked = Checked::open(files, &self.model)?;
        let (rank, chat_template) = (checked.rank, checked.template.clone().map(Arc::<str>::from));
        self.check_template(chat_template.as_deref())?;
        let (digest, weights) = self.weights(name, checked)?;
        let id = peft::with_template(digest, chat_template.as_deref())[..ID_LEN].to_owned();
        let same = current.filter(|current| current.id == id && Arc::ptr_eq(&current.weights, &weights));
        let generation = same.unwrap_or_else(|| {
            let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
            let bytes = weights.bytes();
            Arc::new(Generation { name: name.to_owned(), id, rank, bytes, path, chat_template, created, weights })
        });
        self.put(generation, source, options)
    }

    /// The generation that would be replaced, if it may be.
    fn current(&self, name: &str, options: &LoadOptions) -> Result<Option<Lease>, AdapterError> {
        let shelf = self.shelf.read();
        shelf.check_expected(name, options.expected.as_deref())?;
        match shelf.get(name) {
            Some(_) if !options.replace => Err(AdapterError::AlreadyLoaded(name.to_owned())),
            found => Ok(found.map(|resident| Arc::clone(&resident.lease))),
        }
    }

    fn check_template(&self, template: Option<&str>) -> Result<(), AdapterError> {
        let (Some(template), Some(judge)) = (template, &self.judge) else { return Ok(()) };
        judge(template).map_err(|reason| AdapterError::Invalid(format!("`{TEMPLATE_FILE}`: {}", excerpt(&reason, 600))))
    }

    fn open(&self, source: &Source) -> Result<AdapterFiles, AdapterError> {
        match source {
            Source::Trusted(path) => AdapterFiles::open(path, None, true),
            Source::BuiltIn(files) => Ok(AdapterFiles::built_in(*files)),
            Source::Jailed(path) => {
                let root = self.options.root.as_deref().ok_or_else(|| AdapterError::Forbidden { path: shown(path) })?;
                let jail = Jail::new(root)?;
                let files = AdapterFiles::open(&jail.resolve(path)?, Some(&jail), self.options.root_templates);
                // Where the root lies is not the caller's affair.
                files.map_err(|error| match error {
                    AdapterError::FileNotFound { .. } => AdapterError::FileNotFound { path: shown(path) },
                    AdapterError::Forbidden { .. } => AdapterError::Forbidden { path: shown(path) },
                    AdapterError::Io { source, .. } => AdapterError::Io { path: shown(path), source },
                    other => other,
                })
            }
        }
    }

    /// The digest and the tensors; content that is already in memory, under whatever name, is shared.
    fn weights(&self, name: &str, checked: Checked) -> Result<(String, Arc<AdapterWeights>), AdapterError> {
        if checked.rank > self.options.max_rank {
            return Err(AdapterError::Rank { rank: checked.rank, most: self.options.max_rank });
        }
        checked.check_servable()?;
        let bytes = checked.bytes(self.dtype, self.options.packing);
        self.budget.admit(bytes)?;
        let snapshot = checked.read()?;
        if let Some(weights) = self.budget.find(&snapshot.digest) {
            return Ok((snapshot.digest, weights));
        }
        let reservation = self.reserve(name, bytes)?;
        let (target, packing) = ((self.dtype, &self.device), self.options.packing);
        let weights = Arc::new(snapshot.serve(target, packing, self.base.as_deref())?);
        reservation.settle(snapshot.digest.clone(), &weights);
        Ok((snapshot.digest, weights))
    }

    /// Sets memory aside for `name`; others make room if they can.
    fn reserve(&self, name: &str, bytes: u64) -> Result<Reservation<'_>, AdapterError> {
        let missing = match self.budget.reserve(bytes) {
            Err(AdapterError::Budget { needed, free, .. }) => needed - free,
            outcome => return outcome,
        };
        self.evict(missing, name);
        // Whoever is just looking at the list holds a lease for a moment.
        for _ in 0..EVICTION_PATIENCE {
            if let Ok(reservation) = self.budget.reserve(bytes) {
                return Ok(reservation);
            }
            std::thread::sleep(Duration::from_millis(5));
            self.evict(missing, name);
        }
        self.budget.reserve(bytes)
    }

    fn evict(&self, bytes: u64, keep: &str) {
        // Their memory is free when these are dropped.
        let evicted = self.shelf.write().evict(bytes, keep);
        self.evictions.fetch_add(evicted.len() as u64, Relaxed);
        for lease in evicted {
            tracing::info!(adapter = lease.name, bytes = lease.bytes, "adapter evicted");
        }
    }

    fn put(&self, generation: Lease, source: Source, options: &LoadOptions) -> Result<Lease, AdapterError> {
        let mut shelf = self.shelf.write();
        // It may have been unloaded meanwhile.
        shelf.check_expected(&generation.name, options.expected.as_deref())?;
        if options.automatic && shelf.is_withdrawn(&generation.name) {
            return Err(AdapterError::NotFound(shown(&generation.name)));
        }
        let pinned = options.pinned || shelf.get(&generation.name).is_some_and(|resident| resident.pinned);
        let replaced = shelf.put(Arc::clone(&generation), source, pinned);
        // The replaced generation is dropped after the lock.
        drop(shelf);
        if replaced.is_some_and(|replaced| !Arc::ptr_eq(&replaced, &generation)) {
            self.swaps.fetch_add(1, Relaxed);
        }
        Ok(generation)
    }
}
