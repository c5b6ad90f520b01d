//! Runs [`tollgate_fuzz::journal::events`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::journal::events(data));
