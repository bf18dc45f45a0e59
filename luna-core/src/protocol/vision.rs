//! Requests and replies of vision encoders and vision-language models.

use super::{LoraOutcome, LoraUse};
use serde::{Deserialize, Serialize};

/// `encode_vision`: pictures to hidden states and embeddings, as one batch. The tensors are `image_0`, `image_1`, …,
/// `[batch, height, width, 1 or 3 or 4]` in 0..1, of any sizes; or `pixel_values` alone, `[batch, 3, height, width]`,
/// preprocessed already.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodeVision {
    /// The model's name or id; may be left out where one registered model holds a vision encoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Parts of each picture, `[top, left, height, width]` in pixels; the whole where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<[usize; 4]>,
    /// Of activations: `f32`, `bf16` or `f16`; the daemon's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// Which tensors the reply shall have, by name; all if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
}

/// The reply to `encode_vision`, with the tensors `last_hidden_state` and `penultimate`, `[batch, tokens, channels]`, and
/// where the model has them `pooler_output` and `image_embeds`, `[batch, channels]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VisionEncoded {
    /// Which encoder did it.
    pub model: VisionModelInfo,
    /// The precision of the result.
    pub precision: String,
    /// Seconds from call to result.
    pub seconds: f64,
}

/// A vision encoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VisionModelInfo {
    /// What requests call it.
    pub name: String,
    /// `clip_vision` or `siglip`.
    pub kind: String,
    /// Side of the pictures that it looks at.
    pub image_size: usize,
    /// Side of a patch.
    pub patch_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Length of a token.
    pub channels: usize,
}

/// `vlm_generate`: pictures and words to text. The tensors are `image_0`, `image_1`, … as of `encode_vision`, in the
/// order that the model sees them.
///
/// In the place of `prompt` may stand `messages`, whose pictures are these tensors; or `ids` with `grids` and the tensor
/// `pixel_values`, as transformers' processors make them.
///
/// With `stream` each piece comes as an event `text` while it is generated.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VlmGenerate {
    /// The model's name or id; may be left out where one registered model is a vision-language model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Instructions that stand above the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// A conversation that the model goes on with, as transformers' chat templates take it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<ChatTurn>,
    /// A prepared prompt, with places for the pictures' tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<u32>>,
    /// Patches of each picture in `pixel_values` `[patches, length]`: frames, rows, columns. Without grids
    /// `pixel_values` are whole pictures, `[pictures, 3, height, width]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grids: Vec<[usize; 3]>,
    /// Tokens to generate at most; 512 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    /// How tokens are chosen; always the most likely if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<SamplingWish>,
    /// What is added to the weights for this request. The strength that counts is `clip`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<LoraUse>,
    /// Makes an error of every adapter for this model that cannot be applied.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
    /// How they are applied: `functional` (if not given), `merged`, or `auto`, which goes by `max_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_mode: Option<String>,
    /// Generation ends before the first of these that the text would contain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Whether generation goes on where the model would end its turn.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub past_the_end: bool,
    /// Of activations: `f32`, `bf16` or `f16`; the daemon's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// Whether pieces come while they are generated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatTurn {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said and shown, in order.
    pub content: Vec<ChatContent>,
}

/// A part of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum ChatContent {
    /// Words.
    Text {
        /// They.
        text: String,
    },
    /// The next picture of the tensors; of a tensor with several, the next of these.
    Image {},
}

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingWish {
    /// Divides the logits; 0 takes the most likely token always.
    pub temperature: f32,
    /// Only so many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Only tokens at least this times as likely as the most likely; 0 keeps all.
    pub min_p: f32,
    /// Makes tokens that occurred less likely; 1 does nothing.
    pub repetition_penalty: f32,
    /// The same seed chooses the same tokens.
    pub seed: u64,
}

impl Default for SamplingWish {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// The reply to `vlm_generate`, when all is generated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VlmGenerated {
    /// Which model did it.
    pub model: VlmModelInfo,
    /// The text; `None` for a model without a tokenizer.
    pub text: Option<String>,
    /// All tokens that were generated.
    pub ids: Vec<u32>,
    /// What became of the LoRAs, where any were given.
    #[serde(default)]
    pub loras: Option<LoraOutcome>,
    /// Tokens of the prompt, pictures included.
    pub prompt_tokens: usize,
    /// Tokens of pictures.
    pub picture_tokens: usize,
    /// Why it ended: `end_of_turn`, `stop_string`, `max_tokens`, `context_full`.
    pub finish: String,
    /// The precision that was used in the end.
    pub precision: String,
    /// Seconds up to the first token.
    pub prompt_seconds: f64,
    /// Seconds of all tokens after it.
    pub generation_seconds: f64,
    /// Bytes that remembering the tokens took.
    pub cache_bytes: u64,
}

/// A vision-language model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VlmModelInfo {
    /// What requests call it.
    pub name: String,
    /// `qwen3_vl` or `llava`.
    pub family: String,
}
