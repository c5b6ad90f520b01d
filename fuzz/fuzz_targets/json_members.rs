//! Runs [`tollgate_fuzz::readers::json_members`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::readers::json_members(data));
