//! Divides a file of conversations into one to train on and one to test on, by hashes: the same line goes to the same side
//! whatever else the file holds, as far as what it is divided by allows that.
//!
//! - By dialogue: equal lines stay together, so that no copy of a test dialogue is trained on.
//! - By function: each function has a side. A dialogue stands where all functions that it calls stand; one that calls functions
//!   of both sides stands on neither.
//! - By family: functions are of one family when a dialogue calls both, or when dialogues that call them offer the very same
//!   tools (an interface that is handed out as a whole). Being offered together beside others makes no family, because tools
//!   that are there to distract would connect everything. Every dialogue that calls has one family, so it has a side.
//!
//! By function and by family, no function of the test side is called on the side that is trained on; dialogues without a call
//! are divided by dialogue. Lines are copied as they stand. The file is read a batch at a time, and by family twice; what is
//! remembered is the names of called functions and a hash of each set of tools.

mod families;

use self::families::Families;
use crate::atomic::{self, Out};
use crate::data::lines::{self, Line};
use crate::data::native;
use crate::error::{Result, TrainError};
use callsmith::chat::Conversation;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::Path;

/// Lines of which it is told why they cannot be read.
const REASONS: usize = 10;

/// What stays together on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Dialogue,
    Function,
    Family,
}

/// How a file is divided.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub by: By,
    /// Share of the dialogues, functions or families on the test side, above 0 and below 1.
    pub share: f64,
    pub seed: u64,
    /// Bytes of the longest line that is taken.
    pub longest: usize,
}

/// The files to write.
#[derive(Debug, Clone, Copy)]
pub struct Outputs<'a> {
    pub train: &'a Path,
    pub test: &'a Path,
    /// For lines that stand on neither side.
    pub rest: Option<&'a Path>,
}

/// Where a line stands.
#[derive(Debug, Clone, PartialEq)]
enum Side {
    Train,
    Test,
    /// It calls functions of both sides.
    Both,
    Unreadable(String),
}

/// Lines of each side, and the functions that are called there.
#[derive(Debug, Default, PartialEq)]
pub struct Report {
    pub train: u64,
    pub test: u64,
    pub both: u64,
    pub unreadable: u64,
    /// The first reasons of those.
    pub reasons: Vec<String>,
    pub train_functions: BTreeSet<String>,
    pub test_functions: BTreeSet<String>,
}

/// Divides `file`.
///
/// # Errors
/// A share out of range, outputs that are one file or the file itself, a side that would be empty, what the file system
/// refuses. No output is written then.
pub fn split(file: &Path, rule: &Rule, outputs: &Outputs<'_>) -> Result<Report> {
    check(file, rule, outputs)?;
    let families = if rule.by == By::Family { Families::of_file(file, rule.longest)? } else { Families::default() };
    let judge = Judge { rule: *rule, families };
    let mut report = Report::default();
    // Each file appears when those inside it have: an error leaves none of them.
    with_out(Some(outputs.train), |train| {
        with_out(Some(outputs.test), |test| {
            with_out(outputs.rest, |rest| {
                let (train, test) = (output(Some(outputs.train), train), output(Some(outputs.test), test));
                report.write(file, &judge, [train, test, output(outputs.rest, rest)])
            })
        })
    })?;
    Ok(report)
}

fn check(file: &Path, rule: &Rule, outputs: &Outputs<'_>) -> Result<()> {
    if !(rule.share > 0.0 && rule.share < 1.0) {
        return Err(TrainError::Data(format!("--share {}: must lie between 0 and 1", rule.share)));
    }
    if rule.by == By::Family && fs::metadata(file).is_ok_and(|found| !found.is_file()) {
        return Err(TrainError::input(file, "is read twice by family, so it must be a regular file"));
    }
    let outputs: Vec<&Path> = [outputs.train, outputs.test].into_iter().chain(outputs.rest).collect();
    atomic::distinct(&[file], &outputs)
}

/// Runs `write` with an output that appears when it has succeeded, or with none.
fn with_out<T>(path: Option<&Path>, write: impl FnOnce(Option<&mut Out<'_>>) -> Result<T>) -> Result<()> {
    match path {
        Some(path) => atomic::produce(path, |out| write(Some(out)).map(drop)),
        None => write(None).map(drop),
    }
}

/// Where lines are written, and its name.
type Output<'a> = Option<(&'a Path, &'a mut dyn Write)>;

fn output<'a>(path: Option<&'a Path>, out: Option<&'a mut Out<'_>>) -> Output<'a> {
    path.zip(out.map(|out| out as &mut dyn Write))
}

