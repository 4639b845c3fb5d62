//! Answers as chat completions in OpenAI's JSON: whole, and as stream chunks.
//!
//! Pure formatting: what is said, and when, is decided in `api::generation`.

use super::generation::{Answer, Call, Spoken, SpokenToken, Usage};
use super::wire::ChatRequest;
use super::{ids, scored, unix_seconds};
use crate::chat::dialect::Delta;
use crate::chat::tokenizer::ChatTokenizer;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What every response and chunk of an answer repeats.
pub(super) struct Head {
    pub(super) id: String,
    /// Unix seconds.
    pub(super) created: u64,
    pub(super) model: String,
    /// Names the build and the adapter generation.
    pub(super) fingerprint: String,
}

impl Head {
    pub(super) fn new(prefix: &str, model: &str, answer: &Answer) -> Self {
        Self {
            id: ids::response(prefix),
            created: unix_seconds(),
            model: model.to_owned(),
            fingerprint: format!("callsmith-{}-{}", env!("CARGO_PKG_VERSION"), answer.generation),
        }
    }
}

/// Formats one answer.
pub(super) struct Reply {
    head: Head,
    tokenizer: Arc<ChatTokenizer>,
    /// Alternatives to report with each token, when logprobs are wanted.
    logprobs: Option<usize>,
    return_tokens: bool,
    /// `usage` stands on every chunk (null but for the last).
    pub(super) include_usage: bool,
}

impl Reply {
    pub(super) fn new(request: &ChatRequest, answer: &Answer) -> Self {
        Self {
            head: Head::new("chatcmpl", &request.model, answer),
            tokenizer: Arc::clone(&answer.voice.tokenizer),
            logprobs: request.params.logprobs,
            return_tokens: request.return_tokens,
            include_usage: request.include_usage,
        }
    }

    /// A non-streaming response.
    pub(super) fn completion(&self, answer: &Answer) -> Value {
        let choices: Vec<Value> = (0..answer.choices.len()).map(|index| self.choice(index, answer)).collect();
        json!({
            "id": self.head.id,
            "object": "chat.completion",
            "created": self.head.created,
            "model": self.head.model,
            "choices": choices,
            "usage": usage(answer.usage()),
            "system_fingerprint": self.head.fingerprint,
            "service_tier": "default",
        })
    }

    fn choice(&self, index: usize, answer: &Answer) -> Value {
        let spoken = answer.spoken(index);
        let mut choice = json!({
            "index": index,
            "logprobs": self.logprobs.map(|top| self.logprob_list(&spoken.tokens, top)),
            "message": message(spoken),
            "finish_reason": answer.choices[index].finish.unwrap_or("stop"),
        });
        self.add_tokens(&mut choice, &spoken.tokens);
        choice
    }

    /// The first chunk of a choice.
    pub(super) fn role(&self, index: usize) -> Value {
        self.chunk(index, &json!({"role": "assistant", "content": null}), &[], None)
    }

    /// Something was said.
    pub(super) fn delta(&self, index: usize, delta: &Value, tokens: &[SpokenToken]) -> Value {
        self.chunk(index, delta, tokens, None)
    }

    /// The choice is over; `tokens` are those not yet sent.
    pub(super) fn finish(&self, index: usize, reason: &str, tokens: &[SpokenToken]) -> Value {
        self.chunk(index, &json!({}), tokens, Some(reason))
    }

    /// The last chunk, when asked for.
    pub(super) fn last(&self, total: Usage) -> Value {
        let mut chunk = self.envelope(&[]);
        chunk.insert("usage".to_owned(), usage(total));
        Value::Object(chunk)
    }

    fn chunk(&self, index: usize, delta: &Value, tokens: &[SpokenToken], reason: Option<&str>) -> Value {
        let logprobs = self.logprobs.filter(|_| !tokens.is_empty()).map(|top| self.logprob_list(tokens, top));
        let mut choice = json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason});
        self.add_tokens(&mut choice, tokens);
        let mut chunk = self.envelope(&[choice]);
        if self.include_usage {
            chunk.insert("usage".to_owned(), Value::Null);
        }
        Value::Object(chunk)
    }

    fn envelope(&self, choices: &[Value]) -> Map<String, Value> {
        let head = &self.head;
        let mut map = Map::new();
        map.insert("id".to_owned(), json!(head.id));
        map.insert("object".to_owned(), json!("chat.completion.chunk"));
        map.insert("created".to_owned(), json!(head.created));
        map.insert("model".to_owned(), json!(head.model));
        map.insert("system_fingerprint".to_owned(), json!(head.fingerprint));
        map.insert("choices".to_owned(), json!(choices));
        map
    }

    fn logprob_list(&self, tokens: &[SpokenToken], top: usize) -> Value {
        let entries: Vec<Value> = tokens.iter().map(|token| scored::entry(&self.tokenizer, token, top)).collect();
        json!({"content": entries, "refusal": null})
    }

    fn add_tokens(&self, choice: &mut Value, tokens: &[SpokenToken]) {
        if self.return_tokens {
            choice["tokens"] = tokens.iter().map(|token| scored::shown(&self.tokenizer, token)).collect();
        }
    }
}

/// OpenAI's `usage` of a completion.
pub(super) fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.thoughts},
    })
}

fn message(spoken: &Spoken) -> Value {
    let content = if spoken.content.is_empty() && !spoken.calls.is_empty() { None } else { Some(&spoken.content) };
    let mut message = json!({"role": "assistant", "content": content, "refusal": null});
    if !spoken.thoughts.is_empty() {
        message["reasoning_content"] = json!(spoken.thoughts);
    }
    if !spoken.calls.is_empty() {
        message["tool_calls"] = spoken.calls.iter().map(call).collect();
    }
    message
}

fn call(call: &Call) -> Value {
    json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
}

/// The `delta` object of one piece; `calls` are the choice's calls so far. A call's end says nothing on the wire.
pub(super) fn delta(piece: &Delta, calls: &[Call]) -> Option<Value> {
    match piece {
        Delta::Thought(text) => Some(json!({"reasoning_content": text})),
        Delta::Text(text) => Some(json!({"content": text})),
        Delta::CallStart { index, name } => {
            let id = calls.get(*index).map(|call| call.id.as_str());
            let function = json!({"name": name, "arguments": ""});
            Some(json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}))
        }
        Delta::CallArguments { index, fragment } => {
            Some(json!({"tool_calls": [{"index": index, "function": {"arguments": fragment}}]}))
        }
        Delta::CallEnd { .. } => None,
    }
}
