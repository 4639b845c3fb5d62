//! The conversations of files of JSON lines, and which of them are held out.
//!
//! Knows no tokens: see [`super::encode`].

use crate::data::native;
use crate::error::{Result, TrainError};
use crate::random;
use callsmith::chat::Conversation;
use rand::seq::SliceRandom;
use std::fmt::Display;
use std::path::PathBuf;

/// Conversations with the places they come from.
pub struct Conversations {
    files: Vec<PathBuf>,
    lines: Vec<Line>,
}

struct Line {
    file: usize,
    /// From 1.
    number: usize,
    conversation: Conversation,
}

impl Conversations {
    /// Reads files with one conversation per line; empty lines are skipped.
    ///
    /// # Errors
    /// A file that cannot be read or holds nothing, and the first wrong line, by name and number.
    pub fn open(files: &[PathBuf]) -> Result<Self> {
        let mut lines = Vec::new();
        for (file, path) in files.iter().enumerate() {
            let text = std::fs::read_to_string(path).map_err(TrainError::io(path))?;
            let before = lines.len();
            for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
                let conversation = native::from_line(line, &format!("{}:{number}", path.display()))?;
                lines.push(Line { file, number, conversation });
            }
            if lines.len() == before {
                return Err(TrainError::Data(format!("{} holds no conversation", path.display())));
            }
        }
        Ok(Self { files: files.to_vec(), lines })
    }

    /// Those to train on, and those held out: `share` of each file, chosen by the seed and the file's length alone, so that the
    /// same file is divided in the same way wherever it is used.
    pub fn split(self, share: f64, seed: u64) -> (Self, Self) {
        let mut held = vec![false; self.lines.len()];
        for file in 0..self.files.len() {
            let mut members: Vec<usize> = (0..held.len()).filter(|&line| self.lines[line].file == file).collect();
            let total = members.len();
            members.shuffle(&mut random::stream(seed, "held out", total as u64));
            let count = (total as f64 * share) as usize;
            members[..count].iter().for_each(|&line| held[line] = true);
        }
        let (held, kept): (Vec<_>, Vec<_>) = self.lines.into_iter().zip(held).partition(|(_, held)| *held);
        let part = |lines: Vec<(Line, bool)>| Self {
            files: self.files.clone(),
            lines: lines.into_iter().map(|(line, _)| line).collect(),
        };
        (part(kept), part(held))
    }

    /// Number of conversations.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The conversation at an index.
    pub fn get(&self, index: usize) -> &Conversation {
        &self.lines[index].conversation
    }

    /// An error about the conversation at an index, with its file and line.
    pub fn error(&self, index: usize, error: &dyn Display) -> TrainError {
        let Line { file, number, .. } = &self.lines[index];
        TrainError::Data(format!("{}:{number}: {error}", self.files[*file].display()))
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
        (0..conversations.len()).map(|at| conversations.get(at).messages[0].content.clone()).collect()
    }

    #[test]
    fn a_share_of_each_file_is_held_out_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let files = [file(&dir, "a", 40), file(&dir, "b", 25)];
        let (kept, held) = Conversations::open(&files).unwrap().split(0.1, 7);
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
        let held = |files: &[PathBuf], seed| contents(&Conversations::open(files).unwrap().split(0.2, seed).1);
        let (alone, together) = (held(std::slice::from_ref(&a), 1), held(&[b, a.clone()], 1));
        assert!(alone.iter().all(|text| together.contains(text)));
        assert_ne!(alone, held(&[a], 2));
    }

    #[test]
    fn few_conversations_are_all_trained_on() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, held) = Conversations::open(&[file(&dir, "a", 9)]).unwrap().split(0.1, 1);
        assert_eq!((kept.len(), held.len()), (9, 0));
    }
}
