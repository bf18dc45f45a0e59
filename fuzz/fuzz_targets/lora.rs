//! Fuzzes the names and shapes of LoRA files, and how what can be read is matched with a model's layers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| luna_tests::fuzz::lora(data));
