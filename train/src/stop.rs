//! A request to stop, at which long work looks between its pieces.
//!
//! Who asks, and what is saved then, others know.

use crate::error::{Result, TrainError};
use crate::ranks::Ranks;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether work may go on.
///
/// # Errors
/// [`TrainError::Stopped`] once a stop is asked for.
pub fn check(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) { Err(TrainError::Stopped) } else { Ok(()) }
}

/// The outcome of work that every rank has done for itself: what one of them has broken off, all have.
///
/// # Errors
/// [`TrainError::Stopped`] where a rank was stopped, and errors of the work itself.
pub fn agreed<T>(ranks: &dyn Ranks, outcome: Result<T>) -> Result<T> {
    let stopped = match &outcome {
        Ok(_) => false,
        Err(TrainError::Stopped) => true,
        Err(_) => return outcome,
    };
    ranks.meet()?;
    if ranks.any(stopped) { Err(TrainError::Stopped) } else { outcome }
}
