//! What a caller may ask of a denoiser, and what it is told about how that was done.

use super::{CacheReport, CachedSequence};
use crate::{AttentionMode, Call, PatchedRuns, Patches, Precision};
use std::{fmt, sync::Arc, time::Duration};

/// Options of [`super::Denoiser::load`].
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// How attention is computed where a call does not say.
    pub attention: AttentionMode,
    /// The precision of weights on devices other than the CPU, and so of every call there. The CPU keeps weights as the
    /// file stores them.
    pub precision: Precision,
}

/// Options of [`super::Denoiser::forward`].
#[derive(Debug, Clone, Default)]
pub struct ForwardOptions {
    /// Precision of activations.
    pub precision: Precision,
    /// How attention is computed; as set at load if not given.
    pub attention: Option<AttentionMode>,
    /// What is added to the weights for this call: [`crate::lora::Resolved::patches`].
    pub patches: Option<Arc<Patches>>,
    /// Reuses the work of an earlier step where the first block changed little.
    pub cache: Option<CachedSequence>,
    /// Cancellation and progress.
    pub call: Call,
}

/// Something was done otherwise than asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fallback {
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
            Self::Widened { .. } => "widened_to_f32",
        }
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
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
    /// How attention was computed.
    pub attention: AttentionMode,
    /// What the first-block cache did, where one was given.
    pub cache: Option<CacheReport>,
    /// How the layers ran that LoRAs change; those that the first-block cache answered for did not.
    pub patched: PatchedRuns,
    /// What was done otherwise than asked for.
    pub fallbacks: Vec<Fallback>,
    /// Time from call to result.
    pub elapsed: Duration,
}
