//! What a turn may say: the form of its text, its tools, the dialect's grammar over both, and the check of what was said.

use super::form::Form;
use super::parsers::{AnswerOrCalls, CallersNames, CallsOnly};
use super::spoken::{Call, Spoken};
use super::tools::AdmittedTools;
use super::turn::Reader;
use crate::api::AppState;
use crate::api::error::{ApiError, Kind};
use crate::api::voice::Voice;
use crate::api::wire::{ChatRequest, ResponseFormat, WireLimits, parse_chat};
use crate::chat::dialect::{ControlTokens, Delta, Dialect, Function, TurnParser, TurnSpec};
use crate::chat::reasoning::{self, Reasoning, Split};
use crate::chat::{ChatError, ToolCall, ToolChoice};
use crate::engine::EngineError;
use crate::grammar::{Constraint, GrammarError};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Longest compilation of one grammar.
const COMPILE_LIMIT: Duration = Duration::from_secs(10);
/// Longest search for the tool whose schema does not compile.
const BLAME_LIMIT: Duration = Duration::from_secs(1);

/// The rules of one request's turns.
pub(in crate::api) struct TurnRules {
    /// Lark text; `None` = free text.
    lark: Option<String>,
    /// What the prompt leaves to the model.
    reasoning: Reasoning,
    /// The tools that may be called.
    tools: AdmittedTools,
    may_call: bool,
    /// A turn without a call breaks the rules.
    must_call: bool,
    /// What a turn without calls must look like.
    form: Option<Form>,
}

/// How a model writes the turn that follows a prompt.
#[derive(Clone, Copy)]
pub struct TurnContext<'a> {
    pub dialect: &'a dyn Dialect,
    pub control: &'a ControlTokens,
    /// A turn may hold several calls and still be shown to the model later.
    pub several_calls: bool,
    pub reasoning: Reasoning,
}

/// The grammar of the turns that a chat request's body asks for: Lark text, or `None` where any text may come.
///
/// # Errors
/// As the same body would get from `POST /v1/chat/completions`.
pub fn turn_grammar(body: &Map<String, Value>, context: TurnContext<'_>) -> Result<Option<String>, ApiError> {
    Ok(rules_of(body, context)?.lark)
}

fn rules_of(body: &Map<String, Value>, context: TurnContext<'_>) -> Result<TurnRules, ApiError> {
    let request = parse_chat(body, WireLimits { logits_width: usize::MAX })?;
    TurnRules::new(context, &request, AdmittedTools::admit(&request)?)
}

/// What a client would get of a turn's text, as an answer to a chat request's body.
///
/// # Errors
/// As [`turn_grammar`].
pub fn read_turn(body: &Map<String, Value>, context: TurnContext<'_>, text: &str) -> Result<Vec<Delta>, ApiError> {
    let Reader { parser, reasoning, .. } = rules_of(body, context)?.reader(context.dialect);
    let Split { thoughts, rest } = reasoning::split(reasoning, text);
    let mut deltas = vec![Delta::Thought(thoughts)];
    match parser {
        Some(mut parser) => deltas.extend([parser.push(&rest), parser.finish()].concat()),
        None => deltas.push(Delta::Text(rest)),
    }
    Ok(deltas)
}

impl TurnRules {
    /// What a chat request's turns may say.
    pub(in crate::api) fn new(
        context: TurnContext<'_>,
        request: &ChatRequest,
        tools: AdmittedTools,
    ) -> Result<Self, ApiError> {
        let choice = &request.conversation.tool_choice;
        let may_call = !tools.functions.is_empty() && *choice != ToolChoice::None;
        let must_call = matches!(choice, ToolChoice::Required | ToolChoice::Named(_));
        let form = Form::of(&request.format)?;
        if may_call && !must_call {
            check_told_apart(&request.format, context.dialect)?;
        }
        let mut rules = Self { lark: None, reasoning: context.reasoning, tools, may_call, must_call, form };
        rules.lark = match &rules.form {
            Some(form) if !may_call => Some(reasoning::start(context.reasoning, super::form::ANSWER) + &form.lark),
            None if rules.tools.functions.is_empty() => None,
            _ => {
                let parallel = request.conversation.parallel_tool_calls && context.several_calls;
                Some(rules.grammar(context, &rules.tools.functions, (choice, parallel))?)
            }
        };
        Ok(rules)
    }

    /// Rules for text without calls and thoughts.
    pub(in crate::api) fn of_text(format: &ResponseFormat) -> Result<Self, ApiError> {
        let form = Form::of(format)?;
        let (reasoning, tools) = (Reasoning::Absent, AdmittedTools::default());
        let lark = form.as_ref().map(|form| reasoning::start(reasoning, super::form::ANSWER) + &form.lark);
        Ok(Self { lark, reasoning, tools, may_call: false, must_call: false, form })
    }

