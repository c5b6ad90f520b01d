//! Runs [`tollgate_fuzz::heads::chunks`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::heads::chunks(data));
