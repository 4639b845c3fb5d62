//! `callsmith chat`: a person talks to a model in a terminal, sees its calls as they are written, and gives their results,
//! by hand or by a command for each function.
//!
//! Any OpenAI-compatible server will do; our own is one, started in this process. Stands on top of everything else, like the
//! command line; nothing uses it.

mod answer;
mod ask;
mod commands;
mod lines;
mod screen;
mod signals;

use self::answer::{Answer, Call};
use self::ask::Server;
use self::commands::Commands;
use self::lines::{Lines, Typed};
use self::screen::Screen;
use self::signals::Group;
use crate::cli::ChatArgs;
use crate::inspect;
use crate::serve::{Background, ServeError};
use crate::settings::{Settings, SettingsError};
use crate::visible;
use serde_json::{Map, Value, json};
use std::io::{self, ErrorKind};
use tokio::runtime::Builder;

/// Rounds of calls and results after one message; a model that calls for ever is stopped here.
const MOST_ROUNDS: usize = 16;

/// Why a chat cannot begin, or an answer does not come.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("{url}: {problem}")]
    Server { url: String, problem: String },
    /// The person has broken the answer off.
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl TalkError {
    /// 2 for wrong usage, else 1.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Settings(_) | Self::Usage(_)) { 2 } else { 1 }
    }
}