    /// The dialect's grammar for turns that may call `functions`.
    fn grammar(
        &self,
        context: TurnContext<'_>,
        functions: &[Function],
        (choice, parallel): (&ToolChoice, bool),
    ) -> Result<String, ApiError> {
        let TurnContext { control, reasoning, .. } = context;
        let answer = self.form.as_ref().map(|form| form.lark.as_str());
        let turn = TurnSpec { tools: functions, choice, parallel, reasoning, control, answer };
        context.dialect.grammar(&turn).map_err(|error| match &error {
            ChatError::Inexpressible { function, .. } => {
                let position = self.tools.functions.iter().position(|(name, _)| name == function);
                self.refusal(position.unwrap_or(0), &error.to_string())
            }
            _ => ApiError::internal(error),
        })
    }

    /// What reads the turns' text.
    pub(in crate::api) fn reader(&self, dialect: &dyn Dialect) -> Reader {
        let parser = || -> Box<dyn TurnParser> {
            let calls = CallersNames::new(dialect.parser(&self.tools.functions), self.tools.names.clone());
            match &self.form {
                _ if self.must_call => Box::new(CallsOnly(calls)),
                Some(_) => Box::new(AnswerOrCalls::new(calls)),
                None => Box::new(calls),
            }
        };
        Reader { parser: self.may_call.then(parser), reasoning: self.reasoning, short_ids: dialect.short_ids() }
    }

    /// The turn may say anything.
    pub(super) fn are_none(&self) -> bool {
        self.lark.is_none()
    }

    /// Compiles the grammar off the async threads; the first mask is computed when this returns.
    pub(super) async fn compile(&self, state: &AppState, voice: &Voice) -> Result<Option<Constraint>, ApiError> {
        let Some(lark) = &self.lark else { return Ok(None) };
        let started = Instant::now();
        let outcome = tokio::time::timeout(COMPILE_LIMIT, state.compiler.compile(lark.clone())).await;
        state.metrics.grammar_compiled(started.elapsed());
        match outcome {
            Ok(Ok(constraint)) => Ok(Some(constraint)),
            Ok(Err(GrammarError::Internal(cause))) => Err(ApiError::internal(cause)),
            Ok(Err(error)) => Err(self.blame(state, voice, &error).await),
            // The guards bound the cost of one compile: who waits this long has waited for others.
            Err(_) => Err(ApiError::new(Kind::Overloaded, "The grammar compiler is overloaded. Try again later.")),
        }
    }

    /// Finds the tool whose schema does not compile by compiling each alone.
    async fn blame(&self, state: &AppState, voice: &Voice, error: &GrammarError) -> ApiError {
        let guilty = tokio::time::timeout(BLAME_LIMIT, self.find_guilty(state, voice)).await.ok().flatten();
        guilty.unwrap_or_else(|| match &self.form {
            Some(form) => form.refusal(&error.to_string()),
            None => self.refusal(0, &error.to_string()),
        })
    }

    async fn find_guilty(&self, state: &AppState, voice: &Voice) -> Option<ApiError> {
        for (position, function) in self.tools.functions.iter().enumerate() {
            let alone = std::slice::from_ref(function);
            let lark = self.grammar(voice.turn(self.reasoning), alone, (&ToolChoice::Required, false)).ok()?;
            if let Err(alone) = state.compiler.compile(lark).await {
                return Some(self.refusal(position, &alone.to_string()));
            }
        }
        None
    }

    fn refusal(&self, position: usize, message: &str) -> ApiError {
        self.tools.refusal(position, message).unwrap_or_else(|| ApiError::internal(message))
    }

    /// A generation whose output is invalid: our failure, unless the caller's own grammar is too much.
    pub(super) fn failure(&self, error: EngineError) -> ApiError {
        match (&self.form, &error) {
            (Some(form), EngineError::InvalidOutput(cause)) if form.is_callers_own() => form.refusal(cause),
            _ => error.into(),
        }
    }

    /// Checks a finished call's arguments against the caller's schema.
    pub(super) fn check_call(&self, call: &Call) -> Result<(), String> {
        self.tools.check_call(call)
    }

    /// Checks a finished turn as a whole: no call is left open, and formatted text has its form.
    pub(super) fn check_turn(&self, spoken: &Spoken) -> Result<(), String> {
        if let Some(call) = spoken.calls.iter().find(|call| !call.complete) {
            return Err(format!("the turn finished inside the call of `{}`", call.name));
        }
        if self.must_call && spoken.calls.is_empty() {
            return Err("a call was demanded and the turn has none".to_owned());
        }
        match &self.form {
            Some(form) if spoken.calls.is_empty() => form.check(&spoken.content),
            _ => Ok(()),
        }
    }
}

