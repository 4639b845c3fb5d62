//! The tokenizer directory of a run whose recipe changes the base's: new tokens, another chat template.
//!
//! It is written when the run begins. All that the run, its resumption and its export need is read from there, so that a file
//! that changes meanwhile changes nothing of what is trained.

use crate::atomic;
use crate::checkpoint;
use crate::error::{Result, TrainError};
use crate::model_dir::{self, CHAT_TEMPLATE};
use crate::monitor;
use crate::new_tokens::NewTokens;
use crate::recipe::Recipe;
use callsmith::chat::dialect::DialectChoice;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// As the server reads an adapter's.
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;

/// Writes the directory, unless the run began before: its checkpoints go with the one that is there.
///
/// # Errors
/// When files cannot be read or written, a new token cannot be added, or the chat template is no text.
pub fn prepare(recipe: &Recipe) -> Result<()> {
    if !recipe.has_own_tokenizer() {
        return Ok(());
    }
    if checkpoint::list(&recipe.output)?.is_empty() || !recipe.full_tokenizer_dir()?.exists() {
        return write(recipe);
    }
    if let Some(file) = &recipe.model.chat_template
        && given(recipe, file).is_ok_and(|now| template(recipe).is_ok_and(|copy| copy != now))
    {
        monitor::note(&format!("{} has changed; the run goes on with the copy that it began with", file.display()));
    }
    Ok(())
}

/// The chat template in the run's own directory.
///
/// # Errors
/// When it cannot be read.
pub fn template(recipe: &Recipe) -> Result<String> {
    read(&recipe.full_tokenizer_dir()?.join(CHAT_TEMPLATE))
}

fn write(recipe: &Recipe) -> Result<()> {
    let from = recipe.tokenizer_dir()?;
    let tokens = NewTokens::of(recipe)?.map(|tokens| tokens.tokenizer_json()).transpose()?;
    let template = recipe.model.chat_template.as_deref().map(|file| given(recipe, file)).transpose()?;
    atomic::directory(&recipe.full_tokenizer_dir()?, |dir| {
        model_dir::copy_tokenizer(from, dir)?;
        // Of some models nothing else says which token ends a turn.
        model_dir::copy_file(from, dir, "config.json")?;
        let changed = [("tokenizer.json", tokens), (CHAT_TEMPLATE, template)];
        let mut changed = changed.iter().filter_map(|(name, text)| Some((name, text.as_ref()?)));
        changed.try_for_each(|(name, text)| atomic::file(&dir.join(name), text.as_bytes()))
    })
}

/// The recipe's chat template. It says itself which dialect the recipe names, for whoever serves what is exported.
fn given(recipe: &Recipe, file: &Path) -> Result<String> {
    let text = read(file)?;
    let Some(name) = &recipe.model.dialect else { return Ok(text) };
    let seen = DialectChoice { name: None, ..recipe.model.dialect() }.resolve(Some(&text));
    match seen.is_ok_and(|dialect| dialect.name() == name) {
        true => Ok(text),
        false => Ok(format!("{{# dialect: {name} #}}{text}")),
    }
}

fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(TrainError::io(path))?;
    file.take(MAX_TEMPLATE_BYTES + 1).read_to_end(&mut bytes).map_err(TrainError::io(path))?;
    if bytes.len() as u64 > MAX_TEMPLATE_BYTES {
        return Err(TrainError::input(
            path,
            format!("is larger than {MAX_TEMPLATE_BYTES} bytes; give a chat template"),
        ));
    }
    String::from_utf8(bytes).map_err(|_| TrainError::input(path, "is not UTF-8; give a chat template in Jinja"))
}