/// Talks until the input ends.
///
/// # Errors
/// Wrong usage, a server that cannot be started or reached; without a terminal also an answer that does not come.
pub fn run(args: &ChatArgs) -> Result<(), TalkError> {
    let (tools, group) = (tools(args)?, Group::default());
    let own = own_server(args)?;
    let url = own.as_ref().map_or(args.url.as_deref(), |own| Some(own.url.as_str())).unwrap_or_default();
    let server = Server::new(url, args.serve.api_keys.first().map(String::as_str))?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let adapter = args.serve.adapters.first().filter(|_| own.is_some()).map(|(name, _)| name.clone());
    let model = args.to.clone().or(adapter).map_or_else(|| runtime.block_on(server.first_model()), Ok)?;
    let (lines, screen) = (Lines::new()?, Screen::new());
    signals::watch(lines.interactive, &group)?;
    if lines.interactive {
        own.iter().for_each(|own| screen::note(&own.summary));
        screen::note(&format!("talking to `{model}` with {} functions; /new starts over, Ctrl-D ends", tools.len()));
    }
    let request = request(args, &model, tools);
    let commands = Commands::new(args, group);
    let mut talk = Talk { server, request, commands, messages: opening(args), lines, screen };
    match runtime.block_on(talk.all()) {
        // Whoever read enough has closed the pipe.
        Err(TalkError::Io(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// A server of this chat's own, where none is named.
fn own_server(args: &ChatArgs) -> Result<Option<Background>, TalkError> {
    match args.url {
        Some(_) => Ok(None),
        None => Ok(Some(Background::start(Settings::from_args(args.serve.clone())?)?)),
    }
}

/// The tools of the file, each of the commands being for one of them.
fn tools(args: &ChatArgs) -> Result<Vec<Value>, TalkError> {
    let Some(path) = &args.tools else { return Ok(Vec::new()) };
    let tools = inspect::read_json(path).and_then(|json| inspect::tools(&json));
    let tools = tools.map_err(|error| TalkError::Usage(format!("--tools: {error}")))?;
    let known = |name: &str| tools.iter().any(|tool| tool["function"]["name"] == name);
    match args.runs.iter().find(|(name, _)| !known(name)) {
        Some((name, _)) => Err(TalkError::Usage(format!("--run {name}: {} has no such function", path.display()))),
        None => Ok(tools),
    }
}

/// What all requests have in common.
fn request(args: &ChatArgs, model: &str, tools: Vec<Value>) -> Map<String, Value> {
    let given = [
        ("model", Some(json!(model))),
        ("stream", Some(json!(true))),
        ("tools", (!tools.is_empty()).then_some(Value::Array(tools))),
        ("max_tokens", args.max_tokens.map(Value::from)),
        ("temperature", args.temperature.map(Value::from)),
    ];
    given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

fn opening(args: &ChatArgs) -> Vec<Value> {
    args.system.iter().map(|text| json!({"role": "system", "content": text})).collect()
}

struct Talk {
    server: Server,
    request: Map<String, Value>,
    commands: Commands,
    messages: Vec<Value>,
    lines: Lines,
    screen: Screen,
}

impl Talk {
    async fn all(&mut self) -> Result<(), TalkError> {
        loop {
            match self.lines.read("> ")? {
                Typed::End => return Ok(()),
                Typed::Interrupt => {}
                Typed::Line(text) if text.trim().is_empty() => {}
                Typed::Line(text) if text.trim() == "/new" => {
                    self.messages.retain(|message| message["role"] == "system")
                }
                Typed::Line(text) => self.turn(&text).await?,
            }
        }
    }

    /// A message of the person and all that follows from it. What fails is as if it had never been said.
    async fn turn(&mut self, text: &str) -> Result<(), TalkError> {
        let before = self.messages.len();
        self.messages.push(json!({"role": "user", "content": text}));
        let failed = match self.rounds().await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        self.messages.truncate(before);
        self.screen.end()?;
        if !self.lines.interactive || matches!(failed, TalkError::Io(_)) {
            return Err(failed);
        }
        screen::note(&failed.to_string());
        Ok(())
    }

    async fn rounds(&mut self) -> Result<(), TalkError> {
        for _ in 0..MOST_ROUNDS {
            let answer = self.answer().await?;
            self.messages.push(answer.message());
            if answer.calls.is_empty() {
                return Ok(());
            }
            for call in &answer.calls {
                let result = self.result(call).await?;
                self.messages.push(json!({"role": "tool", "tool_call_id": call.id, "content": result}));
            }
        }
        screen::note(&format!("{MOST_ROUNDS} rounds of calls; say something to go on"));
        Ok(())
    }

    async fn answer(&mut self) -> Result<Answer, TalkError> {
        let mut body = Value::Object(self.request.clone());
        body["messages"] = self.messages.clone().into();
        let (mut answer, server, screen) = (Answer::default(), &self.server, &mut self.screen);
        let streamed = server.stream(&body, |data| {
            let pieces = answer.take(data).map_err(|problem| server.error(problem))?;
            Ok(pieces.iter().try_for_each(|piece| screen.show(piece))?)
        });
        until_interrupted(self.lines.interactive, streamed).await?;
        self.screen.end()?;
        match answer.finish.as_deref() {
            None => return Err(self.server.error("the answer broke off")),
            Some("length") => screen::note("the answer reached the limit of its tokens"),
            Some(_) => {}
        }
        Ok(answer)
    }

    /// What a command or the person gives for a call.
    async fn result(&mut self, call: &Call) -> Result<String, TalkError> {
        if let Some(running) = self.commands.run(call) {
            let result = until_interrupted(self.lines.interactive, async { Ok(running.await) }).await?;
            self.screen.result(&call.name, &result)?;
            return Ok(result);
        }
        match self.lines.read(&format!("result of {}> ", visible::name(&call.name)))? {
            Typed::Line(text) => Ok(text),
            Typed::Interrupt => Err(TalkError::Interrupted),
            Typed::End => {
                Err(TalkError::Usage(format!("the input ends where the result of `{}` is asked for", call.name)))
            }
        }
    }
}

/// Ctrl-C at a terminal ends the work and not the chat; elsewhere [`signals`] end the process.
async fn until_interrupted<T>(
    interactive: bool,
    work: impl Future<Output = Result<T, TalkError>>,
) -> Result<T, TalkError> {
    if !interactive {
        return work.await;
    }
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => Err(TalkError::Interrupted),
    }
}
