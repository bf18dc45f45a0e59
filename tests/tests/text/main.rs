//! Text encoders against ComfyUI's and transformers' own answers, and against files and prompts made to break them.
//! `fixtures/text/make.py` says where the answers come from.

mod bad_input;
mod cache;
mod clip;
mod lora;
mod lora_proof;
mod others;
mod storage;
