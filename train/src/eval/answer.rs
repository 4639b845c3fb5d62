//! Asking for one assistant turn as the server does it: its prompt, its grammar, its engine and its parser.
//!
//! Knows neither what is wanted of a turn nor where the weights come from.

use super::score::Call;
use crate::dataset::encode::Encoder;
use crate::error::{Result, TrainError};
use crate::stop;
use callsmith::adapter::registry::{Generation, Lease};
use callsmith::chat::dialect::{Delta, Function, TurnSpec};
use callsmith::chat::reasoning::{self, Reasoning};
use callsmith::chat::{Conversation, Tool};
use callsmith::engine::{EngineHandle, Event, GenerateRequest, SamplingParams};
use callsmith::grammar::{Constraint, GrammarCompiler, schema};
use callsmith::model::AdapterWeights;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::mpsc::UnboundedReceiver;

/// A model's prompts and grammars.
pub(super) struct Asker {
    encoder: Arc<Encoder>,
    /// `None` = without a grammar.
    compiler: Option<GrammarCompiler>,
}

/// A turn to ask for, ready for the engine.
pub(super) struct Question {
    pub(super) prompt: Vec<u32>,
    functions: Vec<Function>,
    reasoning: Reasoning,
    constraint: Option<Constraint>,
}

/// What was written for a turn.
pub(super) struct Written {
    pub(super) text: String,
    /// The same without thoughts.
    pub(super) answered: String,
    pub(super) calls: Vec<Call>,
}

impl Asker {
    /// `free`: without the grammar.
    pub(super) fn new(encoder: Arc<Encoder>, free: bool) -> Result<Self> {
        let compile = || GrammarCompiler::new(encoder.tokenizer.tok_env(), 1);
        let compiler = (!free).then(compile).transpose()?;
        Ok(Self { encoder, compiler })
    }

    /// The assistant turn after all messages of the conversation.
    ///
    /// # Errors
    /// What the server answers with 400: a prompt that the chat template refuses, or a function whose schema cannot be enforced.
    pub(super) fn question(&self, conversation: &Conversation) -> Result<Question> {
        let (prompt, reasoning) = self.encoder.turn(conversation)?;
        let functions = functions(conversation)?;
        let spec = TurnSpec {
            tools: &functions,
            choice: &conversation.tool_choice,
            parallel: conversation.parallel_tool_calls && self.encoder.several_calls(),
            reasoning,
            control: self.encoder.tokenizer.control_ids(),
            answer: None,
        };
        let constraint = match &self.compiler {
            Some(compiler) => Some(compiler.compile_blocking(&self.encoder.dialect.grammar(&spec)?)?),
            None => None,
        };
        Ok(Question { prompt, functions, reasoning, constraint })
    }

    /// Queues a question, to be answered greedily.
    pub(super) fn submit(
        &self,
        engine: &EngineHandle,
        question: &Question,
        adapter: Option<Lease>,
        max_tokens: usize,
    ) -> Result<UnboundedReceiver<Event>> {
        Ok(engine.submit(GenerateRequest {
            prompt: question.prompt.clone(),
            params: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            max_tokens,
            stop_token_ids: self.encoder.tokenizer.eos_token_ids().to_vec(),
            constraint: question.constraint.as_ref().map(Constraint::fork),
            adapter,
            tenant: None,
        })?)
    }

    /// Waits for the end of a generation, or until a stop is asked for, and reads it.
    pub(super) fn written(
        &self,
        question: &Question,
        events: UnboundedReceiver<Event>,
        stop: &AtomicBool,
    ) -> Result<Written> {
        let text = self.text(events, stop)?;
        let answered = reasoning::split(question.reasoning, &text).rest;
        let mut parser = self.encoder.dialect.parser(&question.functions);
        let mut deltas = parser.push(&answered);
        deltas.extend(parser.finish());
        Ok(Written { text, answered, calls: calls(&deltas) })
    }

    fn text(&self, mut events: UnboundedReceiver<Event>, stop: &AtomicBool) -> Result<String> {
        let mut ids = Vec::new();
        loop {
            stop::check(stop)?;
            match events.blocking_recv() {
                Some(Event::Started { .. }) => {}
                Some(Event::Tokens(tokens)) => ids.extend(tokens.iter().map(|token| token.id)),
                Some(Event::Finished(_)) => return Ok(self.encoder.tokenizer.decode(&ids)),
                Some(Event::Failed(error)) => return Err(error.into()),
                None => return Err(TrainError::Data("the engine ended before an answer was complete".into())),
            }
        }
    }
}

