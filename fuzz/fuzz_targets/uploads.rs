//! Runs [`tollgate_fuzz::door::uploads`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::door::uploads(data));
