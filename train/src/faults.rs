//! Faults at named points, on demand, for the tests; nothing of it is there without the feature `failpoints`.
//!
//! `FAILPOINTS=file_synced=return` makes fail what comes after the point, `file_synced=return(kill)` ends the process there
//! as `kill -9` does, and `file_synced=20*off->return` waits for the 21st time.

use std::io;

/// A point of this name.
///
/// # Errors
/// When a fault is planted here.
#[cfg(feature = "failpoints")]
pub(crate) fn point(name: &str) -> io::Result<()> {
    match fail::eval(name, |how| how.unwrap_or_default()) {
        None => Ok(()),
        Some(how) if how == "kill" => {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
            Ok(())
        }
        Some(_) => Err(io::Error::other(format!("fault planted at {name}"))),
    }
}

/// A point of this name.
///
/// # Errors
/// Never: no fault can be planted in this build.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn point(_name: &str) -> io::Result<()> {
    Ok(())
}
