//! Fuzzes the header of a checkpoint, the recogniser and the building of a model from what passes both.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| luna_tests::fuzz::checkpoint(data));
