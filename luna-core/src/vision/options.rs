//! What a vision encoder is loaded and called with.

use super::Preprocessing;
use crate::{Call, Limits, Precision, nn::Activation};

/// The families of vision encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VisionKind {
    /// CLIP: a class token is pooled and projected.
    Clip,
    /// SigLIP and SigLIP2 of fixed resolution: a learned probe attends to all patches.
    Siglip,
}

impl VisionKind {
    /// A stable name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clip => "clip_vision",
            Self::Siglip => "siglip",
        }
    }
}

impl std::fmt::Display for VisionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Clip => "CLIP vision transformer",
            Self::Siglip => "SigLIP vision transformer",
        })
    }
}

/// The activation between the two layers of the feed-forward blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VisionActivation {
    /// `x · sigmoid(1.702 x)`: OpenAI's CLIPs.
    QuickGelu,
    /// The exact GELU: OpenCLIP's.
    Gelu,
    /// GELU's approximation by a hyperbolic tangent: SigLIP.
    GeluTanh,
}

impl VisionActivation {
    /// What a `config.json` calls `hidden_act`.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "quick_gelu" => Some(Self::QuickGelu),
            "gelu" => Some(Self::Gelu),
            "gelu_pytorch_tanh" | "gelu_new" => Some(Self::GeluTanh),
            _ => None,
        }
    }

    pub(super) fn layer(self) -> Activation {
        match self {
            Self::QuickGelu => Activation::QuickGelu,
            Self::Gelu => Activation::Gelu,
            Self::GeluTanh => Activation::GeluTanh,
        }
    }
}

/// What a file is to be taken for where it does not say itself.
#[derive(Debug, Clone, Default)]
pub struct VisionLoadOptions {
    /// The activation; else what `config.json` states, else what an encoder of its size has: `QuickGelu` for CLIPs of
    /// OpenAI's sizes (B and L), `Gelu` for OpenCLIP's (H, g and bigG), `GeluTanh` for SigLIP.
    pub activation: Option<VisionActivation>,
    /// How pictures become pixels; else what `preprocessor_config.json` beside the weights states, else what the family
    /// was trained with.
    pub preprocessing: Option<Preprocessing>,
    /// Caps on files.
    pub limits: Limits,
}

/// Options of [`super::VisionModel::encode`].
#[derive(Debug, Clone, Default)]
pub struct VisionOptions {
    /// Precision of activations.
    pub precision: Precision,
    /// Cancellation and progress.
    pub call: Call,
}

/// Something was done otherwise than asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fallback {
    /// Half precision gave NaN or infinity, so the pictures were encoded again in f32.
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
            Self::Widened { .. } => "widened_to_f32",
        }
    }
}

impl std::fmt::Display for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Widened { from, non_finite } => {
                write!(f, "done again in f32: {from} gave {non_finite} values that are NaN or infinite")
            }
        }
    }
}
