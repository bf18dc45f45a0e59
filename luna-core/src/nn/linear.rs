//! Linear layer: `y = x·Wᵀ + b`, `[…, in]` → `[…, out]`.

use super::{
    Embedding, Pass, Tensor, Weights, activate, cpu,
    frozen::{FrozenLayer, FrozenWeight},
    modulation::add,
    patch::{Branch, PatchedWeight},
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

impl<'a> Affine<'a> {
    /// No scale.
    fn with(bias: Option<&'a Tensor>) -> Self {
        Self { scale: 1.0, bias }
    }
}

/// A frozen linear layer. The CPU keeps the weight once, packed, in the type the file stores.
pub(crate) struct Linear(Arc<FrozenLayer>);

impl Linear {
    /// Takes `weight` `[outputs, inputs]` and, where there are any, `bias` `[outputs]` and `scale_weight` `[]`, a factor
    /// on the weight in scaled fp8 files.
    pub(crate) fn load(weights: &Weights, inputs: usize, outputs: usize) -> Result<Self> {
        Self::load_stored(weights, &[outputs, inputs])
    }

    /// As [`Linear::load`], from a weight that is stored as `[outputs, …]`: a convolution whose stride is its kernel is
    /// a linear layer over patches.
    pub(crate) fn load_stored(weights: &Weights, stored: &[usize]) -> Result<Self> {
        let view = weights.tensor("weight", stored)?;
        let (outputs, inputs) = (stored[0], stored[1..].iter().product());
        let shape = [outputs, inputs];
        let weight = if weights.runtime().handle().is_cpu() {
            FrozenWeight::Matrix(view.pack_matrix(outputs, inputs))
        } else {
            FrozenWeight::Tensor(weights.on_device(view, &shape)?)
        };
        let scale = weights.optional("scale_weight", &[])?.map_or(1.0, |scale| scale.to_f32()[0]);
        Ok(Self(weights.freeze_scaled(&shape, weight, scale, weights.optional_vector("bias", outputs)?)))
    }

    /// A linear layer with the weight of an embedding table: the scores of each row.
    pub(crate) fn tied(table: &Embedding) -> Self {
        Self(table.layer().clone())
    }

    /// How many channels it gives.
    pub(crate) fn outputs(&self) -> usize {
        self.0.shape[0]
    }

    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.forward_with(x, LinearCall::default(), pass)
    }

    /// `activation(x·Wᵀ + b) + residual`.
    pub(crate) fn forward_with(&self, x: &Tensor, call: LinearCall, pass: &Pass) -> Result<Tensor> {
        let rows = x.elem_count() / self.0.shape[1].max(1);
        pass.timed(&self.0, rows, || self.on_rows(rows, x, call, pass))
    }

    fn on_rows(&self, rows: usize, x: &Tensor, call: LinearCall, pass: &Pass) -> Result<Tensor> {
        let layer = &self.0;
        let Some(patch) = pass.patch(layer) else {
            return product(x, &layer.weight, layer.affine(layer.bias.as_ref()), call, pass);
        };
        let bias = patch.bias(layer)?;
        match patch.weight(layer, rows, pass)? {
            PatchedWeight::Frozen => product(x, &layer.weight, layer.affine(bias.as_ref()), call, pass),
            PatchedWeight::Built(weight) => product(x, &weight, Affine::with(bias.as_ref()), call, pass),
            PatchedWeight::Merged(weight) => product(x, weight, Affine::with(bias.as_ref()), call, pass),
            PatchedWeight::Branch(branch) => self.branched(x, &branch, layer.affine(bias.as_ref()), call, pass),
        }
    }

    /// The frozen weight with a branch beside it: in one product where the CPU's kernels do both.
    fn branched(&self, x: &Tensor, branch: &Branch, affine: Affine, call: LinearCall, pass: &Pass) -> Result<Tensor> {
        let hidden = product(x, &branch.down, Affine::with(None), LinearCall::default(), pass)?;
        match (&self.0.weight, &branch.up) {
            (FrozenWeight::Matrix(weight), FrozenWeight::Matrix(up)) if affine.scale != 0.0 => {
                let beside = cpu::Beside { hidden: &hidden, up, strength: branch.strength };
                let y = cpu::linear_with_branch(x, weight, affine, Some(beside), call, pass)?;
                pass.recycle(hidden);
                pass.check()?;
                Ok(y)
            }
            (weight, _) => with_branch(|call| product(x, weight, affine, call, pass), hidden, branch, call, pass),
        }
    }
}

/// One product with a weight in any form.
pub(super) fn product(
    x: &Tensor,
    weight: &FrozenWeight,
    affine: Affine,
    call: LinearCall,
    pass: &Pass,
) -> Result<Tensor> {
    let y = match weight {
        FrozenWeight::Matrix(weight) => cpu::linear(x, weight, affine, call, pass)?,
        FrozenWeight::Tensor(weight) => portable::linear(x, weight, affine, call)?,
        FrozenWeight::Conv(_) => unreachable!("a linear layer is never packed as a convolution"),
    };
    pass.check()?;
    Ok(y)
}

/// `activation(own + strength·up·hidden) + residual`, where `own` computes the frozen layer's products.
pub(super) fn with_branch(
    own: impl FnOnce(LinearCall) -> Result<Tensor>,
    hidden: Tensor,
    branch: &Branch,
    call: LinearCall,
    pass: &Pass,
) -> Result<Tensor> {
    let late = call.activation != Activation::None;
    let first = LinearCall { activation: Activation::None, residual: call.residual.filter(|_| !late) };
    let y = own(first)?;
    let y = match &branch.up {
        FrozenWeight::Matrix(up) => cpu::linear_onto(y, &hidden, up, branch.strength, pass)?,
        up => {
            let affine = Affine { scale: branch.strength, bias: None };
            (y + product(&hidden, up, affine, LinearCall::default(), pass)?)?
        }
    };
    pass.recycle(hidden);
    pass.check()?;
    if !late {
        return Ok(y);
    }
    let y = activate(y, call.activation, pass)?;
    call.residual.map_or(Ok(y.clone()), |residual| add(y, residual, pass))
}
