//! What unit tests share: the data sets that lie outside the repository.

use std::io::Write;
use std::path::PathBuf;

/// The folder of a data set under `$CALLSMITH_DATA` (default `../shared/data`, beside the repository). Without it the caller
/// checks nothing, which is said aloud; a folder that was named and is absent fails.
pub(crate) fn data_set(name: &str) -> Option<PathBuf> {
    let given = std::env::var_os("CALLSMITH_DATA");
    let folder = given.as_ref().map_or_else(|| PathBuf::from("../../shared/data"), PathBuf::from).join(name);
    if folder.exists() {
        return Some(folder);
    }
    assert!(given.is_none(), "{} is not there: set CALLSMITH_DATA to the folder of the data sets", folder.display());
    // Not `eprintln!`, which a passing test swallows.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {} is not there (set CALLSMITH_DATA)", folder.display());
    None
}
