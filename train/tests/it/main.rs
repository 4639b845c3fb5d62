//! The trainer's behaviour as a whole, on tiny random models.

#![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]
#![expect(clippy::print_stdout, reason = "what was counted, for who looks")]

mod cache;
mod convert;
mod data_files;
mod data_synth;
mod diverging;
mod encoding;
mod evaluating;
#[cfg(feature = "failpoints")]
mod faults;
mod fixture;
mod generations;
mod importing;
mod kills;
mod merge;
mod models;
mod new_tokens;
mod no_space;
mod process;
mod prompts;
mod ranks;
mod recipes;
mod rivals;
mod signals;
mod stops;
mod templates;
mod torch_save;
mod training;
mod watching;
mod whole_run;
mod zero;
