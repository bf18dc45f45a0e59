//! Options that several commands share.

use crate::{settings::parse_bytes, vaes};
use clap::{Args, ValueEnum};
use luna_core::{AttentionMode, Device, LatentScale, Precision, vae::SizeRule};
use std::num::NonZeroUsize;

/// Which VAE, and whose latents it works on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// A bundled VAE by name, or a VAE file, a checkpoint with a VAE in it, or a diffusers folder [default: moonlet,
    /// a demonstration model]
    #[arg(long, value_name = "NAME|FILE", long_help = vaes::long_help())]
    pub vae: Option<String>,
    /// Whose scale and shift factors apply, where the VAE's or the latent's file does not say
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub latent_format: Option<LatentFormatArg>,
}

/// Scale and shift factors by the name of the model family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LatentFormatArg {
    /// SD1.x and SD2.x: scale 0.18215
    Sd15,
    /// SDXL: scale 0.13025
    Sdxl,
    /// SD3 and SD3.5: scale 1.5305, shift 0.0609
    Sd3,
    /// Flux.1 and Z-Image: scale 0.3611, shift 0.1159
    Flux,
}

impl LatentFormatArg {
    /// The factors.
    pub fn scale(self) -> LatentScale {
        match self {
            Self::Sd15 => LatentScale::SD15,
            Self::Sdxl => LatentScale::SDXL,
            Self::Sd3 => LatentScale::SD3,
            Self::Flux => LatentScale::FLUX,
        }
    }
}

/// Sides that the VAE's factor does not divide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SizeRuleArg {
    /// Crop to the next smaller multiple, about the centre, as ComfyUI does
    Crop,
    /// Repeat the last row and column up to the next larger multiple
    Pad,
    /// Stop with an error
    Refuse,
}

impl From<SizeRuleArg> for SizeRule {
    fn from(rule: SizeRuleArg) -> Self {
        match rule {
            SizeRuleArg::Crop => Self::Crop,
            SizeRuleArg::Pad => Self::Pad,
            SizeRuleArg::Refuse => Self::Refuse,
        }
    }
}

/// Architectures that `bench` can make up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShapeArg {
    /// AutoencoderKL of SDXL: 83.7 million parameters, 4 latent channels
    Sdxl,
    /// AutoencoderKL of SD1.5: the same shape as SDXL's
    Sd15,
    /// AutoencoderKL of Flux: 16 latent channels, no quant convolutions
    Flux,
    /// TAESD: 2.4 million parameters, 4 latent channels
    Taesd,
    /// CLIP-L, the text encoder of SD1.5: 123 million parameters
    ClipL,
    /// CLIP-G, the larger one of SDXL: 695 million parameters
    ClipG,
}

/// One piece or tiles.
#[derive(Debug, Args)]
#[command(next_help_heading = "Memory")]
pub struct TileArgs {
    /// Work in tiles of this side, in picture pixels; a multiple of the VAE's factor, at least 16 times it
    #[arg(long, value_name = "PIXELS")]
    pub tile: Option<NonZeroUsize>,
    /// How far tiles overlap, at least, in picture pixels [default: a quarter of the tile]
    #[arg(long, value_name = "PIXELS", requires = "tile")]
    pub overlap: Option<usize>,
    /// Work in one piece, or fail if the memory does not suffice
    #[arg(long, conflicts_with = "tile")]
    pub no_tiles: bool,
    /// What this process may hold in all, model included; tiles are chosen to fit. 2GiB, 700M, ...
    ///
    /// K, M, G and T, alone or as KiB, MiB and so on, are powers of 1024; KB, MB and so on are powers of 1000.
    /// Without this option it is what the system has free.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_memory: Option<u64>,
}

/// How and where to compute.
#[derive(Debug, Args)]
#[command(next_help_heading = "Computing")]
pub struct ComputeArgs {
    /// Precision of activations: f32, bf16 or f16 [default: f32]
    ///
    /// Where half precision gives NaN or infinity the work is done again in f32, and that is reported.
    #[arg(long, value_name = "PRECISION")]
    pub precision: Option<Precision>,
    /// CPU threads [default: one for each core this process may use]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// cpu, cuda, cuda:N, metal or metal:N [default: cpu]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<Device>,
}

/// How attention is computed, for models that are made of it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Computing")]
pub struct AttentionArgs {
    /// auto, flash (chunks of queries by chunks of keys), split (chunks of queries) or pytorch (all scores at once); all
    /// give the same within rounding [default: auto]
    #[arg(long, value_name = "MODE")]
    pub attention: Option<AttentionMode>,
}

/// What becomes of a file that stands where the output goes.
#[derive(Debug, Args)]
pub struct WriteArgs {
    /// Refuse to replace a file that exists
    ///
    /// Without it the output replaces an existing file, in one step and only when it is complete.
    #[arg(long)]
    pub no_clobber: bool,
}

/// How to tell what was done.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Output")]
pub struct ReportArgs {
    /// Print one JSON object on standard output, also for an error
    #[arg(long)]
    pub json: bool,
    /// Print nothing but errors, and notes about what was done otherwise than asked for
    #[arg(long, short, conflicts_with = "json")]
    pub quiet: bool,
}
