//! Runs [`tollgate_fuzz::frames::cut`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::frames::cut(data));
