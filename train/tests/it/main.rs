//! The trainer's behaviour as a whole, on tiny random models.

#![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

mod encoding;
mod fixture;
mod recipes;
mod training;
mod whole_run;
