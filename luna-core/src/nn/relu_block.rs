//! The residual block of the tiny autoencoders: `y = relu(conv3(relu(conv2(relu(conv1(x))))) + skip(x))`.

use super::{Activation, Conv2d, ConvCall, ConvSpec, Pass, Tensor, Weights};
use crate::Result;

/// Three convolutions with a residual around them. Names: `conv.0`, `conv.2`, `conv.4`, `skip`.
pub(crate) struct ReluBlock {
    pub(super) convs: [Conv2d; 3],
    pub(super) skip: Option<Conv2d>,
}

impl ReluBlock {
    /// `inputs` is the number of channels that the layer before gives.
    pub(crate) fn load(weights: &Weights, mut inputs: usize) -> Result<Self> {
        let mut conv = |index: usize| {
            let weights = weights.at("conv").at(index);
            let outputs = weights.conv_shape("weight")?[0];
            let spec = ConvSpec::same(inputs, outputs);
            inputs = outputs;
            Conv2d::load(&weights, spec)
        };
        let convs = [conv(0)?, conv(2)?, conv(4)?];
        let skip = weights.at("skip");
        let spec = ConvSpec::pointwise(convs[0].spec.inputs, convs[2].spec.outputs);
        let needed = spec.inputs != spec.outputs || skip.has("weight");
        let skip = needed.then(|| Conv2d::load(&skip, spec)).transpose()?;
        Ok(Self { convs, skip })
    }

    /// Channels of what it makes.
    pub(crate) fn outputs(&self) -> usize {
        self.convs[2].spec.outputs
    }

    /// `[b, h, w, inputs]` → `[b, h, w, outputs]`. Takes `x`, so that its memory serves the layers after it.
    pub(crate) fn forward(&self, x: Tensor, pass: &Pass) -> Result<Tensor> {
        let relu = ConvCall { after: Activation::Relu, ..ConvCall::default() };
        let first = self.convs[0].forward_with(&x, relu, pass)?;
        let second = self.convs[1].forward_with(&first, relu, pass)?;
        pass.recycle(first);
        let residual = match &self.skip {
            Some(skip) => skip.forward_consuming(x, pass)?,
            None => x,
        };
        let last = ConvCall { residual: Some(&residual), residual_first: true, ..relu };
        let y = self.convs[2].forward_with(&second, last, pass)?;
        pass.recycle(second);
        pass.recycle(residual);
        Ok(y)
    }
}
