//! A warm-up task over random words: functions without arguments, each described by key words among noise, and requests
//! that say the key words of one of them among other noise. Recall has to form before a function can be chosen.
//!
//! Rendered as any conversation is, so that what forms here serves real text. With no noise it is learnt in minutes,
//! with much noise from the start not at all: noise, keys and pool grow with the progress of the phase.

use super::copy::{check_pool, grown, grown_pool};
use super::encode::{Encoder, Weights};
use super::source::Source;
use super::{Example, Tag};
use crate::error::Result;
use crate::random;
use crate::recipe::RecallSection;
use callsmith::chat::{Conversation, Message, Role, Tool, ToolCall, ToolChoice};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::sync::Arc;

/// Requests for each function on offer: one declaration block serves many.
const REQUESTS_PER_FUNCTION: usize = 4;

/// Random functions and requests for them.
pub struct Recall {
    settings: RecallSection,
    words: Vec<String>,
    encoder: Arc<Encoder>,
    weights: Weights,
    seed: u64,
}

/// A function: the words that find it, and those of its name.
struct Function {
    key: Vec<String>,
    name: Vec<String>,
}

impl Recall {
    /// `tokens` are the ids of ordinary tokens in the order in which pools take them.
    pub fn new(
        settings: RecallSection,
        tokens: &[u32],
        encoder: Arc<Encoder>,
        weights: Weights,
        seed: u64,
    ) -> Result<Self> {
        let words: Vec<String> = tokens.iter().filter_map(|&id| word(encoder.tokenizer.token_bytes(id))).collect();
        check_pool("recall.pool", settings.pool, words.len())?;
        Ok(Self { settings, words, encoder, weights, seed })
    }

    /// First words of keys and of names differ. Noise may still say another function's key, seldom in a large pool.
    fn functions(&self, rng: &mut ChaCha8Rng, pool: &[String], progress: f64) -> Vec<Function> {
        let RecallSection { functions, key_words, name_words, grow, .. } = self.settings;
        let count = rng.random_range(functions[0]..=grown(functions, progress, grow)).min(pool.len() / 2);
        let mut heads: Vec<&String> = pool.iter().collect();
        let (heads, _) = heads.partial_shuffle(rng, 2 * count);
        let mut string = |head: &String, most: usize| {
            let more = rng.random_range(1..=most) - 1;
            let mut words = draw(rng, pool, more);
            words.insert(0, head.clone());
            words
        };
        let mut function = |heads: &[&String]| Function {
            key: string(heads[0], grown(key_words, progress, grow)),
            name: string(heads[1], grown(name_words, progress, grow)),
        };
        heads.chunks(2).map(&mut function).collect()
    }

    fn conversation(&self, rng: &mut ChaCha8Rng, progress: f64) -> Conversation {
        let RecallSection { pool, noise, grow, .. } = self.settings;
        let pool = &self.words[..grown_pool(pool, progress, grow)];
        let noise = grown(noise, progress, grow);
        let functions = self.functions(rng, pool, progress);
        let tools = functions.iter().map(|one| tool(one, among_noise(rng, pool, noise, &one.key))).collect();
        let mut messages = Vec::new();
        for _ in 0..REQUESTS_PER_FUNCTION * functions.len() {
            let asked = &functions[rng.random_range(0..functions.len())];
            messages.push(Message::text(Role::User, among_noise(rng, pool, noise, &asked.key)));
            messages.push(call(asked));
        }
        Conversation { messages, tools, tool_choice: ToolChoice::Auto, parallel_tool_calls: true }
    }
}

/// The text of a token that is a word of small letters.
fn word(bytes: &[u8]) -> Option<String> {
    let fits = bytes.len() > 1 && bytes.iter().all(u8::is_ascii_lowercase);
    fits.then(|| String::from_utf8_lossy(bytes).into_owned())
}

fn draw(rng: &mut ChaCha8Rng, pool: &[String], count: usize) -> Vec<String> {
    (0..count).map(|_| pool[rng.random_range(0..pool.len())].clone()).collect()
}

