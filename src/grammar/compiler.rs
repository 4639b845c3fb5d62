//! Compiles grammars off the engine thread, on large stacks, into constraints whose first mask is already computed.
//!
//! Knows Lark text and a tokenizer; not what the text means.

use super::custom::CALLERS_OWN;
use super::keys::{KeyGuard, KeyTokens};
use super::{Constraint, GrammarError};
use crate::priority;
use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
use tokio::sync::oneshot;
use toktrie::TokEnv;

/// The compiler recurses on nested grammars: about 10 KiB a level.
const STACK_BYTES: usize = 64 * 1024 * 1024;
const CACHED_GRAMMARS: usize = 64;
const CACHED_BYTES: usize = 8 * 1024 * 1024;
/// Memory of one constraint's lexer: one to two kB a state.
const MAX_LEXER_STATES: usize = 60_000;
const MAX_MESSAGE: usize = 300;
/// Limits of grammars that callers write themselves: parser items of one byte and of one token, and lexer work of a token.
const NARROW_ROW: usize = 200;
const NARROW_STEP: usize = 5_000;
const NARROW_FUEL: u64 = 50_000;

type Compiled = Result<Constraint, GrammarError>;

struct Job {
    lark: String,
    reply: Reply,
}

/// A pool of compile threads over one tokenizer. Dropping it ends the threads after the compiles in progress.
pub struct GrammarCompiler {
    tok_env: TokEnv,
    jobs: Mutex<mpsc::Sender<Job>>,
    worker: Arc<Worker>,
}

/// What the cache of compiled grammars has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    pub hits: u64,
    pub misses: u64,
}

impl GrammarCompiler {
    /// Starts `threads` compile threads (at least one) with 64 MiB stacks.
    ///
    /// # Errors
    /// [`GrammarError::Internal`] when the tokenizer is unusable or a thread cannot be started.
    pub fn new(tok_env: TokEnv, threads: usize) -> Result<Self, GrammarError> {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let worker = Arc::new(Worker::new(&tok_env)?);
        for index in 0..threads.max(1) {
            let (queue, worker) = (Arc::clone(&queue), Arc::clone(&worker));
            thread::Builder::new()
                .name(format!("grammar-{index}"))
                .stack_size(STACK_BYTES)
                .spawn(move || worker.run(&queue))
                .map_err(|error| GrammarError::Internal(format!("cannot start a compile thread: {error}")))?;
        }
        Ok(Self { tok_env, jobs: Mutex::new(jobs), worker })
    }

    /// How often a grammar was found compiled, and how often not.
    pub fn cache_stats(&self) -> CacheStats {
        let counts = &self.worker.counts;
        CacheStats { hits: counts.hits.load(Relaxed), misses: counts.misses.load(Relaxed) }
    }

    /// The tokenizer that the constraints speak.
    pub fn tok_env(&self) -> &TokEnv {
        &self.tok_env
    }

    /// Compiles Lark text. Blocks the caller's thread; see [`Self::compile`] for async callers.
    ///
    /// # Errors
    /// [`GrammarError::Compile`] when the grammar is malformed, unsatisfiable or too complex.
    pub fn compile_blocking(&self, lark: &str) -> Result<Constraint, GrammarError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.submit(lark.to_owned(), Reply::Blocking(reply))?;
        answer.recv().map_err(|_| stopped())?
    }

    /// Compiles Lark text on the pool without blocking the caller's thread.
    ///
    /// # Errors
    /// As [`Self::compile_blocking`].
    pub async fn compile(&self, lark: String) -> Result<Constraint, GrammarError> {
        let (reply, answer) = oneshot::channel();
        self.submit(lark, Reply::Async(reply))?;
        answer.await.map_err(|_| stopped())?
    }

    fn submit(&self, lark: String, reply: Reply) -> Result<(), GrammarError> {
        self.jobs.lock().send(Job { lark, reply }).map_err(|_| stopped())
    }
}

/// Where a compiled grammar goes.
enum Reply {
    Blocking(mpsc::SyncSender<Compiled>),
    Async(oneshot::Sender<Compiled>),
}

impl Reply {
    /// Nobody waits any more for a request that timed out or whose client left.
    fn is_wanted(&self) -> bool {
        match self {
            Self::Blocking(_) => true,
            Self::Async(reply) => !reply.is_closed(),
        }
    }

    fn send(self, compiled: Compiled) {
        match self {
            Self::Blocking(reply) => drop(reply.send(compiled)),
            Self::Async(reply) => drop(reply.send(compiled)),
        }
    }
}

