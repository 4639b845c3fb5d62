//! A model in this process, asked as the server asks it: its prompt, its grammar, its engine and its parser.
//!
//! A model is loaded once and answers alone or with an adapter, with the grammar or without.

use super::{Answerer, Case, Reply, Take};
use crate::dataset::encode::Encoder;
use crate::error::{Result, TrainError};
use crate::eval::answer::{self, Asker, Question};
use crate::eval::{IN_FLIGHT, KV_CACHE_BYTES, limits};
use callsmith::adapter::BuiltIn;
use callsmith::adapter::peft::{self, LoadedAdapter};
use callsmith::adapter::registry::Lease;
use callsmith::chat::dialect::DialectChoice;
use callsmith::chat::tokenizer::ChatTokenizer;
use callsmith::embedded;
use callsmith::engine::{EngineError, EngineHandle, Event};
use callsmith::model::{Checkpoint, CpuDecoder, Precision, weights};
use callsmith::priority;
use candle_core::{DType, Device};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::UNIX_EPOCH;
use tokio::sync::mpsc::UnboundedReceiver;

/// What of a model's directory decides how it is asked and when its answers end.
const ASKING: [&str; 5] =
    ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"];

/// A loaded model.
pub struct Model {
    checkpoint: Checkpoint<'static>,
    engine: EngineHandle,
    encoder: Arc<Encoder>,
    dialect: DialectChoice,
    device: Device,
    identity: Value,
    /// A digest of the files that say how it is asked.
    asking: String,
}

/// An adapter to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adapter<'a> {
    /// A PEFT directory.
    Directory(&'a Path),
    /// One that ships with the program, by its name.
    Shipped(&'static str, BuiltIn),
}

impl<'a> Adapter<'a> {
    /// Where it is, or its name.
    pub fn place(self) -> &'a Path {
        match self {
            Self::Directory(path) => path,
            Self::Shipped(name, _) => Path::new(name),
        }
    }
}

/// A model as it is to answer.
pub struct Local {
    model: Rc<Model>,
    asker: Asker,
    adapter: Option<Lease>,
    max_tokens: usize,
    identity: Value,
}

/// A turn that the engine works on.
struct Asked {
    place: usize,
    question: Question,
    events: UnboundedReceiver<Event>,
}

impl Model {
    /// The model in a directory or GGUF file; without one, the model that ships with the program.
    ///
    /// # Errors
    /// When it cannot be read, or the device cannot hold it.
    pub fn open(path: Option<&Path>, dialect: &DialectChoice, device: &Device) -> Result<Rc<Self>> {
        let (checkpoint, tokenizer, identity) = match path {
            Some(path) => {
                let checkpoint = Checkpoint::open(path)?;
                let tokenizer = ChatTokenizer::load(path, checkpoint.config().vocab_size)?;
                (checkpoint, tokenizer, weight_files(path)?)
            }
            None => {
                let opened = embedded::open().map_err(|error| TrainError::Data(format!("the shipped model: {error}")));
                let (checkpoint, tokenizer) = opened?;
                (checkpoint, tokenizer, json!({"shipped": embedded::digest()}))
            }
        };
        let encoder = Arc::new(Encoder::of(tokenizer, None, dialect)?);
        let engine = engine(&checkpoint, device)?;
        let asking = digest(&asking_files(path, dialect)?)?;
        let (dialect, device) = (dialect.clone(), device.clone());
        Ok(Rc::new(Self { checkpoint, engine, encoder, dialect, device, identity, asking }))
    }

    /// The model as it answers with an adapter, or alone. `free`: without the grammar.
    ///
    /// # Errors
    /// When the adapter does not fit, or the tokenizer allows no grammar.
    pub fn answerer(self: &Rc<Self>, adapter: Option<Adapter<'_>>, free: bool, max_tokens: usize) -> Result<Local> {
        let (mut lease, mut digest, mut encoder) = (None, Value::Null, Arc::clone(&self.encoder));
        if let Some(adapter) = adapter {
            let loaded = self.load(adapter)?;
            let weights = Arc::new(loaded.weights.beside(&self.checkpoint)?);
            digest = json!(loaded.digest);
            lease = Some(answer::lease(loaded.digest.chars().take(16).collect(), adapter.place(), weights));
            // As in the server: the named dialect is the base's.
            if let Some(own) = loaded.chat_template.as_deref().filter(|text| !encoder.tokenizer.has_template(text)) {
                let (tokenizer, dir) = (ChatTokenizer::clone(&encoder.tokenizer), self.dialect.dir.clone());
                encoder = Arc::new(Encoder::of(tokenizer, Some(own), &DialectChoice { name: None, dir })?);
            }
        }
        let identity = json!({
            "model": self.identity, "asking": self.asking, "adapter": digest, "dialect": encoder.dialect.name(),
            "grammar": !free, "max_tokens": max_tokens,
        });
        let asker = Asker::new(encoder, free)?;
        Ok(Local { model: Rc::clone(self), asker, adapter: lease, max_tokens, identity })
    }

