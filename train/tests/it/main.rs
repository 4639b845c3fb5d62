//! The trainer's behaviour as a whole, on tiny random models.

mod encoding;
mod fixture;
mod recipes;
mod training;
mod whole_run;
