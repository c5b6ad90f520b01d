//! Runs [`tollgate_fuzz::journal::recovery`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::journal::recovery(data));
