//! Runs [`tollgate_fuzz::answers::gemini_array`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::answers::gemini_array(data));
