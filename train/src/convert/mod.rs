//! `callsmith-train convert`: checkpoints from one form into another, without running anything that is in them.
//!
//! [`meta`]: Meta's `consolidated.NN.pth` ↔ Hugging Face; [`gguf`]: Hugging Face → GGUF; [`zero`]: DeepSpeed ZeRO → weights in
//! f32. What is written appears whole or not at all.

pub mod gguf;
pub mod meta;
pub mod zero;
