//! The `callsmith-train` binary.
fn main() {}
