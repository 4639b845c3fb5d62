//! Files and directories that appear whole or not at all: written beside their place, flushed, then renamed.

use crate::error::{Result, TrainError};
use crate::faults;
use callsmith::staging::{self, parent};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use tempfile::TempDir;

/// Prefix of what is being written; what is left of it after a kill may be removed.
pub const TEMPORARY: &str = ".writing-";

/// Creates the directory `target` from what `write` puts into a temporary one. An existing `target` is replaced, in one
/// step: it is never absent.
///
/// # Errors
/// When `write` fails or the file system does; then `target` is as it was, and nothing else is left.
pub fn directory(target: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = parent(target);
    fs::create_dir_all(parent).map_err(TrainError::io(parent))?;
    let temporary = beside(target)?;
    let written = write(temporary.path()).and_then(|()| sync(temporary.path()));
    written.map_err(|error| error.at(temporary.path(), target))?;
    // What was there is the temporary one from then on, and goes with it.
    faults::point("directory_synced")
        .and_then(|()| staging::replace(temporary.path(), target))
        .and_then(|()| faults::point("directory_renamed"))
        .map_err(TrainError::io(target))?;
    sync(parent)
}

/// Removes the directory `target`, of which no part can be seen under its name; of a link to one, the link.
///
/// # Errors
/// When the file system refuses.
pub fn remove(target: &Path) -> Result<()> {
    if fs::symlink_metadata(target).is_ok_and(|found| found.is_symlink()) {
        return fs::remove_file(target).map_err(TrainError::io(target));
    }
    let temporary = beside(target)?;
    fs::rename(target, temporary.path()).map_err(TrainError::io(target))?;
    faults::point("directory_removed").map_err(TrainError::io(target))?;
    temporary.close().map_err(TrainError::io(target))
}

/// An empty directory on the file system of `target`.
fn beside(target: &Path) -> Result<TempDir> {
    // As readable as the user's other directories: a server that runs as somebody else loads from here.
    let readable = fs::Permissions::from_mode(0o777);
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY).permissions(readable).tempdir_in(parent(target)).map_err(TrainError::io(target))
}

/// As [`directory`], for commands whose target anybody may name: what is there already is never replaced.
///
/// # Errors
/// When `target` is there and not empty, or `write` fails; then nothing is left of what it wrote.
pub fn new_directory(target: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    refuse_taken(target)?;
    directory(target, write)
}

/// That what is written to `target` will replace nothing.
///
/// # Errors
/// When something is there that is no empty directory.
pub fn refuse_taken(target: &Path) -> Result<()> {
    let taken = match fs::read_dir(target) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    match taken {
        true => Err(TrainError::output(target, "is there and not an empty directory; remove it or name another")),
        false => Ok(()),
    }
}

/// That each of the files to be written is one of its own, and none of those that are read.
///
/// # Errors
/// When two paths lead to one place, however they are written, or something is there that is no regular file.
pub fn distinct(inputs: &[&Path], outputs: &[&Path]) -> Result<()> {
    let mut taken: Vec<PathBuf> = inputs.iter().map(|path| place(path)).collect();
    for path in outputs {
        refuse_special(path).map_err(TrainError::io(*path))?;
        let place = place(path);
        if taken.contains(&place) {
            return Err(TrainError::output(path, "is named twice; give each output a file of its own"));
        }
        taken.push(place);
    }
    Ok(())
}

/// Where a path leads: links are followed as far as it exists, and the rest goes by its names.
fn place(path: &Path) -> PathBuf {
    let mut place = PathBuf::new();
    for part in std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components() {
        match part {
            Component::ParentDir => drop(place.pop()),
            part => place.push(part),
        }
        place = fs::canonicalize(&place).unwrap_or(place);
    }
    place
}

/// A device, a pipe or a directory would be replaced by the file.
fn refuse_special(path: &Path) -> io::Result<()> {
    match fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        true => Err(io::Error::other("is no regular file; name another")),
        false => Ok(()),
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
    refuse_special(path)?;
    let folder = parent(path);
    fs::create_dir_all(folder)?;
    // As readable as the user's other files: a server that runs as somebody else reads them.
    let readable = fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().prefix(TEMPORARY).permissions(readable).tempfile_in(folder)?;
    let mut buffered = BufWriter::new(file.as_file_mut());
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    faults::point("file_written")?;
    file.as_file().sync_all()?;
    faults::point("file_synced")?;
    file.persist(path)?;
    faults::point("file_renamed")?;
    File::open(folder)?.sync_all()
}

/// Removes what a killed process left half written in `parent`.
///
/// # Errors
/// When it cannot be removed.
pub fn clean(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent).map_err(TrainError::io(parent))?.flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(TEMPORARY) || staging::is_leftover(&name) {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(TrainError::io(path))?;
        }
    }
    Ok(())
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
    fn outputs_that_lead_to_an_input_or_another_output_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir(path("d")).unwrap();
        fs::write(path("in"), b"1").unwrap();
        std::os::unix::fs::symlink(path("d"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("in"), path("also_in")).unwrap();
        let refused = |outputs: [&str; 2]| {
            let outputs = outputs.map(path);
            distinct(&[&path("in")], &outputs.each_ref().map(PathBuf::as_path)).is_err()
        };
        assert!(!refused(["a", "b"]) && !refused(["d/a", "a"]) && !refused(["new/a", "a"]));
        for outputs in
            [["a", "a"], ["in", "a"], ["d/../in", "a"], ["also_in", "a"], ["link/a", "d/a"], ["new/../a", "a"]]
        {
            assert!(refused(outputs), "{outputs:?}");
        }
        assert!(refused(["d", "a"]), "a directory");
    }

    #[test]
    fn a_device_is_never_replaced_by_a_file() {
        let refused = file(Path::new("/dev/null"), b"1").unwrap_err().to_string();
        assert!(refused.contains("/dev/null: is no regular file"), "{refused}");
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
        fs::create_dir(staging::beside(&root.path().join("model")).unwrap()).unwrap();
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

    #[test]
    fn what_fails_in_a_temporary_directory_is_named_by_its_final_place() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        let failed = directory(&target, |dir| Err(TrainError::io(dir.join("a"))(io::ErrorKind::StorageFull.into())));
        let message = failed.unwrap_err().to_string();
        assert!(message.contains("out/a") && !message.contains(TEMPORARY), "{message}");
    }

    #[test]
    fn a_removed_directory_leaves_no_trace() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        directory(&target, |dir| file(&dir.join("a"), b"1")).unwrap();
        remove(&target).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