/// Beside calls, an answer must be JSON with known keys: of any other form a call could not be told apart.
fn check_told_apart(format: &ResponseFormat, dialect: &dyn Dialect) -> Result<(), ApiError> {
    let cause = match format {
        ResponseFormat::Text => return Ok(()),
        ResponseFormat::JsonSchema { schema, .. } => match roots(schema) {
            roots if !roots.iter().all(|root| names_its_keys(root)) => {
                "next to tools, its root must be an object with \"additionalProperties\": false"
            }
            roots if roots.iter().any(|root| looks_like_a_call(root, dialect)) => {
                "its properties are those that this model's calls have; rename one"
            }
            _ => return Ok(()),
        },
        ResponseFormat::JsonObject => "next to tools, use a \"json_schema\" with \"additionalProperties\": false",
        _ => "it cannot be combined with tools that may be called",
    };
    let param = format.param();
    let message = format!("Unsupported '{param}': {cause}; or send tool_choice \"none\".");
    Err(ApiError::at(Kind::UnsupportedParameter, param, message))
}

/// What a schema's root may be, behind references and alternatives.
fn roots(schema: &Value) -> Vec<&Value> {
    let (mut open, mut seen, mut found) = (vec![schema], HashSet::new(), Vec::new());
    while let Some(one) = open.pop() {
        let target = || schema.pointer(one["$ref"].as_str()?.strip_prefix('#')?);
        match one["anyOf"].as_array().or(one["oneOf"].as_array()) {
            // A schema that leads back to itself says nothing more.
            _ if !seen.insert(std::ptr::from_ref(one)) => {}
            Some(alternatives) => open.extend(alternatives),
            None => match target() {
                Some(target) => open.push(target),
                None => found.push(one),
            },
        }
    }
    found
}

fn names_its_keys(schema: &Value) -> bool {
    schema["type"] == "object" && schema["additionalProperties"] == false && schema.get("patternProperties").is_none()
}

/// Whether a call is a bare JSON object that begins as an answer could: its fixed text would swallow the answer's key.
fn looks_like_a_call(schema: &Value, dialect: &dyn Dialect) -> bool {
    let call = ToolCall { id: String::new(), name: "f".to_owned(), arguments: Value::Object(Map::new()) };
    let call: Option<Map<String, Value>> = serde_json::from_str(&dialect.render_calls(&[call])).ok();
    call.is_some_and(|call| call.keys().any(|key| schema["properties"].get(key).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_strict_form_is_held_to_openais_rules() {
        let format = json!({"type": "json_schema", "json_schema": {"name": "f", "strict": true,
            "schema": {"type": "object", "properties": {}}}});
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "?"}], "response_format": format});
        let (dialect, control) = (crate::chat::dialect::for_template(None).unwrap(), ControlTokens::new());
        let context = TurnContext {
            dialect: dialect.as_ref(),
            control: &control,
            several_calls: true,
            reasoning: Reasoning::Absent,
        };
        let error = turn_grammar(body.as_object().unwrap(), context).unwrap_err();
        assert_eq!(error.param(), Some("response_format"));
        assert!(error.to_string().ends_with("'additionalProperties' is required to be supplied and to be false."));
    }

    fn told_apart(schema: Value) -> Result<(), ApiError> {
        let format = ResponseFormat::JsonSchema { schema, strict: false, param: "response_format" };
        check_told_apart(&format, crate::chat::dialect::by_name("llama3").unwrap().as_ref())
    }

    #[test]
    fn next_to_tools_an_answer_must_not_look_like_a_call() {
        let of = |properties: Value| json!({"type": "object", "properties": properties, "additionalProperties": false});
        assert!(told_apart(of(json!({"title": {}, "age": {}}))).is_ok());
        assert!(told_apart(of(json!({"name": {}, "age": {}}))).is_err());
        assert!(told_apart(json!({"type": "object"})).is_err());
        let behind = |root: Value| {
            let defs = json!({"A": of(json!({"title": {}})), "B": of(json!({"name": {}})), "C": {"type": "object"}});
            let mut schema = root;
            schema["$defs"] = defs;
            told_apart(schema)
        };
        let reference = |name: &str| json!({"$ref": format!("#/$defs/{name}")});
        assert!(behind(reference("A")).is_ok() && behind(json!({"anyOf": [reference("A"), reference("A")]})).is_ok());
        assert!(behind(reference("B")).is_err() && behind(json!({"oneOf": [reference("A"), reference("C")]})).is_err());
        assert!(behind(reference("none")).is_err());
    }
}
