//! The published adapters by name, who used which last, and where those that had to go came from.
//!
//! Knows no files; its owner locks it.

use super::files::BuiltIn;
use super::generation::{Card, Lease};
use super::{AdapterError, shown};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Where an adapter was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A path that must lie inside the adapter root.
    Jailed(String),
    /// A directory that the operator named.
    Trusted(PathBuf),
    /// The program itself.
    BuiltIn(BuiltIn),
}

/// A published adapter.
pub(super) struct Resident {
    pub(super) lease: Lease,
    pub(super) source: Source,
    /// Never evicted.
    pub(super) pinned: bool,
    last_used: AtomicU64,
}

/// Everything that has a name.
#[derive(Default)]
pub(super) struct Shelf {
    residents: BTreeMap<String, Resident>,
    /// Made to go by others; they come back at their next use.
    evicted: BTreeMap<String, (Source, Card)>,
    /// Unloaded on request: these do not come back by themselves.
    withdrawn: BTreeMap<String, Source>,
    clock: AtomicU64,
}

impl Shelf {
    /// The current generation; counts as a use.
    pub(super) fn lease(&self, name: &str) -> Option<Lease> {
        let resident = self.residents.get(name)?;
        resident.last_used.store(self.tick(), Relaxed);
        Some(Arc::clone(&resident.lease))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Resident> {
        self.residents.get(name)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Resident> {
        self.residents.values()
    }

    /// Fails unless this is the name's generation, where one is expected.
    pub(super) fn check_expected(&self, name: &str, expected: Option<&str>) -> Result<(), AdapterError> {
        let Some(expected) = expected else { return Ok(()) };
        let found = self.get(name).map_or("none", |resident| resident.lease.id.as_str());
        if found == expected {
            return Ok(());
        }
        Err(AdapterError::Generation { name: shown(name), expected: shown(expected), found: found.to_owned() })
    }

    /// Publishes a generation under its name; returns what it replaces.
    pub(super) fn put(&mut self, lease: Lease, source: Source, pinned: bool) -> Option<Lease> {
        let name = lease.name.clone();
        self.evicted.remove(&name);
        self.withdrawn.remove(&name);
        let resident = Resident { lease, source, pinned, last_used: AtomicU64::new(self.tick()) };
        self.residents.insert(name, resident).map(|old| old.lease)
    }

    /// Pins or unpins; `false` = no such name.
    pub(super) fn pin(&mut self, name: &str, pinned: bool) -> bool {
        self.residents.get_mut(name).map(|resident| resident.pinned = pinned).is_some()
    }

    /// Takes a name away for good.
    pub(super) fn withdraw(&mut self, name: &str) -> Option<Option<Lease>> {
        let resident = self.residents.remove(name).map(|resident| (Some(resident.lease), resident.source));
        let (lease, source) = resident.or_else(|| self.evicted.remove(name).map(|(source, _)| (None, source)))?;
        self.withdrawn.insert(name.to_owned(), source);
        Some(lease)
    }

    /// Where a name was read from, present or not.
    pub(super) fn source(&self, name: &str) -> Option<Source> {
        let resident = self.residents.get(name).map(|resident| &resident.source);
        let evicted = || self.evicted.get(name).map(|(source, _)| source);
        resident.or_else(evicted).or_else(|| self.withdrawn.get(name)).cloned()
    }

    /// The names that were there and are not, and where they were read from.
    pub(super) fn absent(&self) -> impl Iterator<Item = (&str, &Source)> {
        let evicted = self.evicted.iter().map(|(name, (source, _))| (name.as_str(), source));
        evicted.chain(self.withdrawn.iter().map(|(name, source)| (name.as_str(), source)))
    }

    /// An evicted name does not come back.
    pub(super) fn forget(&mut self, name: &str) {
        self.evicted.remove(name);
    }

    /// What is told of those that are there and of those that come back at their next use, by name.
    pub(super) fn cards(&self) -> Vec<Card> {
        let names = self.residents.keys().chain(self.evicted.keys());
        let mut cards: Vec<Card> = names.filter_map(|name| self.card(name)).collect();
        cards.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        cards
    }

    pub(super) fn card(&self, name: &str) -> Option<Card> {
        let resident = self.residents.get(name).map(|resident| resident.lease.card());
        resident.or_else(|| self.evicted.get(name).map(|(_, card)| card.clone()))
    }

    pub(super) fn is_withdrawn(&self, name: &str) -> bool {
        self.withdrawn.contains_key(name)
    }

    /// Evicts the adapters that were not used for longest, as few as give back `bytes`; none if all of them would not.
    /// Pinned ones, those with requests and `keep` stay.
    pub(super) fn evict(&mut self, bytes: u64, keep: &str) -> Vec<Lease> {
        let mut idle: Vec<(u64, u64, String)> = self
            .residents
            .iter()
            .filter(|(name, resident)| *name != keep && !resident.pinned && resident.is_idle())
            .map(|(name, resident)| (resident.last_used.load(Relaxed), resident.lease.bytes as u64, name.clone()))
            .collect();
        idle.sort_unstable();
        let mut freed = 0;
        let enough = idle.iter().position(|(_, bytes_of_one, _)| {
            freed += bytes_of_one;
            freed >= bytes
        });
        let Some(last) = enough else { return Vec::new() };
        idle.truncate(last + 1);
        idle.into_iter().filter_map(|(_, _, name)| self.set_aside(name)).collect()
    }

    fn set_aside(&mut self, name: String) -> Option<Lease> {
        let resident = self.residents.remove(&name)?;
        self.evicted.insert(name, (resident.source, resident.lease.card()));
        Some(resident.lease)
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Relaxed)
    }
}

impl Resident {
    /// Removing it would free its memory now: no request holds it, and no other name shares its weights.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.lease) == 1 && Arc::strong_count(&self.lease.weights) == 1
    }
}
