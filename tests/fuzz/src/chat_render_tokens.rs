//! Fuzz target: no control token of a prompt comes from what a caller wrote.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| callsmith::chat::fuzzing::chat_render_tokens(bytes));
