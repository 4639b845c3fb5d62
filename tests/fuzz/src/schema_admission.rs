//! Fuzz target: any bytes as a schema are refused, or compile and give masks; nothing breaks.
#![no_main]

mod schema;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| schema::schema_admission(bytes));
