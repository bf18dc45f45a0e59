//! What a caller may ask of a VAE, and what it is told about how that was done.

use super::Tiling;
use crate::{Call, Precision};
use std::time::Duration;

/// Whether a picture is worked on in tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TileChoice {
    /// In one piece if the memory suffices, else in the largest tiles that fit; reported as a fallback.
    #[default]
    Auto,
    /// In one piece. Fails with `OutOfMemory` if the memory does not suffice.
    Never,
    /// In these tiles.
    Tiles(Tiling),
}

/// Which half of a VAE is loaded: a caller who only decodes saves the memory and the time of the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Halves {
    /// What the file has.
    #[default]
    Both,
    /// The encoder only: decoding is refused.
    Encoder,
    /// The decoder only: encoding is refused.
    Decoder,
}

/// What becomes of picture sides that the VAE's factor of 8 does not divide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SizeRule {
    /// Crops to the next smaller multiple, about the centre, as ComfyUI does.
    #[default]
    Crop,
    /// Repeats the last row and column up to the next larger multiple.
    Pad,
    /// Refuses with an error.
    Refuse,
}

/// Which latent of the encoder's distribution is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Posterior {
    /// Its mean.
    #[default]
    Mean,
    /// A sample: mean + deviation · noise, the noise from ChaCha8 with this seed.
    Sample {
        /// Equal seeds give equal noise on every machine.
        seed: u64,
    },
}

/// Options of [`super::Vae::encode`].
#[derive(Debug, Clone, Default)]
pub struct EncodeOptions {
    /// Precision of activations.
    pub precision: Precision,
    /// Tiles or one piece.
    pub tiles: TileChoice,
    /// Bytes that this call may use beyond the model; what the system has available if not given.
    pub memory_limit: Option<u64>,
    /// Mean or sample.
    pub posterior: Posterior,
    /// What to do with sides that are no multiple of 8.
    pub sizes: SizeRule,
    /// Cancellation and progress.
    pub call: Call,
}

/// Options of [`super::Vae::decode`].
#[derive(Debug, Clone, Default)]
pub struct DecodeOptions {
    /// Precision of activations.
    pub precision: Precision,
    /// Tiles or one piece.
    pub tiles: TileChoice,
    /// Bytes that this call may use beyond the model; what the system has available if not given.
    pub memory_limit: Option<u64>,
    /// Cancellation and progress.
    pub call: Call,
}

/// Something was done otherwise than asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fallback {
    /// Memory would not have sufficed for one piece.
    Tiled {
        /// Bytes that one piece would have needed.
        needed: u64,
        /// Bytes that there were.
        available: u64,
        /// What was done instead.
        tiling: Tiling,
    },
    /// Half precision gave NaN or infinity, so the call was done again in f32.
    Widened {
        /// The precision that was asked for.
        from: Precision,
        /// How many values were not finite.
        non_finite: usize,
    },
}

impl Fallback {
    /// A stable name in snake case.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Tiled { .. } => "tiled",
            Self::Widened { .. } => "widened_to_f32",
        }
    }
}

impl std::fmt::Display for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tiled { needed, available, tiling } => write!(
                f,
                "tiles of {} latent pixels: one piece needs about {} MiB, available are {} MiB",
                tiling.tile,
                needed >> 20,
                available >> 20
            ),
            Self::Widened { from, non_finite } => {
                write!(f, "done again in f32: {from} gave {non_finite} values that are NaN or infinite")
            }
        }
    }
}

/// How a call was done.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// The precision of the result.
    pub precision: Precision,
    /// Tiles, and how many for each picture; `None` for one piece.
    pub tiling: Option<(Tiling, usize)>,
    /// What was done otherwise than asked for.
    pub fallbacks: Vec<Fallback>,
    /// Time from call to result.
    pub elapsed: Duration,
}
