//! What is asked of a server: the body of each request of a scenario, and what a good answer to it is.
//!
//! Request `n` of a seed is always the same. Knows no HTTP.

use super::cases::Case;
use super::words;
use serde_json::{Value, json};
use std::sync::Arc;

/// Words of a question that follows a shared beginning.
const QUESTION_WORDS: usize = 12;
/// Words that make the prompt of a call its own from the start.
const MARK_WORDS: usize = 4;
/// The stream of random words that prompts share; requests count from 0.
const SHARED: u64 = u64::MAX;

/// What all requests of a run have in common.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub(super) model: String,
    pub(super) max_tokens: u32,
    pub(super) temperature: f32,
    pub(super) seed: u64,
    /// The server takes `ignore_eos`.
    pub(super) ignore_eos: bool,
    /// Words of a long prompt.
    pub(super) words: usize,
    /// A prompt's own words stand at its end.
    pub(super) known_tools: bool,
}

/// The form of a scenario's requests.
#[derive(Debug, Clone)]
pub(super) enum Form {
    Text,
    Prefix,
    /// Spread over these models.
    Models(Vec<String>),
    Call(Arc<[Case]>),
    Schema(Arc<[Case]>),
}

/// The requests of one scenario.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub(super) common: Common,
    pub(super) form: Form,
}

/// One request, and what its answer must be.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) body: Value,
    pub(super) expected: Expected,
}

/// What an answer is checked for. The number is the case's.
#[derive(Debug, Clone)]
pub(super) enum Expected {
    Text,
    Call(Arc<[Case]>, usize),
    Json(Arc<[Case]>, usize),
}

impl Workload {
    /// Request `number`.
    pub(super) fn ask(&self, number: u64) -> Ask {
        let words = |count| words::random(self.common.seed, number, count);
        let mut body = self.common.body(number);
        let expected = match &self.form {
            Form::Text | Form::Models(_) => {
                body["messages"] = json!([user(&words(self.common.words))]);
                Expected::Text
            }
            Form::Prefix => {
                let shared = words::random(self.common.seed, SHARED, self.common.words);
                body["messages"] = json!([{"role": "system", "content": shared}, user(&words(QUESTION_WORDS))]);
                Expected::Text
            }
            Form::Call(cases) => {
                let index = number as usize % cases.len();
                body["messages"] = self.common.marked(&cases[index].question, &words(MARK_WORDS));
                add_call(&mut body, &cases[index]);
                Expected::Call(Arc::clone(cases), index)
            }
            Form::Schema(cases) => {
                let index = number as usize % cases.len();
                let question = format!("{} Answer in JSON.", cases[index].question);
                body["messages"] = self.common.marked(&question, &words(MARK_WORDS));
                add_schema(&mut body, &cases[index]);
                Expected::Json(Arc::clone(cases), index)
            }
        };
        if let Form::Models(names) = &self.form {
            body["model"] = json!(names[number as usize % names.len()]);
        }
        if self.common.ignore_eos && matches!(expected, Expected::Text) {
            body["ignore_eos"] = json!(true);
        }
        Ask { body, expected }
    }
}

impl Common {
    fn body(&self, number: u64) -> Value {
        json!({
            "model": self.model,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed.wrapping_add(number) & u64::from(u32::MAX),
            "stream": true,
            "stream_options": {"include_usage": true},
        })
    }

    /// A question with words of its own: at the start no cache knows the tools after them.
    fn marked(&self, question: &str, mark: &str) -> Value {
        match self.known_tools {
            true => json!([user(&format!("{question} ({mark})"))]),
            false => json!([{"role": "system", "content": format!("Session: {mark}.")}, user(question)]),
        }
    }
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn add_call(body: &mut Value, case: &Case) {
    body["tools"] = case.tools.iter().map(|tool| tool.json.clone()).collect();
    body["tool_choice"] = json!("required");
}

/// The first tool's arguments are asked for as an answer.
fn add_schema(body: &mut Value, case: &Case) {
    let tool = &case.tools[0];
    let schema = json!({"name": tool.name, "schema": tool.parameters()});
    body["response_format"] = json!({"type": "json_schema", "json_schema": schema});
}

#[cfg(test)]
mod tests {
    use super::super::cases;
    use super::*;

    fn workload(form: Form) -> Workload {
        let common = Common {
            model: "base".to_owned(),
            max_tokens: 5,
            temperature: 0.0,
            seed: 1,
            ignore_eos: true,
            words: 20,
            known_tools: false,
        };
        Workload { common, form }
    }

    #[test]
    fn a_request_is_the_same_whenever_it_is_made_and_like_no_other() {
        let cases: Arc<[Case]> = cases::read(None).unwrap().into();
        for form in [Form::Text, Form::Prefix, Form::Call(Arc::clone(&cases)), Form::Schema(cases)] {
            let workload = workload(form);
            assert_eq!(workload.ask(3).body, workload.ask(3).body);
            assert_ne!(workload.ask(3).body["messages"], workload.ask(9).body["messages"]);
        }
    }

    #[test]
    fn prompts_share_a_beginning_where_the_scenario_says_so() {
        let system = |number| workload(Form::Prefix).ask(number).body["messages"][0].clone();
        assert_eq!(system(1), system(2));
        let start =
            |number| workload(Form::Text).ask(number).body["messages"][0]["content"].to_string()[..20].to_owned();
        assert_ne!(start(1), start(2));
    }

    #[test]
    fn known_tools_stand_before_what_is_new() {
        let cases: Arc<[Case]> = cases::read(None).unwrap().into();
        let count = cases.len() as u64;
        let mut workload = workload(Form::Call(cases));
        workload.common.known_tools = true;
        let [first, second] = [0, count].map(|number| workload.ask(number).body["messages"].clone());
        let question =
            |messages: &Value| messages[0]["content"].as_str().unwrap().split_once(" (").unwrap().0.to_owned();
        assert_eq!(question(&first), question(&second));
        assert_ne!(first, second);
    }

    #[test]
    fn models_take_turns_and_only_free_text_runs_past_its_end() {
        let models = workload(Form::Models(vec!["a".to_owned(), "b".to_owned()]));
        let named: Vec<Value> = (0..3).map(|number| models.ask(number).body["model"].clone()).collect();
        assert_eq!(named, ["a", "b", "a"]);
        assert_eq!(models.ask(0).body["ignore_eos"], true);
        let cases: Arc<[Case]> = cases::read(None).unwrap().into();
        assert!(workload(Form::Schema(cases)).ask(0).body.get("ignore_eos").is_none());
    }
}
