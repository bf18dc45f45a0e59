//! The residual block of VAEs and UNets:
//! `y = shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))))))`.

use super::{Activation, Conv2d, ConvCall, ConvSpec, GroupNorm, Pass, Tensor, Weights};
use crate::Result;

/// Two convolutions with a residual around them. Names: `norm1`, `conv1`, `norm2`, `conv2`, `conv_shortcut`.
pub(crate) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    /// Loads a block from `inputs` to `outputs` channels. It has a shortcut convolution where the two differ.
    pub(crate) fn load(weights: &Weights, inputs: usize, outputs: usize, groups: usize, eps: f32) -> Result<Self> {
        let shortcut = weights.at("conv_shortcut");
        Ok(Self {
            norm1: GroupNorm::load(&weights.at("norm1"), inputs, groups, eps)?,
            conv1: Conv2d::load(&weights.at("conv1"), ConvSpec::same(inputs, outputs))?,
            norm2: GroupNorm::load(&weights.at("norm2"), outputs, groups, eps)?,
            conv2: Conv2d::load(&weights.at("conv2"), ConvSpec::same(outputs, outputs))?,
            shortcut: (inputs != outputs)
                .then(|| Conv2d::load(&shortcut, ConvSpec::pointwise(inputs, outputs)))
                .transpose()?,
        })
    }

    /// `[b, h, w, inputs]` → `[b, h, w, outputs]`. Takes `x`, so that its memory serves the layers after it.
    pub(crate) fn forward(&self, x: Tensor, pass: &Pass) -> Result<Tensor> {
        let normed = |norm| ConvCall { norm: Some(norm), activation: Activation::Silu, ..ConvCall::default() };
        let hidden = self.conv1.forward_with(&x, normed(&self.norm1), pass)?;
        let residual = match &self.shortcut {
            Some(shortcut) => shortcut.forward_consuming(x, pass)?,
            None => x,
        };
        let y =
            self.conv2.forward_with(&hidden, ConvCall { residual: Some(&residual), ..normed(&self.norm2) }, pass)?;
        pass.recycle(hidden);
        pass.recycle(residual);
        pass.step()?;
        Ok(y)
    }
}
