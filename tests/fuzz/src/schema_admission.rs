//! Fuzz target: any bytes as a schema are refused, or compile and give masks; nothing breaks.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| callsmith::grammar::fuzzing::schema_admission(bytes));
