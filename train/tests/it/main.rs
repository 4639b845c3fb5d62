//! The trainer's behaviour as a whole, on tiny random models.

mod recipes;
mod training;
