//! Fuzz target: what the grammar of an admitted schema lets through, the schema's validator takes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    callsmith::grammar::fuzzing::schema_decode_differential(bytes);
});
