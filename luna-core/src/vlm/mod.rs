//! Vision-language models: pictures and a prompt to text. Enters: a checkpoint; then a chat with pictures, or ids with
//! patches that were prepared already. Leaves: text and ids, as they are generated. Uses `vision` for pictures.
//!
//! A [`VlmModel`] holds the frozen weights and the tokenizer of one file: Qwen3-VL or LLaVA 1.5. [`VlmModel::describe`]
//! takes pictures and words, [`VlmModel::generate`] a prepared [`VlmInput`]. What one generation remembers of its tokens
//! belongs to it alone.

mod decoder;
mod embed;
mod eyes;
mod generation;
mod input;
mod llava;
mod model;
mod options;
mod prompt;
mod qwen3_vl;
mod sampler;
mod stops;

pub use generation::{FinishReason, Generated, Timings};
pub use input::{Patches, VlmInput};
pub use model::{VlmFamily, VlmInfo, VlmModel};
pub use options::{Fallback, GenerateOptions, Piece, Sampling, VlmLoadOptions};
pub use prompt::Question;
