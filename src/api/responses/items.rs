//! The output items of one answer, and the events that tell how they come about.
//!
//! The only accumulator: streams send the events, whole responses drop them and keep the items.

use crate::api::generation::{Call, Spoken};
use crate::api::ids;
use crate::chat::dialect::Delta;
use serde_json::{Value, json};

/// An event's type and the rest of its fields.
pub(super) type Event = (&'static str, Value);

/// The items so far; the last may still be open.
#[derive(Default)]
pub(super) struct Items {
    items: Vec<Value>,
    open: Option<Open>,
}

/// What is being written.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    Thoughts,
    Text,
    Call,
}

impl Items {
    /// Takes a piece of the answer. `logprobs` are the entries of its tokens.
    pub(super) fn push(&mut self, delta: &Delta, spoken: &Spoken, logprobs: &[Value]) -> Vec<Event> {
        match delta {
            Delta::Thought(text) => self.text(Open::Thoughts, text, &[]),
            Delta::Text(text) => self.text(Open::Text, text, logprobs),
            Delta::CallStart { index, .. } => spoken.calls.get(*index).map(|call| self.call(call)).unwrap_or_default(),
            Delta::CallArguments { fragment, .. } => vec![self.arguments(fragment)],
            Delta::CallEnd { .. } => self.close("completed"),
        }
    }

    /// The answer is over: closes what is open. An answer of nothing is a message of nothing.
    /// `logprobs` are the entries of tokens that showed nothing.
    pub(super) fn finish(&mut self, status: &str, logprobs: &[Value]) -> Vec<Event> {
        let empty = self.items.is_empty();
        let mut events = if empty { self.open(Open::Text, message()) } else { Vec::new() };
        if self.open == Some(Open::Text) {
            self.add_logprobs(logprobs);
        }
        events.extend(self.close(status));
        events
    }

    /// The items as a response shows them.
    pub(super) fn output(&self) -> Value {
        Value::Array(self.items.clone())
    }

    fn text(&mut self, kind: Open, text: &str, logprobs: &[Value]) -> Vec<Event> {
        let mut events = Vec::new();
        if self.open != Some(kind) {
            events.extend(self.close("completed"));
            events.extend(self.open(kind, if kind == Open::Text { message() } else { thoughts() }));
        }
        if let Value::String(whole) = &mut self.current()["content"][0]["text"] {
            whole.push_str(text);
        }
        let mut delta = json!({"delta": text, "content_index": 0});
        if kind == Open::Text {
            delta["logprobs"] = logprobs.into();
            self.add_logprobs(logprobs);
            events.push(self.event("response.output_text.delta", delta));
        } else {
            events.push(self.event("response.reasoning_text.delta", delta));
        }
        events
    }

    fn add_logprobs(&mut self, entries: &[Value]) {
        if let Value::Array(all) = &mut self.current()["content"][0]["logprobs"] {
            all.extend_from_slice(entries);
        }
    }

    fn call(&mut self, call: &Call) -> Vec<Event> {
        let mut events = self.close("completed");
        let item = json!({
            "id": ids::item("fc"), "type": "function_call", "status": "in_progress",
            "call_id": call.id, "name": call.name, "arguments": "",
        });
        events.extend(self.open(Open::Call, item));
        events
    }

    fn arguments(&mut self, fragment: &str) -> Event {
        if let Value::String(whole) = &mut self.current()["arguments"] {
            whole.push_str(fragment);
        }
        self.event("response.function_call_arguments.delta", json!({"delta": fragment}))
    }

    fn open(&mut self, kind: Open, mut item: Value) -> Vec<Event> {
        self.open = Some(kind);
        let part = item["content"][0].clone();
        // The item is announced without what will be in it.
        let announced = if kind == Open::Call { item.clone() } else { without_content(&mut item) };
        self.items.push(item);
        let added = ("response.output_item.added", json!({"output_index": self.index(), "item": announced}));
        let mut events = vec![added];
        if kind != Open::Call {
            events.push(self.event("response.content_part.added", json!({"content_index": 0, "part": part})));
        }
        events
    }

