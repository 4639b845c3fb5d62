//! A streamed chat completion put together from its chunks, and the verdict on it.
//!
//! Knows OpenAI's chunk format, and no clock.

use super::workload::Expected;
use crate::client::error_name;
use serde::Deserialize;
use serde_json::Value;

/// What a chunk says, as far as it is looked at.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<Value>,
    system_fingerprint: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Debug, Deserialize)]
struct CallDelta {
    #[serde(default)]
    index: usize,
    #[serde(default)]
    function: FunctionDelta,
}

#[derive(Debug, Default, Deserialize)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<String>,
}

/// Token counts as the server reports them.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct Usage {
    #[serde(default)]
    pub(super) prompt_tokens: u64,
    #[serde(default)]
    pub(super) completion_tokens: u64,
    pub(super) prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct PromptDetails {
    cached_tokens: Option<u64>,
}

impl Usage {
    /// Prompt tokens that need not be computed; 0 where the server does not say.
    pub(super) fn cached(&self) -> u64 {
        self.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0)
    }
}

/// What an answer is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Free text.
    Unchecked,
    Valid,
    Invalid(String),
    /// It reached the limit of its tokens.
    Truncated,
}

/// An answer so far.
#[derive(Debug, Default)]
pub(super) struct Answer {
    content: String,
    /// Names and arguments.
    calls: Vec<(String, String)>,
    finish: Option<String>,
    pub(super) usage: Option<Usage>,
    pub(super) fingerprint: Option<String>,
}

/// What a chunk brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Brought {
    /// Text, thoughts, or a part of a call.
    Content,
    /// The answer's end.
    Finish,
    Nothing,
}

impl Answer {
    /// Takes an event's data; the error is what the server says went wrong.
    pub(super) fn take(&mut self, data: &[u8]) -> Result<Brought, String> {
        if data == b"[DONE]" {
            return Ok(Brought::Nothing);
        }
        let chunk: Chunk = serde_json::from_slice(data).map_err(|_| "malformed chunk".to_owned())?;
        if let Some(error) = chunk.error {
            return Err(error_name(&error).unwrap_or_else(|| "error in the stream".to_owned()));
        }
        self.usage = chunk.usage.or(self.usage);
        if self.fingerprint.is_none() {
            self.fingerprint = chunk.system_fingerprint;
        }
        let mut brought = Brought::Nothing;
        for choice in chunk.choices {
            if self.add(choice.delta)? {
                brought = Brought::Content;
            }
            if let Some(reason) = choice.finish_reason {
                self.finish = Some(reason);
                brought = if brought == Brought::Content { brought } else { Brought::Finish };
            }
        }
        Ok(brought)
    }

    /// Whether the piece says anything.
    fn add(&mut self, delta: Delta) -> Result<bool, String> {
        let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let mut says = filled(&delta.content) || filled(&delta.reasoning_content) || filled(&delta.reasoning);
        self.content.push_str(delta.content.as_deref().unwrap_or_default());
        for call in delta.tool_calls.into_iter().flatten() {
            says = true;
            if call.index > self.calls.len() {
                return Err("tool calls out of order".to_owned());
            }
            if call.index == self.calls.len() {
                self.calls.push(Default::default());
            }
            let (name, arguments) = &mut self.calls[call.index];
            name.push_str(call.function.name.as_deref().unwrap_or_default());
            arguments.push_str(call.function.arguments.as_deref().unwrap_or_default());
        }
        Ok(says)
    }

    /// The server has said why the answer ended.
    pub(super) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Checks the answer against its schema.
    pub(super) fn judge(&self, expected: &Expected) -> Verdict {
        let complaint = match expected {
            Expected::Text => return Verdict::Unchecked,
            _ if self.finish.as_deref() == Some("length") => return Verdict::Truncated,
            Expected::Json(cases, index) => breach(&cases[*index].tools[0].arguments, &self.content),
            Expected::Call(cases, index) => {
                let tools = &cases[*index].tools;
                let check = |(name, arguments): &(String, String)| match tools.iter().find(|tool| tool.name == *name) {
                    Some(tool) => breach(&tool.arguments, arguments),
                    None => Some(format!("`{name}` is none of the tools")),
                };
                let none = self.calls.is_empty().then(|| "no call".to_owned());
                none.or_else(|| self.calls.iter().find_map(check))
            }
        };
        complaint.map_or(Verdict::Valid, Verdict::Invalid)
    }
}

/// How a JSON text breaks its schema.
fn breach(schema: &jsonschema::Validator, text: &str) -> Option<String> {
    match serde_json::from_str::<Value>(text) {
        Err(error) => Some(format!("{error} in {text}")),
        Ok(value) => schema.validate(&value).err().map(|error| format!("{error} in {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases;
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn answer(chunks: &[Value]) -> Answer {
        let mut answer = Answer::default();
        for chunk in chunks {
            answer.take(chunk.to_string().as_bytes()).unwrap();
        }
        answer
    }

    fn finished(delta: &Value, reason: &str) -> Answer {
        answer(&[json!({"choices": [{"delta": delta}]}), json!({"choices": [{"delta": {}, "finish_reason": reason}]})])
    }

    #[test]
    fn only_what_says_something_counts_as_content() {
        let mut answer = Answer::default();
        let mut take = |chunk: Value| answer.take(chunk.to_string().as_bytes()).unwrap();
        let delta =
            |delta: Value| json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}], "usage": null});
        assert_eq!(take(delta(json!({"role": "assistant", "content": null}))), Brought::Nothing);
        assert_eq!(take(delta(json!({"role": "assistant", "content": ""}))), Brought::Nothing);
        assert_eq!(take(delta(json!({"reasoning_content": "hm"}))), Brought::Content);
        assert_eq!(take(delta(json!({"content": "a"}))), Brought::Content);
        assert_eq!(take(json!({"choices": [{"delta": {}, "finish_reason": "stop"}]})), Brought::Finish);
        let usage = json!({"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}});
        assert_eq!(take(json!({"choices": [], "usage": usage})), Brought::Nothing);
        let usage = answer.usage.unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.cached()), (7, 2, 3));
        assert!(answer.is_finished());
    }

    #[test]
    fn calls_are_judged_by_name_and_schema() {
        let cases: Arc<[_]> = cases::read(None).unwrap().into();
        let expected = Expected::Call(cases, 0);
        let verdict = |name: &str, arguments: &str, reason: &str| {
            let calls = json!([{"index": 0, "function": {"name": name, "arguments": arguments}}]);
            finished(&json!({"tool_calls": calls}), reason).judge(&expected)
        };
        assert_eq!(verdict("get_local_time", "{\"city\": \"Oslo\"}", "tool_calls"), Verdict::Valid);
        assert_eq!(verdict("get_local_time", "{\"ci", "length"), Verdict::Truncated);
        for (name, arguments) in [("get_local_time", "{\"ci"), ("get_local_time", "{}"), ("get_time", "{}")] {
            assert!(matches!(verdict(name, arguments, "tool_calls"), Verdict::Invalid(_)), "{name} {arguments}");
        }
        let words = finished(&json!({"content": "no"}), "stop").judge(&expected);
        assert_eq!(words, Verdict::Invalid("no call".to_owned()));
    }

    #[test]
    fn an_error_in_the_stream_is_named() {
        let error = |data: &str| Answer::default().take(data.as_bytes()).unwrap_err();
        assert_eq!(error(r#"{"error": {"message": "m", "code": "server_overloaded"}}"#), "server_overloaded");
        assert_eq!(error(r#"{"error": {"message": "m", "code": 500}}"#), "500");
        assert_eq!(error("{"), "malformed chunk");
    }
}
