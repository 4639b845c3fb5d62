//! Admission: what is refused, where, how fast; and that what is admitted keeps its promise.

mod coverage;
mod exclusive;
mod fuzzed;
mod limits;
mod ratchet;
mod refusals;
mod rewriting;
mod sampling;
mod shapes;
mod strict;
