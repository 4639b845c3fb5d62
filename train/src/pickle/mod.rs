//! PyTorch's files (`.pth`, `.pt`): a zip of one pickle and the bytes of tensors, read and written as data alone.
//!
//! A pickle is a program that may call anything. Here nobody runs it: `machine` turns its instructions into inert nodes,
//! `globals` lists the names that may stand in it, and every other name or instruction is refused. Nodes refer to each other
//! by number, so a hostile file can neither nest deeply, nor grow by repetition, nor refer to itself with any effect.
//! Knows no models: see [`crate::convert`] for what the files hold.

mod file;
mod globals;
mod machine;
mod node;
mod op;
mod tensor;
mod write;

pub use file::TorchFile;
pub use globals::Content;
pub use node::Item;
pub use tensor::TorchTensor;
pub use write::write;

/// What is wrong with a file; the message names the place in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PickleError(pub String);

/// A result about the inside of a file.
type Result<T> = std::result::Result<T, PickleError>;

fn refuse<T>(message: impl Into<String>) -> Result<T> {
    Err(PickleError(message.into()))
}

#[cfg(test)]
mod tests;
