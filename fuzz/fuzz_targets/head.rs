//! Runs [`tollgate_fuzz::heads::head`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::heads::head(data));