fn stopped() -> GrammarError {
    GrammarError::Internal("the compile threads have stopped".into())
}

fn factory(tok_env: &TokEnv) -> Result<ParserFactory, GrammarError> {
    let mut factory = ParserFactory::new_simple(tok_env).map_err(|error| GrammarError::Internal(brief(&error)))?;
    factory.quiet();
    let limits = factory.limits_mut();
    limits.verbose_errors = false;
    limits.max_lexer_states = MAX_LEXER_STATES;
    Ok(factory)
}

/// Ambiguous grammars cost more with every token; schemas are never ambiguous.
fn narrow(tok_env: &TokEnv) -> Result<ParserFactory, GrammarError> {
    let mut factory = factory(tok_env)?;
    let limits = factory.limits_mut();
    limits.max_items_in_row = NARROW_ROW;
    limits.step_max_items = NARROW_STEP;
    limits.step_lexer_fuel = NARROW_FUEL;
    Ok(factory)
}

/// What the compile threads share.
struct Worker {
    factory: ParserFactory,
    /// For grammars that callers write themselves.
    narrow: ParserFactory,
    key_tokens: Arc<KeyTokens>,
    cache: Mutex<Cache>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Worker {
    fn new(tok_env: &TokEnv) -> Result<Self, GrammarError> {
        let key_tokens = Arc::new(KeyTokens::new(tok_env));
        let (factory, narrow) = (factory(tok_env)?, narrow(tok_env)?);
        Ok(Self { factory, narrow, key_tokens, cache: Mutex::default(), counts: Counts::default() })
    }

    fn run(&self, queue: &Mutex<mpsc::Receiver<Job>>) {
        loop {
            let job = queue.lock().recv();
            let Ok(Job { lark, reply }) = job else { return };
            if reply.is_wanted() {
                priority::in_background(|| reply.send(self.compile(&lark)));
            }
        }
    }

    fn compile(&self, lark: &str) -> Compiled {
        if let Some(constraint) = self.cache.lock().get(lark) {
            self.counts.hits.fetch_add(1, Relaxed);
            return Ok(constraint);
        }
        self.counts.misses.fetch_add(1, Relaxed);
        let compiled = catch_unwind(AssertUnwindSafe(|| self.compile_new(lark)));
        let constraint = compiled.unwrap_or_else(|_| Err(gave_up()))?;
        self.cache.lock().put(lark, constraint.fork());
        Ok(constraint)
    }

    fn compile_new(&self, lark: &str) -> Compiled {
        let factory = if lark.contains(CALLERS_OWN) { &self.narrow } else { &self.factory };
        let parser =
            factory.create_parser(TopLevelGrammar::from_lark(lark.to_owned())).map_err(|error| refused(&error))?;
        let keys = KeyGuard::of(lark, &self.key_tokens);
        Constraint::start(Matcher::new(Ok(parser)), keys).map_err(|error| refused(&error))
    }
}

fn gave_up() -> GrammarError {
    GrammarError::Compile("the grammar compiler gave up on this schema; simplify it".into())
}

fn refused(error: &anyhow::Error) -> GrammarError {
    let message = brief(error);
    if message.starts_with("panic") { gave_up() } else { GrammarError::Compile(message) }
}

/// The first line of an error, without the state and backtraces that may follow.
fn brief(error: &anyhow::Error) -> String {
    let text = error.to_string();
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('<')).unwrap_or("failed");
    line.chars().take(MAX_MESSAGE).collect()
}

/// Recently compiled grammars in their first state, the latest last.
#[derive(Default)]
struct Cache {
    entries: VecDeque<(String, Constraint)>,
    bytes: usize,
}

impl Cache {
    fn get(&mut self, lark: &str) -> Option<Constraint> {
        let index = self.entries.iter().position(|(key, _)| key == lark)?;
        let entry = self.entries.remove(index)?;
        let constraint = entry.1.fork();
        self.entries.push_back(entry);
        Some(constraint)
    }

    fn put(&mut self, lark: &str, constraint: Constraint) {
        if lark.len() > CACHED_BYTES || self.entries.iter().any(|(key, _)| key == lark) {
            return;
        }
        self.bytes += lark.len();
        self.entries.push_back((lark.to_owned(), constraint));
        while self.entries.len() > CACHED_GRAMMARS || self.bytes > CACHED_BYTES {
            let Some((key, _)) = self.entries.pop_front() else { return };
            self.bytes -= key.len();
        }
    }
}

#[cfg(test)]
#[path = "compiler_tests.rs"]
mod tests;
