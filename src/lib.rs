//! callsmith: fine-tune LoRA adapters for function calling and serve them.
//!
//! The path of a chat completion: [`api`] parses the request into [`chat`] types, leases an adapter generation from
//! [`adapter`], renders the prompt, lets the [`chat::dialect`] build one [`grammar`] for the whole turn, and hands token
//! ids and the compiled constraint to the [`engine`], whose one thread owns the [`model`] and its KV cache. Tokens come
//! back as events and are parsed into deltas by the same dialect.
//!
//! The trainer (package `callsmith-train`) uses `model`, `adapter`, `chat` and `grammar`, so that what is trained is
//! byte-identical to what is served and forced.

pub mod adapter;
pub mod chat;
pub mod engine;
pub mod gguf;
pub mod grammar;
pub mod model;
pub mod priority;
pub mod staging;

#[cfg(feature = "serve")]
pub mod api;
#[cfg(feature = "serve")]
pub mod bench;
#[cfg(any(test, feature = "serve"))]
mod bfcl;
#[cfg(feature = "serve")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "embedded-model")]
pub mod embedded;
#[cfg(feature = "serve")]
pub mod inspect;
#[cfg(feature = "serve")]
pub mod metrics;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(feature = "serve")]
pub mod settings;
#[cfg(feature = "serve")]
pub mod talk;
#[cfg(feature = "serve")]
pub mod telemetry;
#[cfg(test)]
mod testing;
#[cfg(feature = "client")]
mod tls;
#[cfg(feature = "client")]
pub mod visible;
