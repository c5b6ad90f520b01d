//! Runs [`tollgate_fuzz::cells::line`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::cells::line(data));
