//! Counts the memory of adapters: what is being loaded, what is published, and what requests still hold.
//!
//! Memory is free again when the last holder drops the weights, however it came by them; nobody has to say so.
//! Knows neither names nor files.

use super::AdapterError;
use crate::model::AdapterWeights;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// The byte budget of all adapters of one process.
pub(super) struct Budget {
    limit: u64,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    reserved: u64,
    residents: Vec<Resident>,
}

/// Weights that were alive when last looked at.
struct Resident {
    digest: String,
    bytes: u64,
    weights: Weak<AdapterWeights>,
}

impl Ledger {
    fn used(&mut self) -> u64 {
        self.residents.retain(|resident| resident.weights.strong_count() > 0);
        self.reserved + self.residents.iter().map(|resident| resident.bytes).sum::<u64>()
    }
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, ledger: Mutex::default() }
    }

    /// Bytes reserved or alive.
    pub(super) fn used(&self) -> u64 {
        self.ledger.lock().used()
    }

    /// Weights with this content that are alive under any name.
    pub(super) fn find(&self, digest: &str) -> Option<Arc<AdapterWeights>> {
        let ledger = self.ledger.lock();
        ledger.residents.iter().filter(|r| r.digest == digest).find_map(|r| r.weights.upgrade())
    }

    /// Fails at once for what would not even fit into an empty budget.
    pub(super) fn admit(&self, bytes: u64) -> Result<(), AdapterError> {
        if bytes <= self.limit { Ok(()) } else { Err(self.refusal(bytes, self.used())) }
    }

    /// Sets `bytes` aside until the reservation is settled or dropped.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Reservation<'_>, AdapterError> {
        let mut ledger = self.ledger.lock();
        let used = ledger.used();
        if used.checked_add(bytes).is_none_or(|total| total > self.limit) {
            return Err(self.refusal(bytes, used));
        }
        ledger.reserved += bytes;
        Ok(Reservation { budget: self, bytes })
    }

    fn refusal(&self, needed: u64, used: u64) -> AdapterError {
        AdapterError::Budget { needed, free: self.limit.saturating_sub(used), budget: self.limit }
    }
}

/// Bytes set aside for an adapter that is being loaded; given back on drop.
pub(super) struct Reservation<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Reservation<'_> {
    /// Hands the bytes over to weights that now exist.
    pub(super) fn settle(self, digest: String, weights: &Arc<AdapterWeights>) {
        let resident = Resident { digest, bytes: self.bytes, weights: Arc::downgrade(weights) };
        self.budget.ledger.lock().residents.push(resident);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.budget.ledger.lock().reserved -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights() -> Arc<AdapterWeights> {
        Arc::new(AdapterWeights::empty(1))
    }

    #[test]
    fn a_dropped_reservation_gives_its_bytes_back() {
        let budget = Budget::new(100);
        let first = budget.reserve(60).unwrap();
        assert!(matches!(budget.reserve(41), Err(AdapterError::Budget { needed: 41, free: 40, budget: 100 })));
        drop(first);
        assert_eq!(budget.used(), 0);
        assert!(budget.reserve(100).is_ok());
    }

    #[test]
    fn settled_bytes_are_free_when_the_last_holder_drops_the_weights() {
        let budget = Budget::new(100);
        let weights = weights();
        budget.reserve(60).unwrap().settle("a".into(), &weights);
        let holder = weights.clone();
        drop(weights);
        assert_eq!(budget.used(), 60);
        assert!(budget.find("a").is_some());
        drop(holder);
        assert_eq!(budget.used(), 0);
        assert!(budget.find("a").is_none());
    }

    #[test]
    fn absurd_sizes_are_refused_without_overflow() {
        let budget = Budget::new(u64::MAX);
        let _held = budget.reserve(10).unwrap();
        assert!(budget.reserve(u64::MAX).is_err());
        assert!(Budget::new(5).admit(6).is_err());
    }
}
