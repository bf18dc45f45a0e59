//! What VAEs are loaded and called with, and what is known of them. Enters: structs of the header. Leaves: options as the
//! library has them.

use crate::{
    call::Watch,
    error::{Result, wrong},
    options::{choose, precision, yes},
    types::luna_call,
};
use luna_core::vae::{DecodeOptions, EncodeOptions, Posterior, SizeRule, TileChoice, Tiling};

crate::handle::records!(luna_vae_load_options, luna_vae_info, luna_encode_options, luna_decode_options);

/// Which halves of a VAE are loaded.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_halves {
    /// Encoder and decoder.
    Both = 0,
    /// Only the encoder: decoding is refused.
    Encoder = 1,
    /// Only the decoder: encoding is refused.
    Decoder = 2,
}

/// Options of `luna_vae_load_with`. All zeros but `size` is what `luna_vae_load` takes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_vae_load_options {
    /// `sizeof(luna_vae_load_options)`.
    pub size: usize,
    /// Which halves are wanted: a `luna_halves`. One half takes half the memory, and is another model than the whole.
    pub halves: i32,
    /// 0.
    pub reserved: u32,
}

/// What is known of a VAE.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_vae_info {
    /// `sizeof(luna_vae_info)`, set by the caller.
    pub size: usize,
    /// Channels of its latents.
    pub latent_channels: u32,
    /// Channels of its pictures.
    pub picture_channels: u32,
    /// Picture pixels along a side for each latent pixel.
    pub factor: u32,
    /// Whether `scale` and `shift` are known: 0 or 1.
    pub has_scale: u32,
    /// A sampler's latent is `(latent - shift) * scale`.
    pub scale: f32,
    /// See `scale`.
    pub shift: f32,
    /// Bytes of its weights.
    pub weight_bytes: u64,
}

/// Whether a picture is worked on in tiles.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_tiling {
    /// In one piece if the memory suffices, else in the largest tiles that fit.
    Auto = 0,
    /// In one piece, or not at all.
    Never = 1,
    /// In tiles of the given size.
    Always = 2,
}

/// What becomes of picture sides that the VAE's factor does not divide.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_size_rule {
    /// Crops to the next smaller multiple, about the centre.
    Crop = 0,
    /// Repeats the last row and column up to the next larger multiple.
    Pad = 1,
    /// Answers `LUNA_STATUS_INVALID_INPUT`.
    Refuse = 2,
}

/// Options of `luna_vae_encode`. All zeros but `size` is a good choice.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_encode_options {
    /// `sizeof(luna_encode_options)`.
    pub size: usize,
    /// A `luna_precision`.
    pub precision: i32,
    /// A `luna_tiling`.
    pub tiling: i32,
    /// Side of a tile in latent pixels, at least 16; 0 for 64. Only with `LUNA_TILING_ALWAYS`.
    pub tile: u32,
    /// How far tiles overlap at least, in latent pixels; 0 for a quarter of the tile, but no more than 16.
    pub tile_overlap: u32,
    /// A `luna_size_rule`.
    pub sizes: i32,
    /// Whether a sample of the encoder's distribution is wanted instead of its mean: 0 or 1.
    pub sample: u32,
    /// The sample's seed: equal seeds give equal noise on every machine.
    pub seed: u64,
    /// Whether the latent is wanted as a sampler sees it: 0 or 1. Fails if the file does not tell the factors.
    pub scaled: u32,
    /// 0.
    pub reserved: u32,
    /// Bytes that the call may use beyond the model; 0 for what the system has.
    pub memory_limit: u64,
    /// Cancellation, progress and log; all zero for none.
    pub call: luna_call,
}

/// Options of `luna_vae_decode`. All zeros but `size` is a good choice.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_decode_options {
    /// `sizeof(luna_decode_options)`.
    pub size: usize,
    /// A `luna_precision`.
    pub precision: i32,
    /// A `luna_tiling`.
    pub tiling: i32,
    /// Side of a tile in latent pixels, at least 16; 0 for 64. Only with `LUNA_TILING_ALWAYS`.
    pub tile: u32,
    /// How far tiles overlap at least, in latent pixels; 0 for a quarter of the tile, but no more than 16.
    pub tile_overlap: u32,
    /// Whether the latent is as a sampler sees it: 0 or 1. Fails if the file does not tell the factors.
    pub scaled: u32,
    /// 0.
    pub reserved: u32,
    /// Bytes that the call may use beyond the model; 0 for what the system has.
    pub memory_limit: u64,
    /// Cancellation, progress and log; all zero for none.
    pub call: luna_call,
}

fn tile_choice(number: i32, tile: u32, overlap: u32) -> Result<TileChoice> {
    let usual = Tiling::with_tile(if tile == 0 { 64 } else { tile as usize });
    let overlap = if overlap == 0 { usual.overlap } else { overlap as usize };
    let tiles = TileChoice::Tiles(Tiling { overlap, ..usual });
    let choice = choose("tiling", number, &[TileChoice::Auto, TileChoice::Never, tiles])?;
    if (tile, overlap) != (0, usual.overlap) && choice != tiles {
        return Err(wrong("a tile size is set, but no tiles are asked for")
            .remedy("set `tiling` to LUNA_TILING_ALWAYS, or leave the tile at 0")
            .into());
    }
    Ok(choice)
}

/// How pictures are encoded, as the library has it.
pub(super) fn encode_options(options: &luna_encode_options, watch: &Watch) -> Result<EncodeOptions> {
    Ok(EncodeOptions {
        precision: precision(options.precision)?,
        tiles: tile_choice(options.tiling, options.tile, options.tile_overlap)?,
        memory_limit: Some(options.memory_limit).filter(|&bytes| bytes > 0),
        posterior: if yes(options.sample) { Posterior::Sample { seed: options.seed } } else { Posterior::Mean },
        sizes: choose("size rule", options.sizes, &[SizeRule::Crop, SizeRule::Pad, SizeRule::Refuse])?,
        call: watch.call.clone(),
    })
}

/// How latents are decoded, as the library has it.
pub(super) fn decode_options(options: &luna_decode_options, watch: &Watch) -> Result<DecodeOptions> {
    Ok(DecodeOptions {
        precision: precision(options.precision)?,
        tiles: tile_choice(options.tiling, options.tile, options.tile_overlap)?,
        memory_limit: Some(options.memory_limit).filter(|&bytes| bytes > 0),
        call: watch.call.clone(),
    })
}
