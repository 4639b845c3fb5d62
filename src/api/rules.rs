//! What a turn may say: admits the schemas, asks the dialect for the turn's grammar, and checks finished calls once more.
//!
//! The caller's own schema, with standard type names, is what the last check uses; only the grammar sees the normalised copy.

use super::AppState;
use super::callers_names::CallersNames;
use super::error::{ApiError, Kind};
use super::turn::Reader;
use super::wire::response::{Call, Spoken};
use super::wire::{ChatRequest, ResponseFormat, WireLimits, parse_chat};
use crate::chat::dialect::{ControlTokens, Delta, Dialect, Function, TurnParser, TurnSpec};
use crate::chat::reasoning::{self, Reasoning, Split};
use crate::chat::{ChatError, Names, Tool, ToolChoice};
use crate::grammar::{Constraint, FREE_NAMES, GrammarError, schema, strict_json};
use jsonschema::Validator;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Longest compilation of one grammar.
const COMPILE_LIMIT: Duration = Duration::from_secs(10);
/// Longest search for the tool whose schema does not compile.
const BLAME_LIMIT: Duration = Duration::from_secs(1);
/// Deepest nesting of a `json_object` answer.
const JSON_OBJECT_DEPTH: usize = 16;

/// The rules of one request's turns.
pub(super) struct TurnRules {
    /// Lark text; `None` = free text.
    lark: Option<String>,
    /// What the prompt leaves to the model.
    reasoning: Reasoning,
    /// The tools that may be called.
    tools: AdmittedTools,
    may_call: bool,
    /// A turn without a call breaks the rules.
    must_call: bool,
    names: Names,
    format: Option<Validator>,
}

/// Tools whose schemas are enforceable.
#[derive(Default)]
pub(super) struct AdmittedTools {
    /// Names, and schemas normalised for the grammar.
    functions: Vec<Function>,
    /// Of each function: its place in the caller's `tools`, and the caller's schema.
    callers: Vec<(usize, Validator)>,
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
    TurnRules::new(context, &request, admit_tools(&request)?)
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
    /// What the request's turns may say. `tools` are those of [`admit_tools`].
    pub(super) fn new(context: TurnContext<'_>, request: &ChatRequest, tools: AdmittedTools) -> Result<Self, ApiError> {
        let reasoning = context.reasoning;
        let conversation = &request.conversation;
        let may_call = !tools.functions.is_empty() && conversation.tool_choice != ToolChoice::None;
        let must_call = matches!(conversation.tool_choice, ToolChoice::Required | ToolChoice::Named(_));
        let names = request.names.clone();
        let mut rules = Self { lark: None, reasoning, tools, may_call, must_call, names, format: None };
        match &request.format {
            ResponseFormat::JsonObject => {
                rules.lark = Some(reasoning::start(reasoning, "object0") + &json_object_lark());
            }
            ResponseFormat::JsonSchema { schema, strict } => {
                if *strict {
                    schema::check_strict(schema).map_err(|error| bad_format(&explain(&error)))?;
                }
                let admitted = schema::admit(schema).map_err(|error| bad_format(&explain(&error)))?;
                rules.format = Some(validator(schema).map_err(|cause| bad_format(&cause))?);
                rules.lark = Some(format!("{}answer: %json {admitted}\n", reasoning::start(reasoning, "answer")));
            }
            ResponseFormat::Text if rules.tools.functions.is_empty() => {}
            ResponseFormat::Text => {
                let parallel = conversation.parallel_tool_calls && context.several_calls;
                let turn = (&conversation.tool_choice, parallel);
                rules.lark = Some(rules.grammar(context, &rules.tools.functions, turn)?);
            }
        }
        Ok(rules)
    }

    /// The dialect's grammar for turns that may call `functions`.
    fn grammar(
        &self,
        context: TurnContext<'_>,
        functions: &[Function],
        (choice, parallel): (&ToolChoice, bool),
    ) -> Result<String, ApiError> {
        let TurnContext { control, reasoning, .. } = context;
        let turn = TurnSpec { tools: functions, choice, parallel, reasoning, control };
        context.dialect.grammar(&turn).map_err(|error| match &error {
            ChatError::Inexpressible { function, .. } => {
                let position = self.tools.functions.iter().position(|(name, _)| name == function);
                self.refusal(position.unwrap_or(0), &error.to_string())
            }
            _ => ApiError::internal(error),
        })
    }

    /// What reads the turns' text.
    pub(super) fn reader(&self, dialect: &dyn Dialect) -> Reader {
        let parser = || CallersNames::new(dialect.parser(&self.tools.functions), self.names.clone());
        Reader {
            parser: self.may_call.then(|| Box::new(parser()) as Box<dyn TurnParser>),
            reasoning: self.reasoning,
            short_ids: dialect.short_ids(),
        }
    }

