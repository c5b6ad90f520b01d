//! Runs [`tollgate_fuzz::requests::path`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::requests::path(data));