    fn load(&self, adapter: Adapter<'_>) -> Result<LoadedAdapter> {
        let (config, dtype) = (self.checkpoint.config(), DType::F32);
        let loaded = match adapter {
            Adapter::Directory(path) => peft::load(path, config, dtype, &self.device),
            Adapter::Shipped(_, files) => peft::load_built_in(files, config, dtype, &self.device),
        };
        Ok(loaded?.servable()?)
    }
}

fn engine(checkpoint: &Checkpoint<'_>, device: &Device) -> Result<EngineHandle> {
    let limits = limits(KV_CACHE_BYTES);
    Ok(match device.is_cpu() {
        true => {
            let decoder = CpuDecoder::load(checkpoint, Precision::FULL, priority::processors(), &|_| {})?;
            EngineHandle::start_packed(decoder, limits)?
        }
        false => EngineHandle::start(checkpoint.decoder(DType::F32, device)?, limits)?,
    })
}

/// What tells a model's weights from those of a later training in the same place: their files' sizes and times.
fn weight_files(path: &Path) -> Result<Value> {
    let weights = if path.is_file() { vec![path.to_owned()] } else { weights::shards(path)? };
    let one = |path: &PathBuf| {
        let about = fs::metadata(path).and_then(|about| Ok((about.len(), about.modified()?)));
        let (bytes, modified) = about.map_err(TrainError::io(path))?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(
            json!({"file": fs::canonicalize(path).unwrap_or_else(|_| path.clone()), "bytes": bytes, "modified_ms": since.as_millis() as u64}),
        )
    };
    weights.iter().map(one).collect()
}

/// The small files that answers depend on: those of a model's directory, and those of further dialects. A GGUF file holds its own.
fn asking_files(model: Option<&Path>, dialect: &DialectChoice) -> Result<Vec<PathBuf>> {
    let directory = model.filter(|path| path.is_dir());
    let mut files: Vec<PathBuf> = directory.iter().flat_map(|path| ASKING.map(|name| path.join(name))).collect();
    if let Some(dir) = &dialect.dir {
        let entries = fs::read_dir(dir).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let mut dialects: Vec<_> = entries.map_err(TrainError::io(dir))?.iter().map(fs::DirEntry::path).collect();
        dialects.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
        dialects.sort();
        files.append(&mut dialects);
    }
    Ok(files)
}

/// One digest of what files hold; one that is not there holds nothing.
fn digest(files: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    for path in files {
        match fs::read(path) {
            Ok(bytes) => hash.update(Sha256::digest(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => hash.update([0]),
            Err(error) => return Err(TrainError::io(path)(error)),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Local {
    fn ask(&self, place: usize, case: &Case) -> Result<Asked> {
        let question = self.asker.question(&case.conversation)?;
        let events = self.asker.submit(&self.model.engine, &question, self.adapter.clone(), self.max_tokens)?;
        Ok(Asked { place, question, events })
    }

    fn collect(&self, asked: Asked, take: Take<'_>) -> Result<()> {
        // No stop is asked for: what is answered is kept at once.
        let written = self.asker.written(&asked.question, asked.events, &AtomicBool::default());
        let reply = written.map(|written| Reply { text: written.answered, calls: written.calls, refused: None });
        take(asked.place, reply.or_else(refusal)?)
    }
}

impl Answerer for Local {
    fn answer(&self, cases: &[&Case], take: Take<'_>) -> Result<()> {
        let mut flight = VecDeque::new();
        for (place, case) in cases.iter().enumerate() {
            if flight.len() == IN_FLIGHT
                && let Some(asked) = flight.pop_front()
            {
                self.collect(asked, take)?;
            }
            match self.ask(place, case) {
                Ok(asked) => flight.push_back(asked),
                Err(error) => take(place, refusal(error)?)?,
            }
        }
        flight.into_iter().try_for_each(|asked| self.collect(asked, take))
    }

    fn identity(&self) -> Value {
        self.identity.clone()
    }
}

/// What the server answers with an error to this one request is its reply; anything else ends the evaluation.
fn refusal(error: TrainError) -> Result<Reply> {
    match error {
        TrainError::Chat(_)
        | TrainError::Grammar(_)
        | TrainError::Engine(
            EngineError::InvalidOutput(_) | EngineError::ContextExceeded { .. } | EngineError::CacheTooSmall { .. },
        ) => Ok(Reply::refusal(error.to_string())),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_how_a_model_is_asked_is_part_of_its_identity() {
        let (model, dialects) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let choice = DialectChoice { name: None, dir: Some(dialects.path().to_owned()) };
        let found = || digest(&asking_files(Some(model.path()), &choice).unwrap()).unwrap();
        let mut seen = vec![found()];
        for file in [model.path().join("chat_template.jinja"), dialects.path().join("own.toml")] {
            for text in ["", "a", "b"] {
                fs::write(&file, text).unwrap();
                seen.push(found());
            }
        }
        fs::write(model.path().join("README.md"), "words").unwrap();
        assert_eq!(Some(&found()), seen.last());
        assert_eq!(seen.iter().collect::<std::collections::HashSet<_>>().len(), seen.len(), "{seen:?}");
    }
}
