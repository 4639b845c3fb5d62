//! Writes samples to files and as text for the tokenizer. Knows how samples are stored, not how they are made.

use super::{SourceMix, SynthConfig, generate};
use crate::atomic;
use crate::data::tokenizer::{train_bpe, write_tokenizer};
use crate::data::{DataError, native};
use callsmith::chat::dialect::Dialect;
use callsmith::chat::{Conversation, Role};
use std::path::Path;

/// Samples that a tokenizer is trained on.
const TOKENIZER_SAMPLES: u64 = 20_000;

/// Writes `count` samples as JSON lines, whole or not at all.
///
/// # Errors
/// An invalid configuration, or a file that cannot be written.
pub fn write_jsonl(config: &SynthConfig, count: u64, path: &Path) -> Result<(), DataError> {
    config.validate()?;
    let mut lines = (0..count).map(|index| native::to_json(&generate(config, index).conversation));
    atomic::stream(path, |out| lines.try_for_each(|line| writeln!(out, "{line}"))).map_err(|e| DataError::file(path, e))
}

/// What every prompt and every call repeats, as the chat template of our own models and the dialect `tool_uses` write it.
/// As single tokens they keep a request close to its answer, and a description close to its name.
const PHRASES: [&str; 8] = [
    "namespace functions {\n",
    "\ntype ",
    " = (_: {\n",
    "}) => any;\n",
    r#"{"tool_uses":[{"recipient_name":"functions."#,
    r#"","parameters":{"#,
    r#"}},{"recipient_name":"functions."#,
    "}}]}",
];

/// Trains a tokenizer with `vocab` tokens on training samples and writes its files into `dir`.
///
/// # Errors
/// A vocabulary that is too small, or a file that cannot be written.
pub fn write_synth_tokenizer(seed: u64, vocab: usize, dialect: &dyn Dialect, dir: &Path) -> Result<(), DataError> {
    let tokenizer = train_bpe(bpe_corpus(seed, TOKENIZER_SAMPLES, dialect), vocab, &PHRASES)?;
    write_tokenizer(&tokenizer, dir)
}

/// Text that a tokenizer is trained on: declarations, requests, calls, results and answers of `count` training samples,
/// without made-up nouns, as the dialect writes them.
pub fn bpe_corpus(seed: u64, count: u64, dialect: &dyn Dialect) -> impl Iterator<Item = String> + Send {
    let sources = SourceMix { made_up: 0.0, ..SourceMix::default() };
    let config = SynthConfig { seed, sources, ..SynthConfig::default() };
    (0..count).flat_map(move |index| texts_of(&generate(&config, index).conversation, dialect))
}

fn texts_of(conversation: &Conversation, dialect: &dyn Dialect) -> Vec<String> {
    let shown = "a dialect's templates are rendered once when it is loaded";
    let mut texts = vec![dialect.system_prompt(&conversation.tools, &conversation.tool_choice).expect(shown)];
    for message in &conversation.messages {
        texts.push(match message.role {
            Role::Tool => dialect.render_results(std::slice::from_ref(message)).expect(shown),
            _ if !message.tool_calls.is_empty() => dialect.render_calls(&message.tool_calls),
            _ => message.content.clone(),
        });
    }
    texts
}
