//! Reads a stream the way the OpenAI SDK does, and checks the rules that SDKs rely on.

use serde_json::{Map, Value, json};

/// The events of one stream.
#[derive(Debug, Clone)]
pub(crate) struct Transcript {
    pub(crate) chunks: Vec<Value>,
    /// `[DONE]` came last.
    pub(crate) done: bool,
}

impl Transcript {
    pub(crate) fn read(text: &str) -> Self {
        assert!(text.ends_with("\n\n"), "torn: {text}");
        let mut events: Vec<&str> = text.trim_end().split("\n\n").collect();
        let done = events.last() == Some(&"data: [DONE]");
        events.truncate(events.len() - usize::from(done));
        let chunks = events.iter().map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap());
        Self { chunks: chunks.collect(), done }
    }

    /// The chunks that carry something for one choice, in order.
    pub(crate) fn choice_chunks(&self, index: usize) -> Vec<&Value> {
        let choices = self.chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
        choices.filter(|choice| choice["index"] == json!(index)).collect()
    }

    /// The message that an SDK puts together: strings are joined, except under `index` and `type`.
    pub(crate) fn message(&self, index: usize) -> Value {
        let mut message = json!({});
        for chunk in self.choice_chunks(index) {
            accumulate(&mut message, &chunk["delta"]);
        }
        message
    }

    pub(crate) fn finish_reason(&self, index: usize) -> Value {
        let reasons: Vec<&Value> =
            self.choice_chunks(index).iter().map(|chunk| &chunk["finish_reason"]).filter(|r| !r.is_null()).collect();
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        reasons[0].clone()
    }

    pub(crate) fn logprobs(&self, index: usize) -> Vec<Value> {
        let lists = self.choice_chunks(index).into_iter().filter_map(|chunk| chunk["logprobs"]["content"].as_array());
        lists.flatten().cloned().collect()
    }

    /// The usage chunk, which is the last and has no choice.
    pub(crate) fn usage(&self) -> Value {
        let (last, rest) = self.chunks.split_last().unwrap();
        assert_eq!(last["choices"], json!([]));
        assert!(
            rest.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()),
            "usage before the end"
        );
        last["usage"].clone()
    }
}

/// openai-python's `accumulate_delta`.
fn accumulate(into: &mut Value, delta: &Value) {
    let (Value::Object(into), Value::Object(delta)) = (into, delta) else { panic!("a delta is an object") };
    for (key, value) in delta {
        match (into.get_mut(key), value) {
            (None | Some(Value::Null), value) => drop(into.insert(key.clone(), with_indexed_entries(value))),
            (Some(_), Value::Null) => {}
            (Some(Value::String(text)), Value::String(more)) if key != "type" => text.push_str(more),
            (Some(old @ Value::Object(_)), Value::Object(_)) => accumulate(old, value),
            (Some(Value::Array(list)), Value::Array(entries)) => {
                entries.iter().for_each(|entry| accumulate_entry(list, entry))
            }
            (Some(old), value) => *old = value.clone(),
        }
    }
}

fn with_indexed_entries(value: &Value) -> Value {
    let Value::Array(entries) = value else { return value.clone() };
    let mut list = Vec::new();
    entries.iter().for_each(|entry| accumulate_entry(&mut list, entry));
    Value::Array(list)
}

fn accumulate_entry(list: &mut Vec<Value>, entry: &Value) {
    let index = entry["index"].as_u64().expect("an entry has an index") as usize;
    assert!(index <= list.len(), "indexes are contiguous");
    if index == list.len() {
        list.push(Value::Object(Map::new()));
    }
    accumulate(&mut list[index], entry);
}