    /// Compiles the grammar off the async threads; the first mask is computed when this returns.
    pub(super) async fn compile(&self, state: &AppState) -> Result<Option<Constraint>, ApiError> {
        let Some(lark) = &self.lark else { return Ok(None) };
        let started = Instant::now();
        let outcome = tokio::time::timeout(COMPILE_LIMIT, state.compiler.compile(lark.clone())).await;
        state.metrics.grammar_compiled(started.elapsed());
        match outcome {
            Ok(Ok(constraint)) => Ok(Some(constraint)),
            Ok(Err(GrammarError::Internal(cause))) => Err(ApiError::internal(cause)),
            Ok(Err(error)) => Err(self.blame(state, &error).await),
            // The schema guard bounds the cost of one compile: who waits this long has waited for others.
            Err(_) => Err(ApiError::new(Kind::Overloaded, "The grammar compiler is overloaded. Try again later.")),
        }
    }

    /// Finds the tool whose schema does not compile by compiling each alone.
    async fn blame(&self, state: &AppState, error: &GrammarError) -> ApiError {
        let guilty = tokio::time::timeout(BLAME_LIMIT, self.find_guilty(state)).await.ok().flatten();
        guilty.unwrap_or_else(|| self.refusal(0, &error.to_string()))
    }

    async fn find_guilty(&self, state: &AppState) -> Option<ApiError> {
        for (position, function) in self.tools.functions.iter().enumerate() {
            let alone = std::slice::from_ref(function);
            let lark = self.grammar(state.turn_context(self.reasoning), alone, (&ToolChoice::Required, false)).ok()?;
            if let Err(alone) = state.compiler.compile(lark).await {
                return Some(self.refusal(position, &alone.to_string()));
            }
        }
        None
    }

    fn refusal(&self, position: usize, message: &str) -> ApiError {
        match self.tools.functions.get(position).zip(self.tools.callers.get(position)) {
            Some(((name, _), (index, _))) => bad_parameters(*index, self.names.given(name), message),
            None => bad_format(message),
        }
    }

    /// Checks a finished call's arguments against the caller's schema.
    pub(super) fn check_call(&self, call: &Call) -> Result<(), String> {
        let position = self.tools.functions.iter().position(|(name, _)| self.names.given(name) == call.name);
        let Some((_, validator)) = position.map(|position| &self.tools.callers[position]) else {
            return Err(format!("call of `{}`, which may not be called", call.name));
        };
        check(validator, &call.arguments).map_err(|cause| format!("call of `{}`: {cause}", call.name))
    }

    /// Checks a finished turn as a whole: no call is left open, and formatted text has its form.
    pub(super) fn check_turn(&self, spoken: &Spoken) -> Result<(), String> {
        if let Some(call) = spoken.calls.iter().find(|call| !call.complete) {
            return Err(format!("the turn finished inside the call of `{}`", call.name));
        }
        if self.must_call && spoken.calls.is_empty() {
            return Err("a call was demanded and the turn has none".to_owned());
        }
        match &self.format {
            Some(validator) => check(validator, &spoken.content).map_err(|cause| format!("formatted text: {cause}")),
            None => Ok(()),
        }
    }
}

fn may_name(choice: &ToolChoice, name: &str) -> bool {
    !matches!(choice, ToolChoice::Named(wanted) if wanted != name)
}

/// Admits every tool's schema; the first that cannot be enforced exactly is refused by name. Those that may be called remain.
pub(super) fn admit_tools(request: &ChatRequest) -> Result<AdmittedTools, ApiError> {
    let conversation = &request.conversation;
    let mut tools = AdmittedTools::default();
    for (index, tool) in conversation.tools.iter().enumerate() {
        let (schema, validator) = admit(index, tool, request.names.given(&tool.name))?;
        if request.callable.contains(&index) && may_name(&conversation.tool_choice, &tool.name) {
            tools.functions.push((tool.name.clone(), schema));
            tools.callers.push((index, validator));
        }
    }
    Ok(tools)
}

/// The schema for the grammar and the check of the caller's own; `given` is the caller's name of the tool.
fn admit(index: usize, tool: &Tool, given: &str) -> Result<(Value, Validator), ApiError> {
    let none = json!({"type": "object", "properties": {}});
    let original = tool.parameters.as_ref().unwrap_or(&none);
    if let Some(parameters) = tool.parameters.as_ref().filter(|_| tool.strict) {
        schema::check_strict(parameters).map_err(|error| bad_parameters(index, given, &explain(&error)))?;
    }
    let schema =
        schema::admit_parameters(&tool.parameters).map_err(|error| bad_parameters(index, given, &explain(&error)))?;
    let validator = validator(original).map_err(|cause| bad_parameters(index, given, &cause))?;
    Ok((schema, validator))
}

/// `format` is not asserted: it is an annotation, and the grammar enforces what it can.
fn validator(schema: &Value) -> Result<Validator, String> {
    jsonschema::options().should_validate_formats(false).build(schema).map_err(|error| error.to_string())
}

fn check(validator: &Validator, text: &str) -> Result<(), String> {
    let value = strict_json::parse(text).map_err(|error| error.to_string())?;
    validator.validate(&value).map_err(|error| format!("at `{}`: {error}", error.instance_path()))
}

