//! Where what is to appear as a whole is written first (beside its place, under a name that nobody else uses), and how it
//! gets to its place in one step.
//!
//! Names only: who writes and removes what lies there knows what it is.

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A new name in the directory of `target`.
///
/// # Errors
/// When the path names nothing (`..`, `/`).
pub fn beside(target: &Path) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut name = OsString::from(".");
    name.push(target.file_name().ok_or_else(|| io::Error::other("the path has no last component"))?);
    name.push(format!("{MARK}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    Ok(parent(target).join(name))
}

/// Between the target's name and what makes the name unique.
const MARK: &str = ".tmp-";

/// Whether a file or directory of this name was on its way to its place, as a killed process leaves it.
pub fn is_leftover(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.') && name.contains(MARK)
}

/// Puts the directory `staged` in the place of `target`: whoever looks there sees the old one or the new one. What was
/// there lies at `staged` afterwards.
///
/// # Errors
/// When the file system refuses; then `target` is as it was.
pub fn replace(staged: &Path, target: &Path) -> io::Result<()> {
    match fs::rename(staged, target) {
        Err(error) if is_taken(error.kind()) => {}
        done => return done,
    }
    match rustix::fs::renameat_with(CWD, staged, CWD, target, RenameFlags::EXCHANGE) {
        // Some network file systems cannot: then there is a moment without a directory, but never a torn one.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            let old = beside(target)?;
            fs::rename(target, &old)?;
            fs::rename(staged, target).inspect_err(|_| drop(fs::rename(&old, target)))?;
            fs::rename(old, staged)
        }
        done => Ok(done?),
    }
}

fn is_taken(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotADirectory)
}

/// The directory that `path` lies in.
pub fn parent(path: &Path) -> &Path {
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
        assert!(is_leftover(first.file_name().unwrap()));
        assert!(!is_leftover(OsStr::new("model")) && !is_leftover(OsStr::new(".lock")));
    }

    #[test]
    fn what_was_in_the_place_lies_beside_it_afterwards() {
        let root = tempfile::tempdir().unwrap();
        let [new, target] = ["new", "target"].map(|name| root.path().join(name));
        for content in ["1", "2"] {
            fs::create_dir_all(&new).unwrap();
            fs::write(new.join("file"), content).unwrap();
            replace(&new, &target).unwrap();
            assert_eq!(fs::read_to_string(target.join("file")).unwrap(), content);
        }
        assert_eq!(fs::read_to_string(new.join("file")).unwrap(), "1");
    }
}