impl Report {
    /// Reads the file and writes each line where it stands.
    fn write(&mut self, file: &Path, judge: &Judge, mut outs: [Output<'_>; 3]) -> Result<()> {
        for batch in lines::batches(file, judge.rule.longest)? {
            let batch = batch?;
            let judged: Vec<_> = batch.par_iter().map(|line| judge.line(file, line)).collect();
            for (line, (side, called)) in batch.iter().zip(judged) {
                let out = match side {
                    Side::Train => 0,
                    Side::Test => 1,
                    Side::Both | Side::Unreadable(_) => 2,
                };
                self.count(side, called);
                if let (Some((path, out)), Ok(text)) = (&mut outs[out], &line.text) {
                    writeln!(out, "{text}").map_err(TrainError::io(*path))?;
                }
            }
        }
        self.check()
    }

    fn count(&mut self, side: Side, called: BTreeSet<String>) {
        match side {
            Side::Train => {
                self.train += 1;
                self.train_functions.extend(called);
            }
            Side::Test => {
                self.test += 1;
                self.test_functions.extend(called);
            }
            Side::Both => self.both += 1,
            Side::Unreadable(reason) => {
                self.unreadable += 1;
                self.reasons.extend((self.reasons.len() < REASONS).then_some(reason));
            }
        }
    }

    fn check(&self) -> Result<()> {
        if self.train > 0 && self.test > 0 {
            return Ok(());
        }
        let side = if self.train == 0 { "train" } else { "test" };
        Err(TrainError::Data(format!(
            "nothing is left for the {side} side; give another --share, --seed or --by\n{self}"
        )))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { train, test, both, unreadable, reasons, train_functions, test_functions } = self;
        let share = 100.0 * *test as f64 / (train + test).max(1) as f64;
        let shared = train_functions.intersection(test_functions).count();
        writeln!(out, "train: {train} dialogues that call {} functions", train_functions.len())?;
        writeln!(
            out,
            "test: {test} dialogues ({share:.1} %) that call {} functions, {shared} of them in training too",
            test_functions.len()
        )?;
        writeln!(
            out,
            "neither: {both} dialogues that call functions of both sides, {unreadable} lines that cannot be read"
        )?;
        reasons.iter().try_for_each(|reason| writeln!(out, "  {reason}"))
    }
}

/// Says where lines stand.
struct Judge {
    rule: Rule,
    families: Families,
}

impl Judge {
    /// The side, and the functions that are called.
    fn line(&self, file: &Path, line: &Line) -> (Side, BTreeSet<String>) {
        match read(file, line) {
            Ok(conversation) => {
                let called = called(&conversation);
                (self.side(line.text.as_deref().unwrap_or_default(), &called), called)
            }
            Err(reason) => (Side::Unreadable(reason), BTreeSet::new()),
        }
    }

    fn side(&self, text: &str, called: &BTreeSet<String>) -> Side {
        if self.rule.by == By::Dialogue || called.is_empty() {
            return if self.is_test("dialogue", text) { Side::Test } else { Side::Train };
        }
        let tested = called.iter().filter(|name| self.is_test("function", self.families.head(name))).count();
        match tested {
            0 => Side::Train,
            all if all == called.len() => Side::Test,
            _ => Side::Both,
        }
    }

    fn is_test(&self, kind: &str, what: &str) -> bool {
        let hash =
            Sha256::new().chain_update(self.rule.seed.to_le_bytes()).chain_update(kind).chain_update(what).finalize();
        let first = hash.iter().take(8).fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
        (first as f64 / u64::MAX as f64) < self.rule.share
    }
}

fn read(file: &Path, line: &Line) -> Result<Conversation, String> {
    let place = format!("{}:{}", file.display(), line.number);
    let text = line.text.as_deref().map_err(|reason| format!("{place}: {reason}"))?;
    native::from_line(text, &place).map_err(|error| error.to_string())
}

fn called(conversation: &Conversation) -> BTreeSet<String> {
    conversation.messages.iter().flat_map(|message| &message.tool_calls).map(|call| call.name.clone()).collect()
}

#[cfg(test)]
mod tests;
