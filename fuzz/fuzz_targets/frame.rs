//! Fuzzes frames of the daemon's wire: length, body, request.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| luna_tests::fuzz::frame(data));
