//! Text encoders: prompts to conditioning, equal to ComfyUI's. Enters: checkpoints; then prompts or tokens with options.
//! Leaves: conditionings, with a report of what was left out or done otherwise. Knows no other model family.
//!
//! A [`TextModel`] holds the frozen encoders of one file. A [`Conditioner`] puts one or more of them together as a
//! diffusion model's [`Recipe`] says, and tokenizes and encodes. [`EmbeddingFolders`] give it textual inversions, a
//! [`ConditioningCache`] spares it doing the same twice.

mod cache;
mod clip;
mod conditioner;
mod demo;
mod embeddings;
mod encoder;
mod kind;
mod model;
mod options;
mod qwen3;
mod recipe;
mod sequence;
mod t5;
mod tokens;
mod wish;

pub use cache::{CacheUsage, ConditioningCache};
pub use clip::ClipActivation;
pub use conditioner::Conditioner;
pub use embeddings::{EmbeddingFolders, EmbeddingProblem};
pub use kind::EncoderKind;
pub use model::{EncoderInfo, TextLoadOptions, TextModel};
pub use options::{Encoded, EncodedPrompt, Fallback, Prompt, TextOptions, TokenIds};
pub use recipe::Recipe;
pub use tokens::{EncoderTokens, Tokenized};
