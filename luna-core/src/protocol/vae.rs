//! Requests and replies of VAEs.

use serde::{Deserialize, Serialize};

/// `vae_encode`: the tensor `pixels`, `[batch, height, width, 1 or 3 or 4]` in 0..1, becomes the tensor `latents`,
/// `[batch, channels, height/8, width/8]`, unscaled.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeEncode {
    /// The model's name or id; may be left out where one registered model holds a VAE.
    #[serde(default)]
    pub vae: Option<String>,
    /// Whether to work in tiles. Without it tiles are used only where memory does not suffice, and that is told.
    #[serde(default)]
    pub tiled: bool,
    /// Side of a tile in picture pixels, 512 if not given; with `tiled`.
    #[serde(default)]
    pub tile_size: Option<usize>,
    /// How far tiles overlap, in picture pixels; a quarter of the tile if not given.
    #[serde(default)]
    pub overlap: Option<usize>,
    /// Refuses tiles: an error where memory does not suffice.
    #[serde(default)]
    pub never_tiled: bool,
    /// Draws a sample with this seed instead of the distribution's mean.
    #[serde(default)]
    pub seed: Option<u64>,
    /// For sides that 8 does not divide: `crop`, `pad` or `refuse`; `crop` if not given.
    #[serde(default)]
    pub size_rule: Option<String>,
    /// Of activations: `f32`, `bf16` or `f16`; the daemon's if not given.
    #[serde(default)]
    pub precision: Option<String>,
    /// Bytes that the call may use; what the system has if not given.
    #[serde(default)]
    pub memory_limit: Option<u64>,
}

/// The reply to `vae_encode`, with the tensor `latents`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VaeEncoded {
    /// Which VAE did it.
    pub vae: VaeInfo,
    /// `[height, width]` of the part that was encoded.
    pub encoded_size: [usize; 2],
    /// How it was done.
    pub report: VaeReport,
}

/// `vae_decode`: the tensor `latents`, `[batch, channels, height, width]`, becomes the tensor `pixels`,
/// `[batch, 8·height, 8·width, 3]` in 0..1.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeDecode {
    /// The model's name or id; may be left out where one registered model holds a VAE.
    #[serde(default)]
    pub vae: Option<String>,
    /// Whether to work in tiles. Without it tiles are used only where memory does not suffice, and that is told.
    #[serde(default)]
    pub tiled: bool,
    /// Side of a tile in latent pixels, 64 if not given; with `tiled`.
    #[serde(default)]
    pub tile_size: Option<usize>,
    /// How far tiles overlap, in latent pixels; a quarter of the tile if not given.
    #[serde(default)]
    pub overlap: Option<usize>,
    /// Whether `tile_size` and `overlap` are picture pixels instead.
    #[serde(default)]
    pub picture_pixels: bool,
    /// Refuses tiles: an error where memory does not suffice.
    #[serde(default)]
    pub never_tiled: bool,
    /// Whether scale and shift are applied to the latents.
    #[serde(default)]
    pub scaled: bool,
    /// The scale factor that applies; the model's if not given.
    #[serde(default)]
    pub scale_factor: Option<f32>,
    /// The shift factor that belongs to it; 0 if not given.
    #[serde(default)]
    pub shift_factor: Option<f32>,
    /// Of activations: `f32`, `bf16` or `f16`; the daemon's if not given.
    #[serde(default)]
    pub precision: Option<String>,
    /// Bytes that the call may use; what the system has if not given.
    #[serde(default)]
    pub memory_limit: Option<u64>,
}

/// The reply to `vae_decode`, with the tensor `pixels`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VaeDecoded {
    /// Which VAE did it.
    pub vae: VaeInfo,
    /// How it was done.
    pub report: VaeReport,
}

/// A VAE.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VaeInfo {
    /// What requests call it.
    pub name: String,
    /// Its architecture.
    pub family: String,
    /// Channels of its latents.
    pub latent_channels: usize,
    /// Picture pixels along a side for each latent pixel.
    pub factor: usize,
    /// Its scale factor, where its file tells.
    pub scale_factor: Option<f32>,
    /// Its shift factor, where its file tells.
    pub shift_factor: Option<f32>,
}

/// How a VAE's call was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VaeReport {
    /// The precision of the result.
    pub precision: String,
    /// Tiles, in latent pixels; `None` for one piece.
    pub tiling: Option<TilingInfo>,
    /// Seconds from call to result.
    pub seconds: f64,
}

/// Tiles, in latent pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TilingInfo {
    /// Side of a tile.
    pub tile: usize,
    /// How far tiles overlap.
    pub overlap: usize,
    /// How many for each picture.
    pub tiles: usize,
}
