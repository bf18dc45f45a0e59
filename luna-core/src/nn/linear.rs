//! Linear layer: `y = x·Wᵀ + b`, `[…, in]` → `[…, out]`.

use super::{Pass, Tensor, Weights, cpu, portable};
use crate::Result;
use luna_kernels::{Activation, PackedMatrix};

enum Weight {
    Packed(PackedMatrix),
    Device(Tensor),
}

/// A frozen linear layer. The CPU keeps the weight once, packed, in the type the file stores.
pub(crate) struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

impl Linear {
    /// Takes `weight` `[outputs, inputs]` and, where there is one, `bias` `[outputs]`.
    pub(crate) fn load(weights: &Weights, inputs: usize, outputs: usize) -> Result<Self> {
        let view = weights.tensor("weight", &[outputs, inputs])?;
        let weight = if weights.runtime().handle().is_cpu() {
            Weight::Packed(view.pack_matrix(outputs, inputs))
        } else {
            Weight::Device(weights.on_device(view, &[outputs, inputs])?)
        };
        Ok(Self { weight, bias: weights.optional_vector("bias", outputs)? })
    }

    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.forward_add(x, None, pass)
    }

    /// `x·Wᵀ + b + residual`.
    pub(crate) fn forward_add(&self, x: &Tensor, residual: Option<&Tensor>, pass: &Pass) -> Result<Tensor> {
        let y = match &self.weight {
            Weight::Packed(weight) => cpu::linear(x, weight, self.bias.as_ref(), Activation::None, residual, pass)?,
            Weight::Device(weight) => portable::linear(x, weight, self.bias.as_ref(), residual)?,
        };
        pass.check()?;
        Ok(y)
    }
}
