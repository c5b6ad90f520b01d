//! Runs [`tollgate_fuzz::answers::sse`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::answers::sse(data));
