//! Requests and replies of denoisers.

use super::{LoraOutcome, LoraUse};
use serde::{Deserialize, Serialize};

/// `model_forward`: one step of a sampler. The tensors are `x` `[batch, channels, height, width]`, `timesteps` `[batch]`,
/// `context` `[batch, tokens, width]` and, where the model takes them, `y` `[batch, width]`, `guidance` `[batch]` and
/// residuals of ControlNets: `control/input/0` and so on, `control/middle/0`, `control/output/0`; an index that is left
/// out is an empty place of ComfyUI's list.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelForward {
    /// The model's name or id; may be left out where one registered model holds a denoiser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// LoRAs of this call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<LoraUse>,
    /// Whether every adapter that is for this model must be applied.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
    /// How LoRAs are applied: `functional` (with each call), `merged` (into a copy of the layers that is kept until
    /// another stack comes) or `auto` (merged if that pays); `functional` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_mode: Option<String>,
    /// For `auto`: how many calls with this stack will come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwards: Option<usize>,
    /// How attention is computed: `auto`, `flash`, `split`, `pytorch`; what `set_attention_mode` said if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<String>,
    /// Of activations: `f32`, `bf16` or `f16`; the daemon's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// Reuses the work of an earlier step where the first block changed little.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<ForwardCache>,
}

/// A sampling's place in the first-block cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardCache {
    /// Names the sampling among this client's; other clients' names do not meet it. Positive and negative prompt need one
    /// each if they are called one after the other.
    pub sequence: String,
    /// The most that the first block's addition may differ from the last full step's; 0.12 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    /// How far the sampling must have come, 0 to 1; 0 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_percent: Option<f32>,
    /// How far it may have come, 0 to 1; 1 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_percent: Option<f32>,
    /// How many steps in a row may be answered so; any number if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_consecutive_hits: Option<u32>,
}

/// The reply to `model_forward`, with the tensor `out`, `[batch, channels, height, width]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forwarded {
    /// Which denoiser did it.
    pub model: DenoiserInfo,
    /// What became of the LoRAs, where any were given.
    #[serde(default)]
    pub loras: Option<LoraOutcome>,
    /// How it was done.
    pub report: ForwardReport,
}

/// A denoiser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DenoiserInfo {
    /// What requests call it.
    pub name: String,
    /// Its architecture.
    pub family: String,
    /// Bytes of its weights in memory.
    pub weight_bytes: u64,
    /// Channels of `x`.
    pub input_channels: usize,
    /// Channels of the prediction.
    pub output_channels: usize,
    /// Width of the context's tokens.
    pub context_width: usize,
    /// Width of `y`, for a model that takes it.
    pub y_width: Option<usize>,
    /// Whether it takes `guidance`.
    pub takes_guidance: bool,
    /// Sides of `x` must be multiples of this.
    pub size_multiple: usize,
    /// The timestep of pure noise.
    pub last_timestep: f32,
}

/// How a step was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForwardReport {
    /// The precision of the result.
    pub precision: String,
    /// How attention was computed.
    pub attention: String,
    /// What the first-block cache did, where one was asked for.
    pub cache: Option<CacheOutcome>,
    /// Seconds from call to result.
    pub seconds: f64,
}

/// What the first-block cache did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CacheOutcome {
    /// Whether it answered for all blocks but the first.
    pub hit: bool,
    /// Hits in a row, this one included.
    pub consecutive_hits: u32,
    /// By how much the first block's addition differed from the last full step's, where there was one of this shape.
    pub difference: Option<f32>,
}

/// `set_attention_mode`: how this client's calls compute attention from now on, where they do not say it themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetAttentionMode {
    /// `auto`, `flash`, `split` or `pytorch`.
    pub mode: String,
}

/// The reply to `set_attention_mode`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttentionModeSet {
    /// The mode from now on.
    pub mode: String,
    /// The mode before.
    pub previous: String,
}
