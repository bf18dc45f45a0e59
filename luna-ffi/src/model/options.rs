//! What denoisers are loaded and called with, and what is known of them. Enters: structs of the header. Leaves: what a call
//! asks for, as the library has it.

use crate::{
    error::Result,
    handle::Caller,
    options::{attention, precision},
    types::{luna_call, luna_loras},
    view::luna_view,
};
use luna_core::{AttentionMode, Precision, diffusion::CacheOptions};
use std::ffi::c_char;

crate::handle::records!(luna_model_load_options, luna_model_info, luna_forward_input, luna_forward_options);

/// Options of `luna_model_load`. All zeros but `size` is a good choice.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_model_load_options {
    /// `sizeof(luna_model_load_options)`.
    pub size: usize,
    /// How attention is computed where a call does not say: a `luna_attention`.
    pub attention: i32,
    /// The precision of weights on devices other than the CPU: a `luna_precision`.
    pub precision: i32,
}

/// What a denoiser takes and gives.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_model_info {
    /// `sizeof(luna_model_info)`, set by the caller.
    pub size: usize,
    /// Its architecture, such as `Flux transformer`; valid for ever.
    pub family: *const c_char,
    /// Channels of `x`.
    pub input_channels: u64,
    /// Channels of the prediction.
    pub output_channels: u64,
    /// Width of the context's tokens.
    pub context_width: u64,
    /// Width of `y`; 0 for a model that takes none.
    pub y_width: u64,
    /// Whether it takes a guidance scale: 0 or 1.
    pub takes_guidance: u32,
    /// Sides of `x` must be multiples of this.
    pub size_multiple: u32,
    /// The timestep of pure noise.
    pub last_timestep: f32,
    /// 0.
    pub reserved: u32,
    /// Bytes of its weights.
    pub weight_bytes: u64,
}

/// What a denoiser is called with, as ComfyUI's `diffusion_model(x, timesteps, context, y=...)`. What the model does not
/// take is NULL.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_forward_input {
    /// `sizeof(luna_forward_input)`.
    pub size: usize,
    /// The noisy latent, scaled as the sampler's model sees it, `[batch, channels, height, width]`.
    pub x: *const luna_view,
    /// `[batch]`: 0..999 for UNets; 0 (no noise) to 1 for Flux and Z-Image.
    pub timesteps: *const luna_view,
    /// The text encoder's tokens, `[batch, tokens, width]`.
    pub context: *const luna_view,
    /// The pooled conditioning, `[batch, width]`.
    pub y: *const luna_view,
    /// `[batch]`: the guidance scale, for models distilled with it.
    pub guidance: *const luna_view,
    /// What ControlNets add on the input side; NULL among them for a place that nothing is added at.
    pub control_input: *const *const luna_view,
    /// How many there are.
    pub control_input_count: usize,
    /// What they add in the middle.
    pub control_middle: *const *const luna_view,
    /// How many there are.
    pub control_middle_count: usize,
    /// What they add on the output side.
    pub control_output: *const *const luna_view,
    /// How many there are.
    pub control_output_count: usize,
}

/// Options of `luna_model_forward`. All zeros but `size` is a good choice.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_forward_options {
    /// `sizeof(luna_forward_options)`.
    pub size: usize,
    /// A `luna_precision`.
    pub precision: i32,
    /// A `luna_attention`.
    pub attention: i32,
    /// Cancellation, progress and log; all zero for none.
    pub call: luna_call,
    /// LoRAs for this call; all zero for none.
    pub loras: luna_loras,
    /// Names the sampling in the session's first-block cache: where the first block changed little since the last full
    /// step, what the later blocks added then is added again. Positive and negative prompt need a name each if they are
    /// called one after the other. NULL computes every step. `luna_steps_forget` drops what is kept.
    pub cache_sequence: *const c_char,
    /// The most that the first block's addition may differ: mean absolute difference over mean absolute value; 0 for 0.12,
    /// less for a cache that never answers.
    pub cache_threshold: f32,
    /// How far the sampling must have come, 0 to 1, before the cache answers.
    pub cache_start_percent: f32,
    /// How far the sampling may have come, 0 to 1, for the cache to answer; 0 for 1.
    pub cache_end_percent: f32,
    /// How many steps in a row may be answered; 0 for any number.
    pub cache_max_hits: u32,
}

/// How a step is to be done.
pub(super) struct Asked {
    pub(super) precision: Precision,
    pub(super) attention: AttentionMode,
    /// The sampling's name in the first-block cache.
    pub(super) sequence: Option<(String, CacheOptions)>,
}

impl Asked {
    pub(super) fn new(caller: &Caller, options: &luna_forward_options, usual: AttentionMode) -> Result<Self> {
        let or = |number: f32, usual: f32| if number == 0.0 { usual } else { number };
        let mut cache = CacheOptions::default();
        // Less than 0 never answers, which is 0 there; what is not a number stays wrong.
        cache.threshold = or(options.cache_threshold, cache.threshold);
        if cache.threshold < 0.0 {
            cache.threshold = 0.0;
        }
        cache.start_percent = options.cache_start_percent;
        cache.end_percent = or(options.cache_end_percent, cache.end_percent);
        cache.max_consecutive_hits = Some(options.cache_max_hits).filter(|&most| most > 0);
        let name = caller.optional_text("cache_sequence", options.cache_sequence)?;
        Ok(Self {
            precision: precision(options.precision)?,
            attention: attention(options.attention)?.unwrap_or(usual),
            sequence: name.map(|name| (name.to_owned(), cache)),
        })
    }
}
