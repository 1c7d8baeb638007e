//! Fuzzes what `tests/properties` says of `chunk`.
#![no_main]

#[path = "../../tests/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::chunk(data));
