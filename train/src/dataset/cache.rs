//! Encoded samples that are kept between runs: what was tokenised once is read back, bit for bit.
//!
//! A file is known by the hash of everything that its samples depend on: the lines, the tokenizer's files, the dialect, the
//! weights of the loss. It carries a checksum, and some of its samples are made anew each time to see that they are still the
//! same (a template may print today's date, the code may have changed). What does not agree is made again.

use super::Example;
use super::conversations::Conversations;
use super::encode::{Encoder, Weights};
use super::stored;
use crate::atomic;
use crate::error::{Result, TrainError};
use crate::recipe::Recipe;
use callsmith::chat::tokenizer::{FILES, GENERATION_FILE};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Changes with the form of the file.
const FORM: &str = concat!("callsmith samples 1 ", env!("CARGO_PKG_VERSION"));
/// Samples that are made anew to compare.
const PROBES: usize = 16;
/// Bytes of a GGUF file that hold its tokenizer; the weights after them do not matter.
const HEAD: u64 = 64 << 20;

/// A directory of encoded samples, for one tokenizer and dialect.
pub struct Cache {
    dir: PathBuf,
    /// Of what all samples of a run depend on.
    hash: Sha256,
}

impl Cache {
    /// The one that a recipe names, for its tokenizer in `tokenizer_dir`.
    ///
    /// # Errors
    /// When the tokenizer's files cannot be read.
    pub fn of(recipe: &Recipe, tokenizer_dir: &Path) -> Result<Option<Self>> {
        let Some(dir) = recipe.cache.clone() else { return Ok(None) };
        let mut hash = Sha256::new_with_prefix(FORM);
        let dialect = recipe.model.dialect();
        put(&mut hash, dialect.name.unwrap_or_default().as_bytes());
        put(&mut hash, &recipe.virtual_tokens().to_le_bytes());
        let names = FILES.into_iter().chain([GENERATION_FILE, "config.json"]);
        let mut files: Vec<PathBuf> = match tokenizer_dir.is_file() {
            true => vec![tokenizer_dir.to_owned()],
            false => names.map(|name| tokenizer_dir.join(name)).collect(),
        };
        if let Some(dir) = dialect.dir {
            let entries = fs::read_dir(&dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            let mut found: Vec<_> = entries.map_err(TrainError::io(&dir))?.iter().map(fs::DirEntry::path).collect();
            found.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
            found.sort();
            files.extend(found);
        }
        files.iter().try_for_each(|file| put_file(&mut hash, file))?;
        Ok(Some(Self { dir, hash }))
    }

    /// The samples of all conversations, from the directory or from `encode`, which are then kept there.
    ///
    /// # Errors
    /// Those of `encode`, and a directory that cannot be written.
    pub(super) fn samples(
        &self,
        source: &Encoding<'_>,
        encode: impl FnOnce() -> Result<Vec<Example>>,
    ) -> Result<Vec<Example>> {
        let key = self.key(source);
        let path =
            self.dir.join(format!("{}.samples", key.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
        if let Some(examples) = fs::read(&path).ok().and_then(|bytes| stored::read(&bytes, &key))
            && source.agrees(&examples)
        {
            return Ok(examples);
        }
        let examples = encode()?;
        atomic::file(&path, &stored::write(&examples, &key))?;
        Ok(examples)
    }

    fn key(&self, source: &Encoding<'_>) -> [u8; 32] {
        let mut hash = self.hash.clone();
        let Weights { lm, name } = source.weights;
        put(&mut hash, &[lm.to_le_bytes(), name.to_le_bytes()].concat());
        (0..source.conversations.len()).for_each(|place| hash.update(source.conversations.digest(place)));
        hash.finalize().into()
    }
}

/// What samples are made of.
#[derive(Clone, Copy)]
pub(super) struct Encoding<'a> {
    pub(super) conversations: &'a Conversations,
    pub(super) encoder: &'a Encoder,
    pub(super) weights: Weights,
}

impl Encoding<'_> {
    /// The sample of one conversation.
    pub(super) fn sample(&self, place: usize) -> Result<Example> {
        let example = self.encoder.dialogue(self.conversations.get(place), self.weights);
        example.map_err(|error| self.conversations.error(place, &error))
    }

    fn agrees(&self, examples: &[Example]) -> bool {
        let count = self.conversations.len();
        let probes = (0..count.min(PROBES)).map(|probe| probe * count / count.min(PROBES));
        let same = |place: usize| self.sample(place).is_ok_and(|sample| sample == examples[place]);
        examples.len() == count && probes.into_iter().all(same)
    }
}

/// Adds a part whose end is seen.
fn put(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}

/// Adds a file's name and content; one that is absent has none.
fn put_file(hash: &mut Sha256, path: &Path) -> Result<()> {
    put(hash, path.file_name().unwrap_or_default().as_encoded_bytes());
    let mut content = Vec::new();
    match File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut content)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(TrainError::io(path)(error)),
        _ => put(hash, &content),
    }
    Ok(())
}
