//! Runs [`tollgate_fuzz::requests::form`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::requests::form(data));
