//! The integration tests: one binary, in-process servers over a tiny random model, no network, no fixed port.
#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

mod support;

/// Keys and what they open.
mod access;
/// Loading, using, replacing and unloading adapters over HTTP.
mod adapters;
/// A random model's constrained answers always parse and validate.
mod always_valid;
/// Wrong fields, bad schemas and broken bodies are refused and disturb nothing.
mod bad_input;
/// The load generator.
mod bench;
/// Text completions, structured outputs, tokens.
mod completions;
/// Schemas that cost much are refused or compiled in time, beside streams that keep their pace.
mod costly_schemas;
/// Every cut of a call is a beginning of it.
mod cut_answers;
/// Reference chains and nesting of any depth.
mod deep_schemas;
/// Dialects, thoughts and turns over HTTP.
mod dialects;
/// The API's description, and the pages.
mod documents;
/// An engine that panics, hangs or ends.
#[cfg(feature = "failpoints")]
mod faults;
/// Models in GGUF files.
mod gguf;
/// The compiled grammars that are kept.
mod grammar_cache;
/// Hostile values in every field, broken bytes, endless names.
mod hostile;
/// Templates come from no request and no adapter.
mod no_templates;
/// A schema makes the server open nothing.
mod nothing_fetched;
/// Models with one wish.
mod one_sided_models;
/// Probes, metrics, request ids, unknown routes, shedding and draining in process.
mod operations;
/// Prompts that begin alike.
mod prefix_cache;
/// The real binary: start-up, signals, exit codes.
mod process;
/// Invalid schemas, unknown keywords.
mod refused_schemas;
/// OpenAI's Responses API.
mod responses;
/// Adapters that are soft prompts.
mod soft_prompts;
/// Streams: OpenAI's chunk sequence, and the same content as whole responses.
mod streaming;
/// A chat in the terminal.
mod talk;
/// Plain text: stop strings, logprobs, seeds, several choices, JSON answers.
mod text;
/// Tool choice in all its modes.
mod tool_calls;
/// Traces over OTLP.
#[cfg(feature = "otel")]
mod traces;
/// A data file → a trained adapter → a hot-load → another answer.
mod train_then_serve;
/// Each kind of stream, byte for byte.
mod transcripts;
/// Raw connections, slow ones and lost ones; signals; the log.
mod transport;
/// KServe v2 and Triton's extensions.
mod triton;
/// Adapters with a chat template and a dialect of their own.
mod voices;
