//! Answers on disk, so that no model is asked twice: one JSON object a line, the first naming what they depend on.
//!
//! A line is written in one piece, and a last line that a killed process left half written is cut off. Knows no metric.

use super::answerer::{Case, Reply};
use crate::atomic;
use crate::data::native;
use crate::error::{Result, TrainError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the answers of a model of this name are kept. What a file's name cannot say is said by a digest, so that no two names
/// have one file.
pub fn file(out: &Path, name: &str) -> PathBuf {
    let mut stem: String = name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    if stem != name {
        stem.push('-');
        stem.push_str(&hexadecimal::<4>(name));
    }
    out.join(format!("{stem}.answers.jsonl"))
}

/// The answers of one model in one file; without a file they are only remembered.
#[derive(Default)]
pub struct Kept {
    path: PathBuf,
    file: Option<File>,
    known: HashMap<String, Line>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    id: String,
    /// Of the question, so that other data are not mistaken for it.
    question: String,
    reply: Reply,
}

impl Kept {
    /// Opens the file, or begins it. `identity` is everything that the answers depend on beside their questions.
    ///
    /// # Errors
    /// A file of other answers, or one that cannot be read or written.
    pub fn open(path: &Path, identity: &Value) -> Result<Self> {
        if !path.exists() {
            atomic::file(path, format!("{identity}\n").as_bytes())?;
        }
        let bytes = std::fs::read(path).map_err(TrainError::io(path))?;
        // The cut may go through a character.
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let text = str::from_utf8(&bytes[..whole]);
        let text = text.map_err(|error| TrainError::output(path, format!("{error}; {REMEDY}")))?;
        let known = known(path, text, identity)?;
        let file = File::options().append(true).open(path).map_err(TrainError::io(path))?;
        file.set_len(whole as u64).map_err(TrainError::io(path))?;
        Ok(Self { path: path.to_owned(), file: Some(file), known })
    }

    /// The reply to a case that was answered before.
    ///
    /// # Errors
    /// When another question had its name.
    pub fn get(&self, case: &Case) -> Result<Option<&Reply>> {
        let Some(line) = self.known.get(&case.id) else { return Ok(None) };
        if line.question == digest(case) {
            return Ok(Some(&line.reply));
        }
        Err(TrainError::output(&self.path, format!("its answer to {} is to another question; {REMEDY}", case.id)))
    }

    /// Keeps a reply.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&mut self, case: &Case, reply: Reply) -> Result<()> {
        let line = Line { id: case.id.clone(), question: digest(case), reply };
        if let Some(file) = &mut self.file {
            let text = serde_json::to_string(&line).map_err(std::io::Error::other);
            let written = text.and_then(|text| file.write_all(format!("{text}\n").as_bytes()));
            written.map_err(TrainError::io(&self.path))?;
        }
        self.known.insert(case.id.clone(), line);
        Ok(())
    }
}

const REMEDY: &str = "name another --out, or remove that file";

fn known(path: &Path, text: &str, identity: &Value) -> Result<HashMap<String, Line>> {
    let mut lines = text.lines();
    let first: Value = lines.next().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    if first != *identity {
        return Err(TrainError::output(
            path,
            format!("holds answers of other options: {first}, now {identity}; {REMEDY}"),
        ));
    }
    let line = |(number, line)| {
        let read: Line = serde_json::from_str(line)
            .map_err(|error| TrainError::output(path, format!("line {number}: {error}; {REMEDY}")))?;
        Ok((read.id.clone(), read))
    };
    (2..).zip(lines).map(line).collect()
}

fn digest(case: &Case) -> String {
    hexadecimal::<8>(&native::to_json(&case.conversation).to_string())
}

/// The first bytes of a text's digest.
fn hexadecimal<const BYTES: usize>(text: &str) -> String {
    Sha256::digest(text).iter().take(BYTES).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use callsmith::chat::{Conversation, Message, Role};
    use serde_json::json;

    fn case(id: &str, text: &str) -> Case {
        let conversation = Conversation { messages: vec![Message::text(Role::User, text)], ..Conversation::default() };
        Case { id: id.to_owned(), conversation }
    }

    fn reply(text: &str) -> Reply {
        Reply { text: text.to_owned(), calls: vec![("f".to_owned(), json!({"a": [1, "é"]}))], refused: None }
    }

    #[test]
    fn answers_survive_and_a_line_that_was_cut_off_does_not() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("base.jsonl");
        let identity = json!({"model": "m"});
        let mut kept = Kept::open(&path, &identity).unwrap();
        kept.put(&case("1", "a"), reply("x\ny")).unwrap();
        kept.put(&case("2", "b"), reply("é")).unwrap();
        drop(kept);
        let whole = std::fs::read(&path).unwrap();
        // The last of these cuts goes through the last é.
        for cut in [1, 5, whole.iter().rev().position(|&byte| byte == 0xA9).unwrap() + 1] {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let mut kept = Kept::open(&path, &identity).unwrap();
            assert_eq!(kept.get(&case("1", "a")).unwrap(), Some(&reply("x\ny")));
            assert_eq!(kept.get(&case("2", "b")).unwrap(), None);
            kept.put(&case("2", "b"), reply("é")).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn no_two_names_have_one_file() {
        let names = ["base", "a.b", "a-b", "a/b", "a-b-", "A b"];
        let files: std::collections::HashSet<_> = names.map(|name| file(Path::new("out"), name)).into();
        assert_eq!(files.len(), names.len(), "{files:?}");
        assert!(files.contains(Path::new("out/base.answers.jsonl")));
    }

    #[test]
    fn answers_of_other_options_or_to_other_questions_are_refused_with_a_remedy() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("base.jsonl");
        let mut kept = Kept::open(&path, &json!({"model": "m"})).unwrap();
        kept.put(&case("1", "a"), reply("x")).unwrap();
        let other = kept.get(&case("1", "z")).unwrap_err().to_string();
        assert!(other.contains("base.jsonl") && other.contains("answer to 1") && other.contains("--out"), "{other}");
        let options = Kept::open(&path, &json!({"model": "n"})).err().unwrap().to_string();
        assert!(options.contains("other options") && options.contains("--out"), "{options}");
        std::fs::write(&path, "{\"model\":\"m\"}\nnonsense\n").unwrap();
        let broken = Kept::open(&path, &json!({"model": "m"})).err().unwrap().to_string();
        assert!(broken.contains("line 2"), "{broken}");
    }
}
