//! One loaded version of an adapter, and what is told of it. Knows no files and no names but its own.

use crate::model::AdapterWeights;
use std::path::PathBuf;
use std::sync::Arc;

/// One loaded version of an adapter; never changes after publication.
#[derive(Debug)]
pub struct Generation {
    pub name: String,
    /// First 16 hexadecimal digits of the content digest: identical files give the identical generation.
    pub id: String,
    /// Largest of any layer; 0 of a soft prompt.
    pub rank: usize,
    pub bytes: usize,
    pub path: PathBuf,
    /// How it shows conversations, where that is not as its base does.
    pub chat_template: Option<Arc<str>>,
    /// Unix seconds of publication.
    pub created: u64,
    pub weights: Arc<AdapterWeights>,
}

/// What is told of a generation.
#[derive(Debug, Clone)]
pub struct Card {
    pub name: String,
    pub id: String,
    pub path: PathBuf,
    /// How it shows conversations, where that is not as its base does.
    pub chat_template: Option<Arc<str>>,
    /// Unix seconds of publication.
    pub created: u64,
    /// Tokens of the context that a soft prompt takes.
    pub virtual_tokens: usize,
}

impl Generation {
    /// By which method it was trained, in words for operators.
    pub fn kind(&self) -> &'static str {
        if self.weights.virtual_tokens() > 0 { "soft prompt" } else { "lora" }
    }

    pub(super) fn card(&self) -> Card {
        Card {
            name: self.name.clone(),
            id: self.id.clone(),
            path: self.path.clone(),
            chat_template: self.chat_template.clone(),
            created: self.created,
            virtual_tokens: self.weights.virtual_tokens(),
        }
    }
}

/// Pins a generation until dropped.
pub type Lease = Arc<Generation>;
