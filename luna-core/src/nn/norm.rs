//! Normalisation layers over channels-last tensors.

use super::{Tensor, Weights};
use crate::Result;

/// GroupNorm: `y = (x − mean) / sqrt(var + eps) · γ + β`, mean and variance over each group of channels and all pixels.
pub(crate) struct GroupNorm {
    pub(crate) groups: usize,
    pub(crate) eps: f32,
    pub(crate) gamma: Tensor,
    pub(crate) beta: Tensor,
}

impl GroupNorm {
    /// Takes `weight` and `bias`, `[channels]` each.
    pub(crate) fn load(weights: &Weights, channels: usize, groups: usize, eps: f32) -> Result<Self> {
        Ok(Self { groups, eps, gamma: weights.vector("weight", channels)?, beta: weights.vector("bias", channels)? })
    }
}
