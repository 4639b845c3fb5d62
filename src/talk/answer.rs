//! A streamed answer: its pieces as they come, and the whole as the message that goes into the conversation.
//!
//! Knows OpenAI's chunk format; shows nothing.

use serde_json::{Value, json};

/// What a chunk adds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Thought(String),
    Text(String),
    /// A call begins.
    Call(String),
    Arguments(String),
}

/// A call as far as it is written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) name: String,
    /// JSON text.
    pub(super) arguments: String,
}

/// An answer so far.
#[derive(Debug, Default)]
pub(super) struct Answer {
    content: String,
    pub(super) calls: Vec<Call>,
    /// Why it ended.
    pub(super) finish: Option<String>,
}

impl Answer {
    /// Takes an event's data; the error is what the server says went wrong, or that it makes no sense.
    pub(super) fn take(&mut self, data: &[u8]) -> Result<Vec<Piece>, String> {
        if data == b"[DONE]" {
            return Ok(Vec::new());
        }
        let chunk: Value = serde_json::from_slice(data).map_err(|error| format!("a chunk that is no JSON: {error}"))?;
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            return Err(error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned));
        }
        let choice = &chunk["choices"][0];
        self.finish = choice["finish_reason"].as_str().map(str::to_owned).or(self.finish.take());
        let delta = &choice["delta"];
        let text = |key: &str| delta[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let mut pieces = Vec::new();
        pieces.extend(text("reasoning_content").or_else(|| text("reasoning")).map(Piece::Thought));
        if let Some(text) = text("content") {
            self.content.push_str(&text);
            pieces.push(Piece::Text(text));
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.call(call, &mut pieces)?;
        }
        Ok(pieces)
    }

    fn call(&mut self, delta: &Value, pieces: &mut Vec<Piece>) -> Result<(), String> {
        // Some servers send each call whole and leave the index out.
        let index = delta["index"].as_u64().map_or(self.calls.len(), |index| index as usize);
        if index > self.calls.len() {
            return Err("calls out of order".to_owned());
        }
        let (function, begins) = (&delta["function"], index == self.calls.len());
        if begins {
            let id = delta["id"].as_str().filter(|id| !id.is_empty());
            let id = id.map_or_else(|| format!("call_{index}"), str::to_owned);
            let name = function["name"].as_str().unwrap_or_default().to_owned();
            pieces.push(Piece::Call(name.clone()));
            self.calls.push(Call { id, name, arguments: String::new() });
        }
        if let Some(more) = function["arguments"].as_str().filter(|more| !more.is_empty()) {
            self.calls[index].arguments.push_str(more);
            pieces.push(Piece::Arguments(more.to_owned()));
        }
        Ok(())
    }

    /// The message as the next request has it.
    pub(super) fn message(&self) -> Value {
        let content = if self.content.is_empty() && !self.calls.is_empty() { Value::Null } else { json!(self.content) };
        let mut message = json!({"role": "assistant", "content": content});
        if !self.calls.is_empty() {
            let call = |call: &Call| {
                let function = json!({"name": call.name, "arguments": call.arguments});
                json!({"id": call.id, "type": "function", "function": function})
            };
            message["tool_calls"] = self.calls.iter().map(call).collect();
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(answer: &mut Answer, delta: &Value) -> Vec<Piece> {
        answer.take(json!({"choices": [{"delta": delta}]}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn calls_are_put_together_from_their_pieces() {
        let mut answer = Answer::default();
        let start = json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]});
        assert_eq!(take(&mut answer, &start), [Piece::Call("f".into())]);
        let more = |index, text| json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]});
        assert_eq!(take(&mut answer, &more(0, "{\"x\"")), [Piece::Arguments("{\"x\"".into())]);
        take(&mut answer, &more(0, ":1}"));
        take(&mut answer, &json!({"tool_calls": [{"index": 1, "function": {"name": "g", "arguments": "{}"}}]}));
        let message = answer.message();
        assert_eq!(message["content"], Value::Null);
        assert_eq!(message["tool_calls"][0]["function"], json!({"name": "f", "arguments": "{\"x\":1}"}));
        assert_eq!(message["tool_calls"][1]["id"], "call_1");
    }

    #[test]
    fn thoughts_are_shown_and_not_said_again() {
        let mut answer = Answer::default();
        let pieces = take(&mut answer, &json!({"reasoning_content": "hm", "content": "Hello"}));
        assert_eq!(pieces, [Piece::Thought("hm".into()), Piece::Text("Hello".into())]);
        assert_eq!(answer.message(), json!({"role": "assistant", "content": "Hello"}));
    }

    #[test]
    fn what_goes_wrong_is_told_in_the_servers_words() {
        let mut answer = Answer::default();
        assert_eq!(answer.take(br#"{"error": {"message": "full"}}"#), Err("full".to_owned()));
        assert!(answer.take(b"{").unwrap_err().contains("no JSON"));
        assert_eq!(take(&mut answer, &json!({})), []);
        let ahead = json!({"choices": [{"delta": {"tool_calls": [{"index": 3}]}}]}).to_string();
        assert_eq!(answer.take(ahead.as_bytes()), Err("calls out of order".to_owned()));
    }

    #[test]
    fn the_reason_of_the_end_stays() {
        let mut answer = Answer::default();
        answer.take(br#"{"choices": [{"delta": {}, "finish_reason": "stop"}]}"#).unwrap();
        answer.take(br#"{"choices": [], "usage": {}}"#).unwrap();
        assert_eq!(answer.take(b"[DONE]"), Ok(Vec::new()));
        assert_eq!(answer.finish.as_deref(), Some("stop"));
    }
}