/// The functions on offer, as the grammar needs them.
fn functions(conversation: &Conversation) -> Result<Vec<Function>> {
    let admit = |tool: &Tool| Ok((tool.name.clone(), schema::admit_parameters(&tool.parameters)?));
    conversation.tools.iter().map(admit).collect()
}

/// Calls out of a parsed turn; arguments that are not JSON become `null`, which equals no wanted arguments.
fn calls(deltas: &[Delta]) -> Vec<Call> {
    let mut calls: Vec<(String, String)> = Vec::new();
    for delta in deltas {
        match delta {
            Delta::CallStart { name, .. } => calls.push((name.clone(), String::new())),
            Delta::CallArguments { index, fragment } => {
                if let Some((_, arguments)) = calls.get_mut(*index) {
                    arguments.push_str(fragment);
                }
            }
            Delta::Thought(_) | Delta::Text(_) | Delta::CallEnd { .. } => {}
        }
    }
    let parsed = |(name, text): (String, String)| (name, serde_json::from_str(&text).unwrap_or(Value::Null));
    calls.into_iter().map(parsed).collect()
}

/// An adapter as the engine takes it. `id` tells it from others.
pub(super) fn lease(id: String, path: &Path, weights: Arc<AdapterWeights>) -> Lease {
    Arc::new(Generation {
        name: "evaluated".into(),
        id,
        rank: weights.iter().filter_map(|(_, pair)| pair.a.dims().first().copied()).max().unwrap_or(0),
        bytes: weights.bytes(),
        path: path.to_owned(),
        chat_template: None,
        created: 0,
        weights,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use callsmith::chat::dialect::DialectChoice;
    use callsmith::chat::{Message, Role, ToolChoice};
    use serde_json::json;

    /// A template that shows the first call of a turn.
    const TEMPLATE: &str = r#"{{ tools or '' }}{% for m in messages %}{% if m.tool_calls %}CHECK{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}{% endif %}{{ m.content }}{% endfor %}"#;

    /// Whether two calls in one turn are allowed under the template with this check of a turn's calls.
    fn two_calls_are_allowed(check: &str) -> bool {
        let (_, tokenizer) = callsmith::embedded::open().unwrap();
        let dialect = DialectChoice { name: Some("llama3".to_owned()), dir: None };
        let encoder = Arc::new(Encoder::of(tokenizer, Some(&TEMPLATE.replace("CHECK", check)), &dialect).unwrap());
        let call = r#"{"name": "f", "parameters": {}}"#;
        let turn = encoder.tokenizer.encode_text(&format!("{call}; {call}")).unwrap();
        let conversation = Conversation {
            messages: vec![Message::text(Role::User, "q")],
            tools: vec![Tool { name: "f".to_owned(), description: None, parameters: None, strict: false }],
            tool_choice: ToolChoice::Required,
            parallel_tool_calls: true,
        };
        let question = Asker::new(encoder, false).unwrap().question(&conversation).unwrap();
        question.constraint.unwrap().advance(&turn).unwrap() == turn.len()
    }

    #[test]
    fn a_template_of_single_calls_is_asked_for_one_call_a_turn_as_by_the_server() {
        assert!(two_calls_are_allowed(""));
        assert!(!two_calls_are_allowed("{% if m.tool_calls | length != 1 %}{{ raise_exception('one') }}{% endif %}"));
    }

    #[test]
    fn deltas_become_calls_and_broken_arguments_equal_nothing() {
        let start = |index, name: &str| Delta::CallStart { index, name: name.into() };
        let fragment = |index, text: &str| Delta::CallArguments { index, fragment: text.into() };
        let deltas = [
            start(0, "a"),
            fragment(0, "{\"x\""),
            fragment(0, ":1}"),
            Delta::CallEnd { index: 0 },
            start(1, "b"),
            fragment(1, "{"),
        ];
        assert_eq!(calls(&deltas), [("a".to_owned(), json!({"x": 1})), ("b".to_owned(), Value::Null)]);
        assert!(calls(&[Delta::Text("hello".into())]).is_empty());
    }
}
