//! Runs [`tollgate_fuzz::settings::prices`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::settings::prices(data));