/// The place in the caller's schema, then what is wrong there.
fn explain(error: &GrammarError) -> String {
    match error {
        GrammarError::Schema { pointer, message } => format!("In context=({pointer}), {message}"),
        GrammarError::TooComplex { pointer, message } => {
            format!("In context=({pointer}), schema_too_complex: {message}")
        }
        other => other.to_string(),
    }
}

fn bad_parameters(index: usize, name: &str, cause: &str) -> ApiError {
    let message = format!("Invalid schema for function '{name}': {cause}");
    ApiError::at(Kind::InvalidFunctionParameters, format!("tools[{index}].function.parameters"), message)
}

fn bad_format(cause: &str) -> ApiError {
    ApiError::at(Kind::InvalidJsonSchema, "response_format", format!("Invalid schema for response_format: {cause}"))
}

/// Any compact JSON object up to a fixed depth: plain parsers limit theirs, so endless nesting must not be sayable.
fn json_object_lark() -> String {
    let mut lark = FREE_NAMES.to_owned();
    lark.push_str(
        "scalar: STRING | NUMBER | \"true\" | \"false\" | \"null\"\n\
         STRING: /\"([^\"\\\\\\x00-\\x1F\\x7F]|\\\\[\"\\\\bfnrt])*\"/\n\
         NUMBER: /-?(0|[1-9][0-9]{0,14})(\\.[0-9]{1,15})?/\n",
    );
    for depth in 0..JSON_OBJECT_DEPTH {
        let value = if depth + 1 < JSON_OBJECT_DEPTH { format!("value{}", depth + 1) } else { "scalar".to_owned() };
        let _ = writeln!(lark, "object{depth}: \"{{\" (STRING \":\" {value} (\",\" STRING \":\" {value})*)? \"}}\"");
        if depth > 0 {
            let _ = writeln!(lark, "array{depth}: \"[\" ({value} (\",\" {value})*)? \"]\"");
            let _ = writeln!(lark, "value{depth}: scalar | object{depth} | array{depth}");
        }
    }
    lark
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::text::{self, TextGrammars};

    #[test]
    fn arguments_are_checked_against_the_callers_schema_without_formats() {
        let schema = json!({"type": "object", "properties": {"day": {"type": "string", "format": "date"}, "n": {"type": "integer", "maximum": 3}}, "required": ["n"]});
        let validator = validator(&schema).unwrap();
        assert!(check(&validator, r#"{"n":3,"day":"someday"}"#).is_ok());
        assert!(check(&validator, r#"{"n":4}"#).unwrap_err().contains("/n"));
        assert!(check(&validator, r#"{"n":"#).is_err());
    }

    #[test]
    fn a_json_object_says_no_key_twice() {
        let grammars = TextGrammars::new().unwrap();
        let start = grammars.compile(&format!("start: object0\n{}", json_object_lark())).unwrap();
        let accepted = |text: &str| text::verdict(start.fork(), text.as_bytes()).unwrap().accepted;
        assert!(accepted(r#"{"a":1,"b":[{"a":"\n"}],"\\":{}}"#));
        assert!(!accepted(r#"{"a":1,"a":2}"#) && !accepted(r#"{"b":[{"a":1,"a":1}]}"#) && !accepted(r#"{"\/":1}"#));
    }

    #[test]
    fn a_schema_error_names_the_tool_and_the_place() {
        let error = GrammarError::Schema { pointer: "/properties/x".into(), message: "unknown type `foo`".into() };
        let error = bad_parameters(13, "f", &explain(&error));
        assert_eq!(error.param(), Some("tools[13].function.parameters"));
        assert_eq!(error.kind().code(), Some("invalid_function_parameters"));
        assert_eq!(
            error.to_string(),
            "Invalid schema for function 'f': In context=(/properties/x), unknown type `foo`"
        );
    }

    #[test]
    fn a_strict_function_is_held_to_openais_rules() {
        let parameters =
            json!({"type": "object", "properties": {"b": {"type": "null"}}, "additionalProperties": false});
        let tool = |strict| Tool { name: "f".into(), description: None, parameters: Some(parameters.clone()), strict };
        assert!(admit(0, &tool(false), "f").is_ok());
        let error = admit(0, &tool(true), "f").err().unwrap();
        assert_eq!(error.param(), Some("tools[0].function.parameters"));
        assert_eq!(
            error.to_string(),
            "Invalid schema for function 'f': In context=(), 'required' is required to be supplied and to be an array \
             including every key in properties. Missing 'b'."
        );
        let format = json!({"type": "json_schema", "json_schema": {"name": "f", "strict": true,
            "schema": {"type": "object", "properties": {}}}});
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "?"}], "response_format": format});
        let (dialect, control) = (crate::chat::dialect::for_template(None), ControlTokens::new());
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

    #[test]
    fn a_remote_reference_is_not_fetched() {
        assert!(validator(&json!({"$ref": "http://127.0.0.1:1/schema.json"})).is_err());
    }
}
