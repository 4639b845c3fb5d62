//! Answers in OpenAI's JSON: whole completions and stream chunks.
//!
//! Pure formatting: what is said, and when, is decided in `api::answer`.

use crate::chat::dialect::Delta;
use serde_json::{Map, Value, json};

/// What every chunk of an answer repeats.
#[derive(Debug, Clone)]
pub(in crate::api) struct Head {
    pub(in crate::api) id: String,
    /// Unix seconds.
    pub(in crate::api) created: u64,
    pub(in crate::api) model: String,
    /// Names the build and the adapter generation.
    pub(in crate::api) fingerprint: String,
}

/// One answer as far as it has been generated.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::api) struct Spoken {
    /// Thoughts before the answer, and how many tokens they took.
    pub(in crate::api) thoughts: String,
    pub(in crate::api) thought_tokens: usize,
    pub(in crate::api) content: String,
    pub(in crate::api) calls: Vec<Call>,
    /// OpenAI's entries, in order.
    pub(in crate::api) logprobs: Vec<Value>,
}

/// A call in an answer.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::api) struct Call {
    pub(in crate::api) id: String,
    pub(in crate::api) name: String,
    pub(in crate::api) arguments: String,
    /// The arguments are whole.
    pub(in crate::api) complete: bool,
}

/// Tokens read and written for a request.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::api) struct Usage {
    pub(in crate::api) prompt: usize,
    pub(in crate::api) completion: usize,
    /// Of the tokens written, those of thoughts.
    pub(in crate::api) thoughts: usize,
}

impl Usage {
    fn json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": self.thoughts},
        })
    }
}

/// A non-streaming response.
pub(in crate::api) fn completion(head: &Head, choices: &[Value], usage: Usage) -> Value {
    json!({
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "choices": choices,
        "usage": usage.json(),
        "system_fingerprint": head.fingerprint,
        "service_tier": "default",
    })
}

/// One choice of a non-streaming response; `logprobs` says whether they were asked for.
pub(in crate::api) fn choice(index: usize, spoken: &Spoken, finish_reason: &str, logprobs: bool) -> Value {
    json!({
        "index": index,
        "logprobs": logprobs.then(|| logprob_list(&spoken.logprobs)),
        "message": message(spoken),
        "finish_reason": finish_reason,
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

fn logprob_list(entries: &[Value]) -> Value {
    json!({"content": entries, "refusal": null})
}

/// A stream's chunks.
#[derive(Debug, Clone)]
pub(in crate::api) struct Chunks {
    pub(in crate::api) head: Head,
    /// `usage` stands on every chunk (null but for the last).
    pub(in crate::api) include_usage: bool,
}

impl Chunks {
    /// The first chunk of a choice.
    pub(in crate::api) fn role(&self, index: usize) -> Value {
        self.chunk(index, &json!({"role": "assistant", "content": null}), &[], None)
    }

    /// Something was said.
    pub(in crate::api) fn delta(&self, index: usize, delta: &Value, logprobs: &[Value]) -> Value {
        self.chunk(index, delta, logprobs, None)
    }

    /// The choice is over; `logprobs` are those not yet sent.
    pub(in crate::api) fn finish(&self, index: usize, reason: &str, logprobs: &[Value]) -> Value {
        self.chunk(index, &json!({}), logprobs, Some(reason))
    }

    /// The last chunk, when asked for.
    pub(in crate::api) fn usage(&self, usage: Usage) -> Value {
        let mut chunk = self.envelope(&[]);
        chunk.insert("usage".to_owned(), usage.json());
        Value::Object(chunk)
    }

    fn chunk(&self, index: usize, delta: &Value, logprobs: &[Value], reason: Option<&str>) -> Value {
        let logprobs = (!logprobs.is_empty()).then(|| logprob_list(logprobs));
        let choice = json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason});
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
}

/// The `delta` object of one piece; `calls` are the choice's calls so far. A call's end says nothing on the wire.
pub(in crate::api) fn delta(piece: &Delta, calls: &[Call]) -> Option<Value> {
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
