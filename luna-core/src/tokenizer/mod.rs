//! Text and token ids. Enters: prompts, chats, a `tokenizer.json`. Leaves: chunks of weighed tokens, ids, text again.
//! It must not know tensors, models, or where textual inversions and LoRAs are kept.
//!
//! - [`PromptTokenizer`]: a prompt to what a text encoder takes, equal to ComfyUI's to the digit.
//! - [`ClipTokenizer`]: CLIP's vocabulary, built in. [`FileTokenizer`]: any `tokenizer.json`, for T5 and Qwen3.
//! - [`ChatFormat`]: conversations as each language model was taught to read them.
//! - [`TextStream`]: text as ids arrive, never half a character.
//! - [`extract_lora_tags`]: `<lora:name:model:clip>` out of a prompt.

mod bpe;
mod chat;
mod chunks;
mod clip;
mod embedding;
mod file;
mod gguf;
mod lora_tags;
mod number;
mod prompt;
mod stream;
mod syntax;

pub use chat::{ChatFormat, ChatMessage, ChatPiece, MessagePart, Role};
pub use chunks::{ChunkRule, TokenPiece, WeightedToken};
pub use clip::ClipTokenizer;
pub use file::{ChatToken, FileTokenizer, SpecialTokens};
pub use lora_tags::{LoraTag, LoraTags, extract_lora_tags};
pub use prompt::{EmbeddingLookup, NoEmbeddings, PromptOptions, PromptTokenizer, TextToIds, TokenizedPrompt};
pub use stream::TextStream;
