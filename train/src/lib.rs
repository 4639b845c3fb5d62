//! Training of decoders and adapters, and the data for it.

pub mod data;
