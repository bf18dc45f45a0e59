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

/// A frozen linear layer. The CPU keeps the weight once, packed, in the type the file stores.
pub(crate) struct Linear(Arc<FrozenLayer>);

impl Linear {
    /// Takes `weight` `[outputs, inputs]` and, where there is one, `bias` `[outputs]`.
    pub(crate) fn load(weights: &Weights, inputs: usize, outputs: usize) -> Result<Self> {
        let shape = [outputs, inputs];
        let view = weights.tensor("weight", &shape)?;
        let weight = if weights.runtime().handle().is_cpu() {
            FrozenWeight::Matrix(view.pack_matrix(outputs, inputs))
        } else {
            FrozenWeight::Tensor(weights.on_device(view, &shape)?)
        };
        Ok(Self(weights.freeze(&shape, weight, weights.optional_vector("bias", outputs)?)))
    }

    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.forward_with(x, LinearCall::default(), pass)
    }

    /// `activation(x·Wᵀ + b) + residual`.
    pub(crate) fn forward_with(&self, x: &Tensor, call: LinearCall, pass: &Pass) -> Result<Tensor> {
        let bias = self.0.bias.as_ref();
        let y = match &self.0.weight {
            FrozenWeight::Matrix(weight) => cpu::linear(x, weight, bias, call, pass)?,
            FrozenWeight::Tensor(weight) => portable::linear(x, weight, bias, call)?,
            FrozenWeight::Conv(_) => unreachable!("a linear layer is never packed as a convolution"),
        };
        pass.check()?;
        Ok(y)
    }
}
