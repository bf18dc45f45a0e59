//! Normalisation layers over channels-last tensors.

use super::{
    Tensor, Weights,
    frozen::{FrozenLayer, FrozenWeight},
};
use crate::Result;
use std::sync::Arc;

/// GroupNorm: `y = (x − mean) / sqrt(var + eps) · γ + β`, mean and variance over each group of channels and all pixels.
pub(crate) struct GroupNorm {
    pub(super) groups: usize,
    pub(super) eps: f32,
    layer: Arc<FrozenLayer>,
}

impl GroupNorm {
    /// Takes `weight` and `bias`, `[channels]` each.
    pub(crate) fn load(weights: &Weights, channels: usize, groups: usize, eps: f32) -> Result<Self> {
        let (gamma, beta) = (weights.vector("weight", channels)?, weights.vector("bias", channels)?);
        let layer = weights.freeze(&[channels], FrozenWeight::Tensor(gamma), Some(beta));
        Ok(Self { groups, eps, layer })
    }

    /// γ, `[channels]`.
    pub(super) fn gamma(&self) -> &Tensor {
        match &self.layer.weight {
            FrozenWeight::Tensor(gamma) => gamma,
            _ => unreachable!("a norm is never packed"),
        }
    }

    /// β, `[channels]`.
    pub(super) fn beta(&self) -> &Tensor {
        self.layer.bias.as_ref().expect("loaded with one")
    }
}
