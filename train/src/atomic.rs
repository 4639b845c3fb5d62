//! Files and directories that appear whole or not at all: written beside their place, flushed, then renamed.

use crate::error::{Result, TrainError};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Prefix of what is being written; what is left of it after a kill may be removed.
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

/// As [`directory`], for commands whose target anybody may name: what is there already is never replaced.
///
/// # Errors
/// When `target` is there and not empty, or `write` fails; then nothing is left of what it wrote.
pub fn new_directory(target: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let taken = match fs::read_dir(target) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    match taken {
        true => Err(TrainError::output(target, "is there and not an empty directory; remove it or name another")),
        false => directory(target, write),
    }
}

/// Writes one file.
pub fn file(path: &Path, bytes: &[u8]) -> Result<()> {
    stream(path, |out| out.write_all(bytes)).map_err(TrainError::io(path))
}

/// A file that is being written.
pub type Out<'a> = BufWriter<&'a mut File>;

/// As [`stream`], where making what is written can fail too.
pub fn produce(path: &Path, write: impl FnOnce(&mut Out<'_>) -> Result<()>) -> Result<()> {
    let written = staged(path, |out| write(out).map_err(io::Error::other));
    written.map_err(|error| error.downcast().unwrap_or_else(TrainError::io(path)))
}

/// Writes one file from what `write` puts out; makes the folder where it is absent.
pub fn stream(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    staged(path, |out| write(out))
}

fn staged(path: &Path, write: impl FnOnce(&mut Out<'_>) -> io::Result<()>) -> io::Result<()> {
    let folder = parent(path);
    fs::create_dir_all(&folder)?;
    // As readable as the user's other files: a server that runs as somebody else reads them.
    let readable = fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().prefix(TEMPORARY).permissions(readable).tempfile_in(&folder)?;
    let mut buffered = BufWriter::new(file.as_file_mut());
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Removes what a killed process left half written in `parent`.
pub fn clean(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent).map_err(TrainError::io(parent))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(TrainError::io(path))?;
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
    fn a_failed_file_leaves_the_old_one_and_no_trace() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("made/on/the/way/out");
        file(&target, b"1").unwrap();
        let failed = stream(&target, |out| {
            out.write_all(b"2")?;
            Err(io::Error::other("stop"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&target).unwrap(), b"1");
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_holds_something_is_never_replaced_by_a_new_one() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        new_directory(&target, |dir| file(&dir.join("a"), b"1")).unwrap();
        let refused = new_directory(&target, |_| Ok(())).unwrap_err().to_string();
        assert!(refused.contains("not an empty directory"), "{refused}");
        assert_eq!(fs::read(target.join("a")).unwrap(), b"1");
    }

    #[test]
    fn a_failure_while_producing_keeps_its_own_words() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        let failed = produce(&target, |_| Err(TrainError::Data("stop".into()))).unwrap_err();
        assert_eq!(failed.to_string(), "data: stop");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn others_may_read_a_file_as_far_as_the_user_lets_them() {
        let root = tempfile::tempdir().unwrap();
        let (ours, plain) = (root.path().join("ours"), root.path().join("plain"));
        file(&ours, b"1").unwrap();
        fs::write(&plain, b"1").unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(ours), mode(plain));
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(format!("{TEMPORARY}a"))).unwrap();
        fs::write(root.path().join(format!("{TEMPORARY}b")), b"half").unwrap();
        fs::write(root.path().join("kept"), b"whole").unwrap();
        clean(root.path()).unwrap();
        let left: Vec<_> = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
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
