//! callsmith-train: trains adapters and whole models for function calling, on the server's own decoder and prompts.
//!
//! The path of a run ([`run`]): [`recipe`] → [`trainable`] (a decoder whose tensors are variables) → [`dataset`]
//! (samples by index, rendered and tokenised as the server does it) → [`collate`] → [`trainer`] ([`loss`], [`optim`],
//! [`schedule`]) → [`checkpoint`] → [`export`] of what the server loads. Trainer and server share files, not state.
//!
//! Several processes run it together as [`ranks`]: each works on its share of every step, and the first one writes.
//!
//! Before it: [`stats`] of data files and their [`split`], and [`fetch`] of those that are named by URL.
//!
//! Beside it: [`merge`] of adapters into their base and [`convert`] between forms of checkpoints, both from [`tensors`] in files.

pub mod atomic;
pub mod checkpoint;
pub mod cli;
pub mod collate;
pub mod convert;
pub mod data;
pub mod dataset;
pub mod error;
pub mod eval;
pub mod export;
mod faults;
pub mod fetch;
mod lock;
pub mod loss;
pub mod merge;
pub mod model_dir;
pub mod monitor;
pub mod new_tokens;
pub mod noise;
pub mod optim;
pub mod own_tokenizer;
mod page;
pub mod pickle;
pub mod random;
pub mod ranks;
pub mod recipe;
pub mod run;
pub mod schedule;
pub mod selection;
pub mod split;
pub mod stats;
pub mod stop;
pub mod tensors;
#[cfg(test)]
mod testing;
pub mod trainable;
pub mod trainer;

pub use error::{Result, TrainError};
