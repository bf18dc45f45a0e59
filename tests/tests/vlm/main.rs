//! Vision-language models against what transformers computes with the same weights: logits, greedy tokens, prompts and
//! patches; how generation ends, streams and is cancelled; and inputs that are wrong.

mod bad_input;
mod fixtures;
mod generation;
mod gguf;
mod lora;
mod models;
