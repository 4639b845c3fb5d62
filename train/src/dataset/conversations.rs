//! The conversations of files of JSON lines, and which of them are held out.
//!
//! Knows no tokens: see [`super::encode`].

use crate::data::{Dialogue, lines, native};
use crate::error::{Result, TrainError};
use crate::random;
use rand::seq::SliceRandom;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Conversations with the places they come from.
#[derive(Clone, Default)]
pub struct Conversations(Vec<Arc<Line>>);

struct Line {
    file: Arc<Path>,
    /// From 1.
    number: u64,
    /// SHA-256 of its text.
    digest: [u8; 32],
    dialogue: Dialogue,
}

impl Conversations {
    /// Reads a file with one conversation per line; empty lines are skipped.
    ///
    /// # Errors
    /// A file that cannot be read or holds nothing, and the first wrong line, by name and number.
    pub fn open(path: &Path) -> Result<Self> {
        let file: Arc<Path> = path.into();
        let mut lines = Vec::new();
        // All of it is held, so no line is too long.
        for batch in lines::batches(path, usize::MAX)? {
            for lines::Line { number, text } in batch? {
                let place = format!("{}:{number}", path.display());
                let text = text.map_err(|reason| TrainError::Data(format!("{place}: {reason}")))?;
                let dialogue = native::dialogue_from_line(&text, &place)?;
                let digest = Sha256::digest(&text).into();
                lines.push(Arc::new(Line { file: file.clone(), number, digest, dialogue }));
            }
        }
        match lines.is_empty() {
            true => Err(TrainError::Data(format!("{} holds no conversation", path.display()))),
            false => Ok(Self(lines)),
        }
    }

    /// Those to train on, and those held out: a `share`, chosen by the seed and their number alone.
    fn split(self, share: f64, seed: u64) -> (Self, Self) {
        let mut members: Vec<usize> = (0..self.len()).collect();
        members.shuffle(&mut random::stream(seed, "held out", self.len() as u64));
        let mut held = vec![false; self.len()];
        members[..(self.len() as f64 * share) as usize].iter().for_each(|&line| held[line] = true);
        let (held, kept): (Vec<_>, Vec<_>) = self.0.into_iter().zip(held).partition(|(_, held)| *held);
        let lines = |part: Vec<(Arc<Line>, bool)>| Self(part.into_iter().map(|(line, _)| line).collect());
        (lines(kept), lines(held))
    }

    /// Number of conversations.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The conversation at an index.
    pub fn get(&self, index: usize) -> &Dialogue {
        &self.0[index].dialogue
    }

    /// SHA-256 of the line at an index.
    pub fn digest(&self, index: usize) -> &[u8; 32] {
        &self.0[index].digest
    }

    /// An error about the conversation at an index, with its file and line.
    pub fn error(&self, index: usize, error: &dyn Display) -> TrainError {
        let Line { file, number, .. } = &*self.0[index];
        TrainError::Data(format!("{}:{number}: {error}", file.display()))
    }
}

impl<'a> FromIterator<&'a Self> for Conversations {
    fn from_iter<T: IntoIterator<Item = &'a Self>>(parts: T) -> Self {
        Self(parts.into_iter().flat_map(|part| part.0.iter().cloned()).collect())
    }
}

/// The files that a run trains on, each read once, and what is held out of each.
pub struct Corpus(BTreeMap<PathBuf, (Conversations, Conversations)>);

impl Corpus {
    /// Reads files and holds out a share of each, chosen by the seed and the file's length alone, so that the same file is divided
    /// in the same way wherever it is used.
    ///
    /// # Errors
    /// As [`Conversations::open`].
    pub fn open(files: &[PathBuf], (share, seed): (f64, u64)) -> Result<Self> {
        let divided = |path: &PathBuf| Ok((path.clone(), Conversations::open(path)?.split(share, seed)));
        Ok(Self(files.iter().map(divided).collect::<Result<_>>()?))
    }

    /// What is trained on of some of its files, one after the other.
    pub fn kept(&self, files: &[PathBuf]) -> Conversations {
        files.iter().filter_map(|path| self.0.get(path)).map(|(kept, _)| kept).collect()
    }

    /// What is held out of all files.
    pub fn held_out(&self) -> Conversations {
        self.0.values().map(|(_, held)| held).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &tempfile::TempDir, name: &str, count: usize) -> PathBuf {
        let line = |n| {
            format!(r#"{{"messages":[{{"role":"user","content":"{name} {n}"}},{{"role":"assistant","content":"b"}}]}}"#)
        };
        let path = dir.path().join(name);
        std::fs::write(&path, (0..count).map(|n| line(n) + "\n").collect::<String>()).unwrap();
        path
    }

    fn contents(conversations: &Conversations) -> Vec<String> {
        (0..conversations.len()).map(|at| conversations.get(at).conversation.messages[0].content.clone()).collect()
    }

    #[test]
    fn a_share_of_each_file_is_held_out_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let files = [file(&dir, "a", 40), file(&dir, "b", 25)];
        let corpus = Corpus::open(&files, (0.1, 7)).unwrap();
        let (kept, held) = (corpus.kept(&files), corpus.held_out());
        let count = |of: &Conversations, name: &str| contents(of).iter().filter(|text| text.starts_with(name)).count();
        assert_eq!((count(&held, "a"), count(&held, "b")), (4, 2));
        let mut all = [contents(&kept), contents(&held)].concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 65);
    }

    #[test]
    fn a_file_is_divided_in_the_same_way_wherever_it_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (file(&dir, "a", 40), file(&dir, "b", 25));
        let held = |files: &[PathBuf], seed| contents(&Corpus::open(files, (0.2, seed)).unwrap().held_out());
        let (alone, together) = (held(std::slice::from_ref(&a), 1), held(&[b, a.clone()], 1));
        assert!(alone.iter().all(|text| together.contains(text)));
        assert_ne!(alone, held(&[a], 2));
    }

    #[test]
    fn files_are_trained_on_in_the_order_in_which_a_source_lists_them() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (file(&dir, "a", 2), file(&dir, "b", 1));
        let corpus = Corpus::open(&[a.clone(), b.clone()], (0.0, 0)).unwrap();
        assert_eq!(contents(&corpus.kept(&[b.clone(), a])), ["b 0", "a 0", "a 1"]);
        assert_eq!(contents(&corpus.kept(&[b])), ["b 0"]);
    }

    #[test]
    fn a_byte_order_mark_is_no_text_and_a_bad_byte_is_told_by_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, "a", 2);
        let marked = [b"\xEF\xBB\xBF".as_slice(), &std::fs::read(&path).unwrap()].concat();
        std::fs::write(&path, &marked).unwrap();
        assert_eq!(contents(&Conversations::open(&path).unwrap()), ["a 0", "a 1"]);
        std::fs::write(&path, [&marked, b"{\xFF}\n".as_slice()].concat()).unwrap();
        let error = Conversations::open(&path).err().unwrap().to_string();
        assert!(error.contains("a:3: not UTF-8 at byte 2"), "{error}");
    }

    #[test]
    fn few_conversations_are_all_trained_on() {
        let dir = tempfile::tempdir().unwrap();
        let files = [file(&dir, "a", 9)];
        let corpus = Corpus::open(&files, (0.1, 1)).unwrap();
        assert_eq!((corpus.kept(&files).len(), corpus.held_out().len()), (9, 0));
    }
}
