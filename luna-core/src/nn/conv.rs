//! 2-D convolution over `[batch, height, width, channels]`, fused with what usually stands around it.

use super::{
    Activation, GroupNorm, LinearCall, Pass, Tensor, Weights, activate, cpu,
    frozen::{FrozenLayer, FrozenWeight},
    linear::with_branch,
    patch::PatchedWeight,
    portable,
};
use crate::Result;
use luna_kernels::{ConvShape, PackedConv, PackedMatrix};
use std::sync::Arc;

/// The sizes of a convolution with a square kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvSpec {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// Zeros added at the top, bottom, left and right.
    pub(crate) padding: [usize; 4],
}

impl ConvSpec {
    /// A 3×3 convolution that keeps the size.
    pub(crate) fn same(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, kernel: 3, stride: 1, padding: [1; 4] }
    }

    /// A 1×1 convolution.
    pub(crate) fn pointwise(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, kernel: 1, stride: 1, padding: [0; 4] }
    }

    /// A 3×3 convolution that halves the size, padded at the bottom and right as latent-diffusion VAEs do.
    pub(crate) fn halving(channels: usize) -> Self {
        Self { stride: 2, padding: [0, 1, 0, 1], ..Self::same(channels, channels) }
    }

    pub(super) fn shape(self) -> ConvShape {
        ConvShape {
            cin: self.inputs,
            cout: self.outputs,
            kh: self.kernel,
            kw: self.kernel,
            stride: self.stride,
            padding: self.padding,
        }
    }
}

/// What is done in one go with a convolution:
/// `y = act_after(conv(upsample(act(norm(x)))) + bias) + residual`, or with `residual_first`
/// `y = act_after(conv(upsample(act(norm(x)))) + bias + residual)`.
#[derive(Default, Clone, Copy)]
pub(crate) struct ConvCall<'a> {
    /// GroupNorm of the input.
    pub(crate) norm: Option<&'a GroupNorm>,
    /// Activation of the (normed) input.
    pub(crate) activation: Activation,
    /// Doubles the size by repeating pixels before the convolution.
    pub(crate) upsample: bool,
    /// Activation of the output.
    pub(crate) after: Activation,
    /// Added to the output, last if not `residual_first`.
    pub(crate) residual: Option<&'a Tensor>,
    /// Adds the residual before the activation of the output.
    pub(crate) residual_first: bool,
}

/// A layer as the CPU's kernels take it.
pub(super) struct Packed<'a, W> {
    pub(super) layer: &'a FrozenLayer,
    pub(super) weight: &'a W,
    pub(super) bias: Option<&'a Tensor>,
}

/// A frozen convolution.
pub(crate) struct Conv2d {
    pub(crate) spec: ConvSpec,
    layer: Arc<FrozenLayer>,
}

