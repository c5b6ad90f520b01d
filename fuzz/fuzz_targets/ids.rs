//! Runs [`tollgate_fuzz::settings::ids`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::settings::ids(data));
