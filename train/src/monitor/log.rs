//! `train.jsonl`: one JSON object per line, the record of truth from which all else that is shown can be made again.

use super::curves::steps_done;
use crate::atomic;
use crate::error::{Result, TrainError};
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

const FILE: &str = "train.jsonl";

/// The log of a run, open for more lines.
pub(super) struct Log {
    file: File,
    path: PathBuf,
}

/// What an earlier process has left in the log.
#[derive(Default)]
pub(super) struct Earlier {
    /// Lines that still hold.
    pub(super) lines: Vec<Value>,
    /// Lines removed: of steps that will be made again, and torn ones.
    pub(super) removed: usize,
}

impl Log {
    /// Opens the log in `output` for a run that goes on after `done` steps: what was written later is removed, all of
    /// it where the run begins anew. An evaluation of these very steps stays where it is not made again (`measured`).
    pub(super) fn open(output: &Path, done: u64, measured: bool) -> Result<(Self, Earlier)> {
        let path = output.join(FILE);
        let again = |line: &Value| !measured && line["event"] == "eval" && steps_done(line) == Some(done);
        let earlier = cut(&path, &|line| {
            done > 0 && line.is_object() && steps_done(line).is_none_or(|step| step <= done) && !again(line)
        })?;
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(TrainError::io(&path))?;
        Ok((Self { file, path }, earlier))
    }

    /// Appends a line, in one write.
    pub(super) fn write(&mut self, line: &Value) -> Result<()> {
        self.file.write_all(format!("{line}\n").as_bytes()).map_err(TrainError::io(&self.path))
    }
}

/// Removes the lines that do not hold.
fn cut(path: &Path, holds: &dyn Fn(&Value) -> bool) -> Result<Earlier> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Earlier::default()),
        Err(error) => return Err(TrainError::io(path)(error)),
    };
    let (mut earlier, mut kept) = (Earlier::default(), Vec::new());
    for bytes in lines(&text) {
        match serde_json::from_slice(bytes).ok().filter(holds) {
            Some(line) => {
                kept.extend_from_slice(bytes);
                kept.push(b'\n');
                earlier.lines.push(line);
            }
            None => earlier.removed += 1,
        }
    }
    if kept != text {
        atomic::file(path, &kept)?;
    }
    Ok(earlier)
}

/// All lines of the log in `output`. The last may be half written, as that of a killed run is.
pub(super) fn read(output: &Path) -> Result<Vec<Value>> {
    let path = output.join(FILE);
    let text = fs::read(&path).map_err(TrainError::io(&path))?;
    let whole = &text[..text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1)];
    let line = |(index, bytes): (usize, &[u8])| {
        let message = format!("line {} is not a JSON object; remove it", index + 1);
        let line: Option<Value> = serde_json::from_slice(bytes).ok();
        line.filter(Value::is_object).ok_or_else(|| TrainError::output(&path, message))
    };
    lines(whole).enumerate().map(line).collect()
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn step(step: u64) -> Value {
        json!({"event": "step", "step": step, "loss": 1.5})
    }

    fn eval(step: u64) -> Value {
        json!({"event": "eval", "step": step})
    }

    #[test]
    fn lines_after_the_checkpoint_are_removed_and_the_evaluation_at_it_stays() {
        let root = tempfile::tempdir().unwrap();
        let (mut log, earlier) = Log::open(root.path(), 0, false).unwrap();
        assert_eq!(earlier.removed, 0);
        let written = [step(1), step(3), eval(4), step(5), eval(6)];
        written.iter().for_each(|line| log.write(line).unwrap());
        log.file.write_all(b"{\"event\": \"st").unwrap();

        let (mut log, earlier) = Log::open(root.path(), 4, true).unwrap();
        assert_eq!((earlier.removed, &earlier.lines[..]), (3, &written[..3]));
        log.write(&step(5)).unwrap();
        assert_eq!(read(root.path()).unwrap(), [step(1), step(3), eval(4), step(5)]);
    }

    #[test]
    fn an_evaluation_that_is_made_again_stands_in_the_log_once() {
        let root = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(root.path(), 0, false).unwrap();
        [step(1), eval(2), step(3), eval(4)].iter().for_each(|line| log.write(line).unwrap());
        let (mut log, earlier) = Log::open(root.path(), 4, false).unwrap();
        assert_eq!(earlier.removed, 1);
        log.write(&eval(4)).unwrap();
        assert_eq!(read(root.path()).unwrap(), [step(1), eval(2), step(3), eval(4)]);
    }

    #[test]
    fn a_run_from_the_start_begins_a_new_log() {
        let root = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(root.path(), 0, false).unwrap();
        log.write(&json!({"event": "start", "step": 0})).unwrap();
        let (_, earlier) = Log::open(root.path(), 0, false).unwrap();
        assert_eq!(earlier.removed, 1);
        assert_eq!(read(root.path()).unwrap(), [] as [Value; 0]);
    }

    #[test]
    fn a_half_written_last_line_is_not_read_and_a_damaged_one_is_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(FILE);
        fs::write(&path, "{\"event\": \"start\"}\n{\"event\": \"st").unwrap();
        assert_eq!(read(root.path()).unwrap(), [json!({"event": "start"})]);
        fs::write(&path, "{\"event\": \"start\"}\n[1\n{}\n").unwrap();
        let message = read(root.path()).unwrap_err().to_string();
        assert!(message.contains("train.jsonl") && message.contains("line 2"), "{message}");
    }
}