/// The key words and up to `most` others, in any order.
fn among_noise(rng: &mut ChaCha8Rng, pool: &[String], most: usize, key: &[String]) -> String {
    let count = rng.random_range(0..=most);
    let mut words = [key.to_vec(), draw(rng, pool, count)].concat();
    words.shuffle(rng);
    words.join(" ")
}

fn tool(function: &Function, description: String) -> Tool {
    Tool { name: function.name.join("_"), description: Some(description), parameters: None, strict: false }
}

fn call(function: &Function) -> Message {
    let call = ToolCall { id: String::new(), name: function.name.join("_"), arguments: json!({}) };
    Message { tool_calls: vec![call], ..Message::text(Role::Assistant, "") }
}

impl Source for Recall {
    fn sample(&self, index: u64, progress: f64) -> Result<Example> {
        let rng = &mut random::stream(self.seed, "recall", index);
        let mut example = self.encoder.example(&self.conversation(rng, progress), self.weights)?;
        for tag in example.tags.iter_mut().filter(|tag| **tag == Tag::Name) {
            *tag = Tag::Found;
        }
        Ok(example)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::copy::shuffled;
    use callsmith::chat::dialect::DialectChoice;
    use std::path::Path;

    fn recall(settings: RecallSection) -> Result<Recall> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/embedded");
        let encoder = Arc::new(Encoder::load(&dir, &DialectChoice::default(), 4096).unwrap());
        Recall::new(settings, &shuffled((0..4096).collect(), 1), encoder, Weights::default(), 7)
    }

    fn settings() -> RecallSection {
        RecallSection {
            pool: [40, 400],
            functions: [2, 4],
            noise: [0, 6],
            key_words: [1, 2],
            name_words: [1, 3],
            grow: 0.5,
        }
    }

    /// Of each request: the functions whose description shares a word with it, and the one that is called.
    fn found(conversation: &Conversation) -> Vec<(Vec<&str>, &str)> {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let sharing = |request: &Message| {
            let request = words(&request.content);
            let shares = |tool: &&Tool| words(tool.description.as_deref().unwrap()).iter().any(|w| request.contains(w));
            conversation.tools.iter().filter(shares).map(|tool| tool.name.as_str()).collect()
        };
        let turns = conversation.messages.chunks(2);
        turns.map(|turn| (sharing(&turn[0]), turn[1].tool_calls[0].name.as_str())).collect()
    }

    #[test]
    fn the_called_function_shares_a_word_with_the_request_and_without_noise_no_other_does() {
        let recall = recall(settings()).unwrap();
        for index in 0..30 {
            let noisy = recall.conversation(&mut random::stream(7, "test", index), 1.0);
            assert!(found(&noisy).iter().all(|(sharing, called)| sharing.contains(called)));
            let plain = recall.conversation(&mut random::stream(7, "test", index), 0.0);
            assert!(found(&plain).iter().all(|(sharing, called)| sharing == &[*called]));
        }
    }

    #[test]
    fn every_name_is_measured_as_found_and_trained() {
        let recall = recall(settings()).unwrap();
        let conversation = recall.conversation(&mut random::stream(7, "recall", 3), 0.7);
        let example = recall.sample(3, 0.7).unwrap();
        let tagged: Vec<usize> = (0..example.tags.len()).filter(|&at| example.tags[at] == Tag::Found).collect();
        assert_eq!(tagged.len(), conversation.messages.len() / 2);
        assert!(tagged.iter().all(|&at| example.weights[at] > 0.0));
        assert!(!example.tags.contains(&Tag::Name));
    }

    #[test]
    fn a_pool_larger_than_the_words_of_the_tokenizer_is_refused() {
        let message = recall(RecallSection { pool: [40, 4000], ..settings() }).err().unwrap().to_string();
        assert!(message.contains("recall.pool"), "{message}");
    }
}