impl Conv2d {
    /// Takes `weight` `[outputs, inputs, kernel, kernel]` and, where there is one, `bias` `[outputs]`.
    pub(crate) fn load(weights: &Weights, spec: ConvSpec) -> Result<Self> {
        let shape = [spec.outputs, spec.inputs, spec.kernel, spec.kernel];
        let view = weights.tensor("weight", &shape)?;
        let weight = match (weights.runtime().handle().is_cpu(), spec.kernel, spec.stride) {
            // A 1×1 convolution is a linear layer over pixels.
            (true, 1, 1) => FrozenWeight::Matrix(view.pack_matrix(spec.outputs, spec.inputs)),
            (true, ..) => FrozenWeight::Conv(view.pack_conv(spec.shape())),
            (false, ..) => FrozenWeight::Tensor(weights.on_device(view, &shape)?),
        };
        Ok(Self { spec, layer: weights.freeze(&shape, weight, weights.optional_vector("bias", spec.outputs)?) })
    }

    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.forward_with(x, ConvCall::default(), pass)
    }

    pub(crate) fn forward_with(&self, x: &Tensor, call: ConvCall, pass: &Pass) -> Result<Tensor> {
        let pixels = self.pixels(x, call)?;
        pass.timed(&self.layer, pixels, || self.on_pixels(pixels, x, call, pass))
    }

    fn on_pixels(&self, pixels: usize, x: &Tensor, call: ConvCall, pass: &Pass) -> Result<Tensor> {
        let layer = &self.layer;
        let Some(patch) = pass.patch(layer) else {
            return self.product(x, &layer.weight, layer.bias.as_ref(), call, pass);
        };
        let bias = patch.bias(layer)?;
        match patch.weight(layer, pixels, pass)? {
            PatchedWeight::Frozen => self.product(x, &layer.weight, bias.as_ref(), call, pass),
            PatchedWeight::Built(weight) => self.product(x, &weight, bias.as_ref(), call, pass),
            PatchedWeight::Merged(weight) => self.product(x, weight, bias.as_ref(), call, pass),
            PatchedWeight::Branch(branch) => {
                let narrow = ConvCall { after: Activation::None, residual: None, ..call };
                let hidden = self.product(x, &branch.down, None, narrow, pass)?;
                let own = |first: LinearCall| {
                    let call = ConvCall { after: first.activation, residual: first.residual, ..call };
                    self.product(x, &layer.weight, bias.as_ref(), call, pass)
                };
                let activation = if call.residual_first { Activation::None } else { call.after };
                let ends = LinearCall { activation, residual: call.residual };
                let y = with_branch(own, hidden, &branch, ends, pass)?;
                if call.residual_first { activate(y, call.after, pass) } else { Ok(y) }
            }
        }
    }

    /// Pixels of the output, all items together.
    fn pixels(&self, x: &Tensor, call: ConvCall) -> Result<usize> {
        let (batch, height, width, _) = x.dims4()?;
        let times = if call.upsample { 2 } else { 1 };
        let (rows, columns) = self.spec.shape().output(times * height, times * width);
        Ok(batch * rows * columns)
    }

    fn product(
        &self,
        x: &Tensor,
        weight: &FrozenWeight,
        bias: Option<&Tensor>,
        call: ConvCall,
        pass: &Pass,
    ) -> Result<Tensor> {
        let y = match weight {
            FrozenWeight::Conv(weight) => cpu::conv2d(x, weight, bias, call, pass)?,
            FrozenWeight::Matrix(weight) => cpu::pointwise(x, weight, bias, call, pass)?,
            FrozenWeight::Tensor(weight) => portable::conv2d(x, weight, bias, self.spec, call, pass)?,
        };
        pass.check()?;
        Ok(y)
    }

    /// As [`Conv2d::forward`] for an input that nothing else uses: a 1×1 convolution to fewer channels writes into its
    /// memory.
    pub(crate) fn forward_consuming(&self, x: Tensor, pass: &Pass) -> Result<Tensor> {
        match &self.layer.weight {
            FrozenWeight::Matrix(weight)
                if self.spec.outputs <= self.spec.inputs && pass.patch(&self.layer).is_none() =>
            {
                let (bias, pixels) = (self.layer.bias.as_ref(), self.pixels(&x, ConvCall::default())?);
                let y = pass.timed(&self.layer, pixels, || cpu::pointwise_in_place(x, weight, bias, pass))?;
                pass.check()?;
                Ok(y)
            }
            _ => {
                let y = self.forward(&x, pass)?;
                pass.recycle(x);
                Ok(y)
            }
        }
    }

    /// The convolution of `x` doubled, as a step of its own. Takes `x`, so that its memory serves the layers after it.
    pub(crate) fn forward_doubled(&self, x: Tensor, pass: &Pass) -> Result<Tensor> {
        let y = self.forward_with(&x, ConvCall { upsample: true, ..ConvCall::default() }, pass)?;
        pass.recycle(x);
        pass.step()?;
        Ok(y)
    }

    /// `y + conv(x)` in the memory of `y`, which nothing else may use. `call` has neither residual nor activation of the
    /// output.
    pub(crate) fn forward_onto(&self, y: Tensor, x: &Tensor, call: ConvCall, pass: &Pass) -> Result<Tensor> {
        let sum = match self.packed(pass) {
            Some(Packed { layer, weight, bias }) => {
                pass.timed(layer, self.pixels(x, call)?, || cpu::conv2d_onto(y, x, weight, bias, call, pass))?
            }
            None => {
                let sum = self.forward_with(x, ConvCall { residual: Some(&y), ..call }, pass)?;
                pass.recycle(y);
                sum
            }
        };
        pass.check()?;
        Ok(sum)
    }

    /// The weights as the CPU's convolution takes them, with the bias, where nothing is added to them in this pass.
    pub(super) fn packed(&self, pass: &Pass) -> Option<Packed<'_, PackedConv>> {
        match &self.layer.weight {
            FrozenWeight::Conv(weight) => self.unpatched(weight, pass),
            _ => None,
        }
    }

    /// The same of a 1×1 convolution.
    pub(super) fn packed_matrix(&self, pass: &Pass) -> Option<Packed<'_, PackedMatrix>> {
        match &self.layer.weight {
            FrozenWeight::Matrix(weight) => self.unpatched(weight, pass),
            _ => None,
        }
    }

    fn unpatched<'a, W>(&'a self, weight: &'a W, pass: &Pass) -> Option<Packed<'a, W>> {
        let layer = &*self.layer;
        pass.patch(layer).is_none().then_some(Packed { layer, weight, bias: layer.bias.as_ref() })
    }
}
