//! One process, that trains or evaluates, per output directory: a lock that ends with its process, however that ends.
//!
//! The file holds the process's id, for the message to whoever comes second.

use crate::error::{Result, TrainError};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

const FILE: &str = ".lock";
/// How often, and how long apart, the holder is asked for its name: it writes it right after it has taken the lock.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Takes `output` (which is made) for this process, until the file is dropped.
///
/// # Errors
/// When another process has it, or there can be no lock.
pub(crate) fn take(output: &Path) -> Result<File> {
    fs::create_dir_all(output).map_err(TrainError::io(output))?;
    let path = output.join(FILE);
    let mut options = File::options();
    let file = options.create(true).truncate(false).write(true).open(&path).map_err(TrainError::io(&path))?;
    let mut pid = String::new();
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => {
                fs::write(&path, format!("{}\n", std::process::id())).map_err(TrainError::io(&path))?;
                return Ok(file);
            }
            Err(TryLockError::Error(error)) => return Err(without_locks(&path, &error)),
            Err(TryLockError::WouldBlock) => {}
        }
        pid = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
        if is_running(&pid) {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    Err(TrainError::Locked { path: output.display().to_string(), pid })
}

/// `flock` needs nothing but a file that is open, so only a file system that has no locks (some network mounts) refuses it.
fn without_locks(path: &Path, error: &io::Error) -> TrainError {
    let remedy = "name a directory on a file system with locks, such as a local disk, or mount this one with them";
    TrainError::output(path, format!("cannot be locked ({error}); {remedy}"))
}

/// Whether the process is one of this machine: what an earlier holder wrote may stand there for a moment.
fn is_running(pid: &str) -> bool {
    let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_names_its_holder_and_ends_with_it() {
        let root = tempfile::tempdir().unwrap();
        let output = root.path().join("run");
        let held = take(&output).unwrap();
        let refused = take(&output).unwrap_err().to_string();
        assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
        drop(held);
        take(&output).unwrap();
    }

    #[test]
    fn a_file_system_without_locks_is_refused_with_a_remedy() {
        for errno in [rustix::io::Errno::NOLCK, rustix::io::Errno::NOTSUP, rustix::io::Errno::NOSYS] {
            let refused = without_locks(Path::new("run/.lock"), &errno.into()).to_string();
            assert!(refused.starts_with("run/.lock: ") && refused.contains("name a directory"), "{refused}");
        }
    }

    #[test]
    fn a_holder_that_has_not_yet_written_its_id_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let held = File::create(root.path().join(FILE)).unwrap();
        held.lock().unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| take(root.path()));
            std::thread::sleep(PAUSE);
            fs::write(root.path().join(FILE), "1\n").unwrap();
            let refused = second.join().unwrap().unwrap_err().to_string();
            assert!(refused.contains("pid 1"), "{refused}");
        });
    }
}
