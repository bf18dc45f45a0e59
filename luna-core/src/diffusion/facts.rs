//! What a denoiser takes and gives, and whose conditioning it was trained on.

use std::num::NonZeroUsize;

/// The sizes of a denoiser's inputs and outputs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Facts {
    /// Channels of `x`: 4 (Stable Diffusion), 9 (its inpainting models), 16 (Flux, Z-Image).
    pub input_channels: usize,
    /// Channels of the prediction.
    pub output_channels: usize,
    /// Width of the context's tokens.
    pub context_width: usize,
    /// Width of the pooled conditioning `y`, for a model that takes one.
    pub y_width: Option<NonZeroUsize>,
    /// Whether the model takes a guidance scale as an input (Flux dev).
    pub takes_guidance: bool,
    /// Sides of `x` must be multiples of this.
    pub size_multiple: usize,
    /// The timestep of pure noise: 999 for UNets, 1 for flow models.
    pub last_timestep: f32,
}

/// The text encoder whose tokens have this width.
pub(super) fn encoder(width: usize) -> &'static str {
    match width {
        768 => " (CLIP-L, of SD1.5)",
        1024 => " (OpenCLIP-H, of SD2)",
        1280 => " (OpenCLIP-G, of the SDXL refiner)",
        2048 => " (CLIP-L and OpenCLIP-G side by side, of SDXL)",
        2560 => " (Qwen3-4B, of Z-Image)",
        4096 => " (T5-XXL, of Flux)",
        _ => "",
    }
}

/// The models whose latents have this many channels.
pub(super) fn latents(channels: usize) -> &'static str {
    match channels {
        4 => " (as of SD1.5, SD2 and SDXL)",
        8 => " (latent and picture to edit, as of InstructPix2Pix)",
        9 => " (latent, mask and masked latent, as of inpainting models)",
        16 => " (as of SD3, Flux and Z-Image)",
        _ => "",
    }
}
