//! Admission: what is refused, where, how fast; and that what is admitted keeps its promise.

mod limits;
mod refusals;
mod sampling;
mod shapes;
mod suite;
