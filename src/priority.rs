//! Threads that must not slow the engine: compiling and preparing get the processor that generating leaves.

use std::cell::Cell;

/// Nice level of background threads; the engine's is 0.
#[cfg(target_os = "linux")]
const BACKGROUND: i32 = 10;

/// Lowers the calling thread's priority, once. Where threads have none of their own (other systems than Linux) nothing
/// happens; nor where the system refuses.
pub fn yield_to_engine() {
    thread_local!(static LOWERED: Cell<bool> = const { Cell::new(false) });
    if !LOWERED.replace(true) {
        lower();
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
    fn only_the_calling_thread_yields() {
        let level = || rustix::process::getpriority_process(None).unwrap();
        let before = level();
        let lowered = std::thread::spawn(move || {
            super::yield_to_engine();
            level()
        });
        assert!(lowered.join().unwrap() >= before.max(10));
        assert_eq!(level(), before);
    }
}