    /// Ends the open item, if there is one.
    fn close(&mut self, status: &str) -> Vec<Event> {
        let Some(kind) = self.open.take() else { return Vec::new() };
        self.current()["status"] = status.into();
        let item = self.current().clone();
        let part = &item["content"][0];
        let mut events = match kind {
            Open::Call => {
                let done = json!({"name": item["name"], "arguments": item["arguments"]});
                vec![self.event("response.function_call_arguments.done", done)]
            }
            Open::Text => {
                let done = json!({"content_index": 0, "text": part["text"], "logprobs": part["logprobs"]});
                vec![self.event("response.output_text.done", done), self.part_done(part)]
            }
            Open::Thoughts => {
                let done = json!({"content_index": 0, "text": part["text"]});
                vec![self.event("response.reasoning_text.done", done), self.part_done(part)]
            }
        };
        events.push(("response.output_item.done", json!({"output_index": self.index(), "item": item})));
        events
    }

    fn part_done(&self, part: &Value) -> Event {
        self.event("response.content_part.done", json!({"content_index": 0, "part": part}))
    }

    /// An event about the last item.
    fn event(&self, name: &'static str, mut fields: Value) -> Event {
        fields["item_id"] = self.items.last().map_or(Value::Null, |item| item["id"].clone());
        fields["output_index"] = self.index().into();
        (name, fields)
    }

    fn index(&self) -> usize {
        self.items.len().saturating_sub(1)
    }

    fn current(&mut self) -> &mut Value {
        if self.items.is_empty() {
            self.items.push(Value::Null);
        }
        let last = self.items.len() - 1;
        &mut self.items[last]
    }
}

fn message() -> Value {
    json!({
        "id": ids::item("msg"), "type": "message", "role": "assistant", "status": "in_progress",
        "content": [{"type": "output_text", "text": "", "annotations": [], "logprobs": []}],
    })
}

fn thoughts() -> Value {
    json!({
        "id": ids::item("rs"), "type": "reasoning", "status": "in_progress", "summary": [],
        "content": [{"type": "reasoning_text", "text": ""}],
    })
}

fn without_content(item: &mut Value) -> Value {
    let content = item["content"].take();
    let mut bare = item.clone();
    bare["content"] = json!([]);
    item["content"] = content;
    bare
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken() -> Spoken {
        let call = Call { id: "call_1".into(), name: "f".into(), arguments: String::new(), complete: false };
        Spoken { calls: vec![call], ..Spoken::default() }
    }

    fn names(events: &[Event]) -> Vec<&str> {
        events.iter().map(|(name, _)| name.strip_prefix("response.").unwrap()).collect()
    }

    #[test]
    fn each_kind_of_item_opens_and_closes_in_openais_order() {
        let (mut items, spoken) = (Items::default(), spoken());
        let mut events = Vec::new();
        let deltas = [
            Delta::Thought("hm".into()),
            Delta::Text("I ".into()),
            Delta::Text("call".into()),
            Delta::CallStart { index: 0, name: "f".into() },
            Delta::CallArguments { index: 0, fragment: "{}".into() },
            Delta::CallEnd { index: 0 },
        ];
        deltas.iter().for_each(|delta| events.extend(items.push(delta, &spoken, &[])));
        events.extend(items.finish("completed", &[]));
        assert_eq!(
            names(&events),
            [
                "output_item.added",
                "content_part.added",
                "reasoning_text.delta",
                "reasoning_text.done",
                "content_part.done",
                "output_item.done",
                "output_item.added",
                "content_part.added",
                "output_text.delta",
                "output_text.delta",
                "output_text.done",
                "content_part.done",
                "output_item.done",
                "output_item.added",
                "function_call_arguments.delta",
                "function_call_arguments.done",
                "output_item.done",
            ]
        );
        let output = items.output();
        assert_eq!(output[1]["content"][0]["text"], "I call");
        assert_eq!((&output[2]["arguments"], &output[2]["status"]), (&json!("{}"), &json!("completed")));
        assert_eq!(events[6].1["item"]["content"], json!([]));
        assert_eq!(events.last().unwrap().1["output_index"], 2);
    }

    #[test]
    fn an_answer_of_nothing_is_an_empty_message_and_a_cut_item_is_incomplete() {
        let mut items = Items::default();
        items.finish("completed", &[]);
        assert_eq!(items.output()[0]["content"][0]["text"], "");
        let mut items = Items::default();
        items.push(&Delta::CallStart { index: 0, name: "f".into() }, &spoken(), &[]);
        assert_eq!(names(&items.finish("incomplete", &[])), ["function_call_arguments.done", "output_item.done"]);
        assert_eq!(items.output()[0]["status"], "incomplete");
    }
}
