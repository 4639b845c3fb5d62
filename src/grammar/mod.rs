//! Schemas in, token masks out. Refuses at once what it cannot enforce exactly; never falls back.
//!
//! Knows no dialect and no engine: a grammar is Lark text whose `%json` parts hold admitted schemas.

pub mod compiler;
pub mod constraint;
pub mod custom;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod keys;
pub mod schema;
pub mod strict_json;
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), expect(dead_code, reason = "fuzz targets use a part of it"))]
pub(crate) mod testing;
pub mod text;

pub use compiler::{CacheStats, GrammarCompiler};
pub use constraint::Constraint;
pub use keys::FREE_NAMES;

/// Why a schema or grammar is refused. `pointer` is a JSON pointer into the caller's schema.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GrammarError {
    /// A keyword or construct that cannot be enforced exactly, or is malformed.
    #[error("at `{pointer}`: {message}")]
    Schema { pointer: String, message: String },
    /// A limit of the schema guard.
    #[error("schema too complex at `{pointer}`: {message}")]
    TooComplex { pointer: String, message: String },
    /// llguidance refused the grammar (the client's fault: the schema).
    #[error("{0}")]
    Compile(String),
    /// Something broke on our side.
    #[error("internal grammar error: {0}")]
    Internal(String),
}
