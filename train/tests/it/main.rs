//! The trainer's behaviour as a whole, on tiny random models.

#![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

mod convert;
mod encoding;
mod fixture;
mod generations;
mod merge;
mod models;
mod ranks;
mod recipes;
mod torch_save;
mod training;
mod watching;
mod whole_run;
mod zero;
