//! Directories that appear whole or not at all: written beside their place, flushed, then renamed.

use crate::error::{Result, TrainError};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Prefix of directories that are being written; what is left of them after a kill may be removed.
pub const TEMPORARY: &str = ".writing-";

/// Creates the directory `target` from what `write` puts into a temporary one. An existing `target` is replaced.
pub fn directory(target: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = parent(target);
    fs::create_dir_all(&parent).map_err(TrainError::io(&parent))?;
    let temporary = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(&parent).map_err(TrainError::io(&parent))?;
    // Others (a server that loads from here) must be able to read what the final name shows.
    let readable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(temporary.path(), readable).map_err(TrainError::io(temporary.path()))?;
    write(temporary.path())?;
    sync(temporary.path())?;
    let old = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(&parent).map_err(TrainError::io(&parent))?;
    if target.exists() {
        fs::rename(target, old.path().join("old")).map_err(TrainError::io(target))?;
    }
    fs::rename(temporary.path(), target).map_err(TrainError::io(target))?;
    sync(&parent)
}

/// Writes one file and flushes it to the device.
pub fn file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(TrainError::io(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(TrainError::io(path))
}

/// Removes what a killed process left half written in `parent`.
pub fn clean(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent).map_err(TrainError::io(parent))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            fs::remove_dir_all(entry.path()).map_err(TrainError::io(entry.path()))?;
        }
    }
    Ok(())
}

fn parent(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn sync(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(TrainError::io(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_directory_and_no_trace() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        directory(&target, |dir| file(&dir.join("a"), b"1")).unwrap();
        let failed = directory(&target, |dir| {
            file(&dir.join("a"), b"2")?;
            Err(TrainError::Data("stop".into()))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(target.join("a")).unwrap(), b"1");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_existing_directory_is_replaced_as_a_whole() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        directory(&target, |dir| file(&dir.join("a"), b"1")).unwrap();
        directory(&target, |dir| file(&dir.join("b"), b"2")).unwrap();
        assert!(!target.join("a").exists());
        assert_eq!(fs::read(target.join("b")).unwrap(), b"2");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
