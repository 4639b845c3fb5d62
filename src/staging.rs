//! Where what is to appear as a whole is written first: beside its place, under a name that nobody else uses.
//!
//! Only names: who writes, renames and removes what lies there knows what it is.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A new name in the directory of `target`.
///
/// # Errors
/// When the path names nothing (`..`, `/`).
pub(crate) fn beside(target: &Path) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut name = OsString::from(".");
    name.push(target.file_name().ok_or_else(|| io::Error::other("the path has no last component"))?);
    name.push(format!(".tmp-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    Ok(parent(target).join(name))
}

/// The directory that `path` lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_beside_is_hidden_and_used_once() {
        let [first, second] = [0, 1].map(|_| beside(Path::new("some/model")).unwrap());
        assert_ne!(first, second);
        assert_eq!(first.parent(), Some(Path::new("some")));
        assert!(first.file_name().unwrap().to_string_lossy().starts_with(".model.tmp-"));
        assert_eq!(beside(Path::new("model")).unwrap().parent(), Some(Path::new(".")));
        assert!(beside(Path::new("..")).is_err());
    }
}
