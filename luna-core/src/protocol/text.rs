//! Requests and replies of text encoders.

use super::{LoraUse, TextLoraOutcome, head::is_default};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What every request of text encoders may say.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextWish {
    /// Names or ids of the models whose encoders work together; the only one registered if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// What the conditioning is made for: `sd1`, `sd2`, `sdxl`, `sdxl_refiner`, `sd3`, `flux`, `t5`, `z_image`; what the
    /// encoders are usual for if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// Which layer is taken: 1 the last, 2 the one before; what the recipe is used to if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_skip: Option<usize>,
    /// Of activations: `f32`, `bf16` or `f16`; the daemon's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// How attention is computed: `auto`, `flash`, `split`, `pytorch`; what `set_attention_mode` said if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<String>,
    /// LoRAs of this call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<LoraUse>,
    /// Whether every adapter that is for these encoders must be applied.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
    /// Whether `BREAK` ends a chunk, as in A1111's web UI.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub break_chunks: bool,
    /// Whether `[text]` weighs less, as in A1111's web UI.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub square_brackets: bool,
    /// Whether T5 may not look at its padding.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub t5_mask: bool,
    /// The least number of tokens that T5 is padded to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub t5_tokens: Option<usize>,
    /// Whether `<lora:name:model:clip>` tags are taken out of the prompts, and the LoRAs that they name added to `loras`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lora_tags: bool,
}

/// `clip_tokenize`: what each encoder reads.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipTokenize {
    /// The prompt.
    pub text: String,
    /// What CLIP-L reads in place of `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_l: Option<String>,
    /// What CLIP-G reads in place of `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_g: Option<String>,
    /// What T5 reads in place of `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_t5: Option<String>,
    /// The only encoder that is asked for. Where no model is named and it is a CLIP (`clip_l`, `clip_g`, `clip_h`), whose
    /// vocabulary Luna carries, no model is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<String>,
    /// Which encoders and how.
    #[serde(default, skip_serializing_if = "is_default")]
    pub with: TextWish,
}

/// The reply to `clip_tokenize`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tokens {
    /// Each encoder's chunks: `clip_l`, `clip_g`, `clip_h`, `t5`, `qwen3`.
    pub tokens: BTreeMap<String, Vec<Vec<TokenPlace>>>,
    /// Textual inversions that were left out.
    pub problems: Vec<TextProblem>,
}

/// A textual inversion that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextProblem {
    /// `missing`, `unreadable` or `wrong_width`.
    pub kind: String,
    /// Its name in the prompt.
    pub name: String,
    /// The encoder that does without it.
    pub encoder: String,
    /// Words for a person.
    pub message: String,
}

/// One place of a chunk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenPlace {
    /// The token, unless a textual inversion stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// The textual inversion, and which of its vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<(String, u32)>,
    /// How much it counts.
    pub weight: f64,
}

/// `clip_encode`: a positive and a negative prompt, in one batch.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipEncode {
    /// What the picture shall show.
    pub positive: String,
    /// What it shall not; not encoded if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative: Option<String>,
    /// What CLIP-L reads in place of `positive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positive_l: Option<String>,
    /// What CLIP-L reads in place of `negative`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_l: Option<String>,
    /// What CLIP-G reads in place of `positive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positive_g: Option<String>,
    /// What CLIP-G reads in place of `negative`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_g: Option<String>,
    /// What T5 reads in place of `positive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positive_t5: Option<String>,
    /// What T5 reads in place of `negative`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_t5: Option<String>,
    /// Which encoders and how.
    #[serde(default, skip_serializing_if = "is_default")]
    pub with: TextWish,
}

/// `clip_encode_sdxl`: as `clip_encode`, with the sizes that SDXL's denoiser is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipEncodeSdxl {
    /// What the picture shall show.
    pub positive: String,
    /// What it shall not; not encoded if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative: Option<String>,
    /// What CLIP-L reads in place of `positive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positive_l: Option<String>,
    /// What CLIP-L reads in place of `negative`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_l: Option<String>,
    /// Which encoders and how.
    #[serde(default, skip_serializing_if = "is_default")]
    pub with: TextWish,
    /// Width of the picture before any cropping.
    #[serde(default = "usual_side")]
    pub width: u32,
    /// Its height.
    #[serde(default = "usual_side")]
    pub height: u32,
    /// How much is cut off at the left.
    #[serde(default)]
    pub crop_w: u32,
    /// How much is cut off at the top.
    #[serde(default)]
    pub crop_h: u32,
    /// Width after cropping.
    #[serde(default = "usual_side")]
    pub target_width: u32,
    /// Height after cropping.
    #[serde(default = "usual_side")]
    pub target_height: u32,
}

fn usual_side() -> u32 {
    1024
}

/// `clip_encode_from_tokens`: token ids in place of prompts, for one encoder.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipEncodeFromTokens {
    /// Ids of each prompt, with start, end and padding as the encoder wants them.
    pub tokens: Vec<Vec<u32>>,
    /// Which of them count, as many as there are ids; all up to the end token if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masks: Option<Vec<Vec<bool>>>,
    /// Which encoder and how.
    #[serde(default, skip_serializing_if = "is_default")]
    pub with: TextWish,
}

/// `zimage_encode`: prompts by Qwen3, as Z-Image listens to them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZimageEncode {
    /// What the picture shall show.
    pub text: String,
    /// What it shall not; not encoded if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_text: Option<String>,
    /// Which encoder and how.
    #[serde(default, skip_serializing_if = "is_default")]
    pub with: TextWish,
}

/// The reply to each of them, with the tensors `cond` and `uncond`, `[1, tokens, channels]`, and where the encoders give
/// them `pooled`, `pooled_neg`, `[1, channels]`, and `mask`, `mask_neg`, U8 `[1, tokens]`. From tokens they are `cond_0`,
/// `pooled_0`, `mask_0`, `cond_1` and so on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextEncoded {
    /// What the conditioning was made for.
    pub recipe: String,
    /// The encoders that took part.
    pub encoders: Vec<TextEncoderInfo>,
    /// Each prompt, in order.
    pub prompts: Vec<PromptReport>,
    /// What became of the LoRAs on each model, where any were given.
    pub loras: Vec<TextLoraOutcome>,
    /// What tags in the prompts said, where they were taken out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lora_tags: Vec<LoraUse>,
    /// Tags that could not be read, as written; they are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub malformed_tags: Vec<String>,
    /// Different sequences that the encoders read.
    pub sequences: usize,
    /// The sizes that SDXL's denoiser is told: width, height, crop at the left and top, width and height after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sizes: Option<[u32; 6]>,
    /// The precision that was asked for.
    pub precision: String,
    /// How attention was computed.
    pub attention: String,
    /// Seconds from call to result.
    pub seconds: f64,
}

/// A text encoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextEncoderInfo {
    /// `clip_l`, `clip_g`, `clip_h`, `t5`, `qwen3`.
    pub encoder: String,
    /// The model that holds it, by the name that requests use.
    pub model: String,
    /// Number of layers.
    pub layers: usize,
    /// Length of a token's encoding.
    pub channels: usize,
    /// Number of token embeddings.
    pub vocabulary: usize,
    /// Tensors of its component that it has no use for.
    pub unused_tensors: Vec<String>,
}

/// What became of one prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptReport {
    /// Whether it had been encoded before.
    pub cached: bool,
    /// Textual inversions that were left out.
    pub problems: Vec<TextProblem>,
}
