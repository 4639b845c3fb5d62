//! Work that must not slow the engine: compiling and preparing get the processor that generating leaves.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Nice level of background threads; the engine's is 0.
#[cfg(target_os = "linux")]
const BACKGROUND: i32 = 10;

/// Threads in [`in_background`].
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// Processors that this process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How many requests should be prepared at a time: on all processors but the engine's.
pub fn background_threads() -> usize {
    (processors() - 1).max(1)
}

/// Whether the background leaves the engine no more than one processor.
pub fn is_crowded() -> bool {
    BUSY.load(Relaxed) >= background_threads()
}

/// Works with a lower priority, which the calling thread keeps. Where threads have none of their own (other systems than
/// Linux) it stays as it is; also where the system refuses.
pub fn in_background<T>(work: impl FnOnce() -> T) -> T {
    thread_local!(static LOWERED: Cell<bool> = const { Cell::new(false) });
    if !LOWERED.replace(true) {
        lower();
    }
    let _busy = Busy::new();
    work()
}

/// Counts a thread, also when its work panics.
struct Busy;

impl Busy {
    fn new() -> Self {
        BUSY.fetch_add(1, Relaxed);
        Self
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.fetch_sub(1, Relaxed);
    }
}

#[cfg(target_os = "linux")]
fn lower() {
    // On Linux "the calling process" is the calling thread.
    let _ = rustix::process::setpriority_process(None, BACKGROUND);
}

#[cfg(not(target_os = "linux"))]
fn lower() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn it_is_crowded_while_every_other_processor_has_background_work() {
        // Threads that wait for each other, so that all are at work when the last asks.
        let all = std::sync::Barrier::new(super::background_threads());
        let ask = || super::in_background(|| (all.wait(), super::is_crowded(), all.wait()).1);
        std::thread::scope(|scope| {
            let asking: Vec<_> = (0..super::background_threads()).map(|_| scope.spawn(ask)).collect();
            assert!(asking.into_iter().all(|thread| thread.join().unwrap()));
        });
    }

    #[test]
    fn only_the_calling_thread_yields() {
        let level = || rustix::process::getpriority_process(None).unwrap();
        let before = level();
        let lowered = std::thread::spawn(move || super::in_background(level));
        assert!(lowered.join().unwrap() >= before.max(10));
        assert_eq!(level(), before);
    }
}
