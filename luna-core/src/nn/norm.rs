//! Normalisation layers over channels-last tensors.

use super::{
    Pass, Tensor, Weights, cpu,
    frozen::{FrozenLayer, FrozenWeight},
    portable,
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

    /// `[b, …, channels]` → the same.
    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        pass.timed(&self.layer, 0, || match x.device().is_cpu() {
            true => cpu::group_norm(x, self, pass),
            false => portable::group_norm(x, self, pass),
        })
    }

    /// γ, `[channels]`.
    pub(super) fn gamma(&self, pass: &Pass) -> Result<Tensor> {
        self.layer.vector(pass)
    }

    /// β, `[channels]`.
    pub(super) fn beta(&self, pass: &Pass) -> Result<Tensor> {
        Ok(self.layer.patched_bias(pass)?.expect("loaded with one"))
    }
}

/// LayerNorm or RMSNorm over the channels of each token:
/// `y = (x − mean) / sqrt(var + eps) · γ + β`, or `y = x / sqrt(mean(x²) + eps) · γ`.
pub(crate) struct RowNorm {
    pub(super) eps: f32,
    /// Whether the mean is removed: LayerNorm.
    pub(super) centred: bool,
    layer: Arc<FrozenLayer>,
}

impl RowNorm {
    /// LayerNorm: takes `weight` and, where there is one, `bias`, `[channels]` each.
    pub(crate) fn layer_norm(weights: &Weights, channels: usize, eps: f32) -> Result<Self> {
        let (gamma, beta) = (weights.vector("weight", channels)?, weights.optional_vector("bias", channels)?);
        Ok(Self { eps, centred: true, layer: weights.freeze(&[channels], FrozenWeight::Tensor(gamma), beta) })
    }

    /// RMSNorm: takes `weight`, `[channels]`.
    pub(crate) fn rms_norm(weights: &Weights, channels: usize, eps: f32) -> Result<Self> {
        let gamma = weights.vector("weight", channels)?;
        Ok(Self { eps, centred: false, layer: weights.freeze(&[channels], FrozenWeight::Tensor(gamma), None) })
    }

    /// `[…, channels]` → the same. For a norm of each head, hand in `[…, heads, dim]`.
    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        pass.timed(&self.layer, 0, || match x.device().is_cpu() {
            true => cpu::row_norm(x, self, pass),
            false => portable::row_norm(x, self, pass),
        })
    }

    /// γ, `[channels]`.
    pub(crate) fn gamma(&self, pass: &Pass) -> Result<Tensor> {
        self.layer.vector(pass)
    }

    /// β, `[channels]`.
    pub(super) fn beta(&self, pass: &Pass) -> Result<Option<Tensor>> {
        self.layer.patched_bias(pass)
    }
}
