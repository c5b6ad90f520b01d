//! Runs [`tollgate_fuzz::readers::sse_scanner`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::readers::sse_scanner(data));
