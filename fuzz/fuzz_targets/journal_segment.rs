//! Runs [`tollgate_fuzz::journal::any_segment`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::journal::any_segment(data));
