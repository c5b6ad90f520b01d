//! Runs [`tollgate_fuzz::sessions::messages`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::sessions::messages(data));
