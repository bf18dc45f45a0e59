//! Linear layer: `y = x·Wᵀ + b`, `[…, in]` → `[…, out]`.

use super::{
    Pass, Tensor, Weights, cpu,
    frozen::{FrozenLayer, FrozenWeight},
    portable,
};
use crate::Result;
use luna_kernels::Activation;
use std::sync::Arc;

/// What is done in one go with a linear layer: `y = activation(x·Wᵀ + b) + residual`.
#[derive(Default, Clone, Copy)]
pub(crate) struct LinearCall<'a> {
    pub(crate) activation: Activation,
    pub(crate) residual: Option<&'a Tensor>,
}

/// What a layer does to its products: `scale · x·Wᵀ + bias`.
#[derive(Clone, Copy)]
pub(super) struct Affine<'a> {
    pub(super) scale: f32,
    pub(super) bias: Option<&'a Tensor>,
}

/// A frozen linear layer. The CPU keeps the weight once, packed, in the type the file stores.
pub(crate) struct Linear(Arc<FrozenLayer>);

impl Linear {
    /// Takes `weight` `[outputs, inputs]` and, where there are any, `bias` `[outputs]` and `scale_weight` `[]`, a factor
    /// on the weight in scaled fp8 files.
    pub(crate) fn load(weights: &Weights, inputs: usize, outputs: usize) -> Result<Self> {
        let shape = [outputs, inputs];
        let view = weights.tensor("weight", &shape)?;
        let weight = if weights.runtime().handle().is_cpu() {
            FrozenWeight::Matrix(view.pack_matrix(outputs, inputs))
        } else {
            FrozenWeight::Tensor(weights.on_device(view, &shape)?)
        };
        let scale = weights.optional("scale_weight", &[])?.map_or(1.0, |scale| scale.to_f32()[0]);
        Ok(Self(weights.freeze_scaled(&shape, weight, scale, weights.optional_vector("bias", outputs)?)))
    }

    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.forward_with(x, LinearCall::default(), pass)
    }

    /// `activation(x·Wᵀ + b) + residual`.
    pub(crate) fn forward_with(&self, x: &Tensor, call: LinearCall, pass: &Pass) -> Result<Tensor> {
        let y = match &self.0.weight {
            FrozenWeight::Matrix(weight) => cpu::linear(x, weight, self.affine(), call, pass)?,
            FrozenWeight::Tensor(weight) => portable::linear(x, weight, self.affine(), call)?,
            FrozenWeight::Conv(_) => unreachable!("a linear layer is never packed as a convolution"),
        };
        pass.check()?;
        Ok(y)
    }

    fn affine(&self) -> Affine<'_> {
        Affine { scale: self.0.scale, bias: self.0.bias.as_ref() }
    }
}
