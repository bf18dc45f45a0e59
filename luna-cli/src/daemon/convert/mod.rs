//! The only place between the protocol's types and the library's, a file for each family. Enters: fields of requests,
//! results of the library. Leaves: options of the library, fields of replies.

mod diffusion;
mod lora;
mod save;
mod text;
mod vae;
mod vision;

pub use diffusion::{StepTensors, apply_mode, cached_sequence, denoiser_info, forward_notices, forward_report};
pub use lora::{lora_info, source_name};
pub use save::{job_state, save_job};
pub use text::{
    chunks, missing_embedding, prompt_reports, recipe, sizes, text_encoders, text_notices, text_options, token_ids,
    tokens,
};
pub use vae::{decode_options, encode_options, image, latent, vae_info, vae_notices, vae_report};
pub use vision::{
    Pictures, conversation, generate_options, patches, pictures, pixel_values, region, vision_info, vision_notices,
    vlm_generated, vlm_notices,
};

use luna_core::{AttentionMode, Precision, Result, protocol::Notice};

/// What requests that say nothing get.
pub struct Defaults {
    pub precision: Precision,
    pub attention: AttentionMode,
}

/// A precision by name.
pub fn precision(name: Option<&str>, defaults: &Defaults) -> Result<Precision> {
    name.map_or(Ok(defaults.precision), str::parse)
}

/// An attention mode by name.
pub fn attention(name: Option<&str>, defaults: &Defaults) -> Result<AttentionMode> {
    name.map_or(Ok(defaults.attention), str::parse)
}

fn notice(name: &str, message: impl ToString) -> Notice {
    Notice { name: name.to_owned(), message: message.to_string() }
}
