//! The residual block of VAEs and UNets:
//! `y = shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))) + time)))`, where only UNets have a time.

use super::{
    Activation, Conv2d, ConvCall, ConvSpec, GroupNorm, Linear, Pass, Tensor, Weights, bands::BandSizes,
    modulation::scale_and_shift, spared_block,
};
use crate::Result;

/// Two convolutions with a residual around them. Names: `norm1`, `conv1`, `time_emb_proj`, `norm2`, `conv2`,
/// `conv_shortcut`.
pub(crate) struct ResnetBlock {
    pub(super) norm1: GroupNorm,
    pub(super) conv1: Conv2d,
    time: Option<Linear>,
    pub(super) norm2: GroupNorm,
    pub(super) conv2: Conv2d,
    pub(super) shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    /// Loads a block from `inputs` to `outputs` channels. It has a shortcut convolution where the two differ.
    pub(crate) fn load(weights: &Weights, inputs: usize, outputs: usize, groups: usize, eps: f32) -> Result<Self> {
        let shortcut = weights.at("conv_shortcut");
        Ok(Self {
            norm1: GroupNorm::load(&weights.at("norm1"), inputs, groups, eps)?,
            conv1: Conv2d::load(&weights.at("conv1"), ConvSpec::same(inputs, outputs))?,
            time: None,
            norm2: GroupNorm::load(&weights.at("norm2"), outputs, groups, eps)?,
            conv2: Conv2d::load(&weights.at("conv2"), ConvSpec::same(outputs, outputs))?,
            shortcut: (inputs != outputs)
                .then(|| Conv2d::load(&shortcut, ConvSpec::pointwise(inputs, outputs)))
                .transpose()?,
        })
    }

    /// The same with a projection of the time embedding, `[time]` → `[outputs]`.
    pub(crate) fn with_time(mut self, weights: &Weights, time: usize) -> Result<Self> {
        self.time = Some(Linear::load(&weights.at("time_emb_proj"), time, self.conv1.spec.outputs)?);
        Ok(self)
    }

    /// `[b, h, w, inputs]` → `[b, h, w, outputs]`. Takes `x`, so that its memory serves the layers after it.
    pub(crate) fn forward(&self, x: Tensor, pass: &Pass) -> Result<Tensor> {
        self.forward_by(pass.bands(), x, pass)
    }

    pub(super) fn forward_by(&self, sizes: &BandSizes, x: Tensor, pass: &Pass) -> Result<Tensor> {
        if let Some(stages) = self.spared(&x, sizes, pass)? {
            return spared_block::forward(&stages, x, sizes, pass);
        }
        let hidden = self.conv1.forward_with(&x, normed(&self.norm1), pass)?;
        let residual = match &self.shortcut {
            Some(shortcut) => shortcut.forward_consuming(x, pass)?,
            None => x,
        };
        self.second_half_onto(residual, hidden, pass)
    }

    /// As [`ResnetBlock::forward`] at a time step, whose activated embedding is `time` `[b, time]`. Leaves `x` to the
    /// caller, which may need it as a skip connection.
    pub(crate) fn forward_at(&self, x: &Tensor, time: &Tensor, pass: &Pass) -> Result<Tensor> {
        let mut hidden = self.conv1.forward_with(x, normed(&self.norm1), pass)?;
        if let Some(projection) = &self.time {
            let shift = projection.forward(time, pass)?;
            let shifted = scale_and_shift(&hidden, None, Some(&shift), pass)?;
            pass.recycle(hidden);
            hidden = shifted;
        }
        match &self.shortcut {
            Some(shortcut) => {
                let residual = shortcut.forward(x, pass)?;
                self.second_half_onto(residual, hidden, pass)
            }
            None => self.second_half(hidden, x, pass),
        }
    }

    /// `residual + conv2(silu(norm2(hidden)))` in the memory of the residual.
    pub(super) fn second_half_onto(&self, residual: Tensor, hidden: Tensor, pass: &Pass) -> Result<Tensor> {
        let y = self.conv2.forward_onto(residual, &hidden, normed(&self.norm2), pass)?;
        pass.recycle(hidden);
        pass.step()?;
        Ok(y)
    }

    fn second_half(&self, hidden: Tensor, residual: &Tensor, pass: &Pass) -> Result<Tensor> {
        let call = ConvCall { residual: Some(residual), ..normed(&self.norm2) };
        let y = self.conv2.forward_with(&hidden, call, pass)?;
        pass.recycle(hidden);
        pass.step()?;
        Ok(y)
    }
}

fn normed(norm: &GroupNorm) -> ConvCall<'_> {
    ConvCall { norm: Some(norm), activation: Activation::Silu, ..ConvCall::default() }
}
