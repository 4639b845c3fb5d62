//! Fuzz target: what the grammar of an admitted schema lets through, the schema's validator takes.
#![no_main]

mod schema;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| schema::schema_decode_differential(bytes));
