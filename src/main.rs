//! The `callsmith` binary: parse, resolve, start.
fn main() {}
