//! Runs [`tollgate_fuzz::requests::json`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::requests::json(data));
