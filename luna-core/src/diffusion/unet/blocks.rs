//! The blocks of a UNet: residual blocks with a transformer after them, and what changes the size.

use super::{
    EPS, GROUPS,
    transformer::{Heads, SpatialTransformer},
};
use crate::{
    Error, ErrorKind, Result,
    nn::{Conv2d, ConvCall, ConvSpec, Pass, ResnetBlock, Tensor, Weights, join_channels},
};

/// What all blocks are built with.
pub(super) struct Shared {
    /// Width of the time embedding.
    pub(super) time: usize,
    pub(super) heads: Heads,
}

/// What all blocks look at.
pub(super) struct Conditions {
    /// The activated embedding, `[b, time]`.
    pub(super) time: Tensor,
    /// `[b, tokens, width]`.
    pub(super) context: Tensor,
}

/// A residual block and the transformer after it, where there is one.
pub(super) struct Layer {
    resnet: ResnetBlock,
    transformer: Option<SpatialTransformer>,
    channels: usize,
}

impl Layer {
    /// `weights` stands at the level; both parts bear the number `index` there.
    fn load(weights: &Weights, index: usize, inputs: usize, shared: &Shared) -> Result<Self> {
        let (resnet, transformer) = (weights.at("resnets").at(index), weights.at("attentions").at(index));
        let [channels, ..] = resnet.conv_shape("conv1.weight")?;
        for channels in [inputs, channels] {
            if channels % GROUPS != 0 {
                return Err(Error::new(ErrorKind::InvalidFile, "the UNet's channels do not fit its norms")
                    .expected(format!("a multiple of {GROUPS} channels at `{}`", resnet.path()))
                    .found(channels.to_string()));
            }
        }
        Ok(Self {
            resnet: ResnetBlock::load(&resnet, inputs, channels, GROUPS, EPS)?.with_time(&resnet, shared.time)?,
            transformer: transformer
                .has("proj_in.weight")
                .then(|| SpatialTransformer::load(&transformer, channels, &shared.heads))
                .transpose()?,
            channels,
        })
    }

    fn forward(&self, x: &Tensor, seen: &Conditions, pass: &Pass) -> Result<Tensor> {
        let y = self.resnet.forward_at(x, &seen.time, pass)?;
        match &self.transformer {
            Some(transformer) => transformer.forward(y, &seen.context, pass),
            None => Ok(y),
        }
    }

    fn steps(&self) -> usize {
        1 + usize::from(self.transformer.is_some())
    }
}

/// What follows `conv_in` on the way down.
pub(super) enum InputBlock {
    Layer(Layer),
    Halving(Conv2d),
}

impl InputBlock {
    pub(super) fn load(weights: &Weights, index: usize, inputs: usize, shared: &Shared) -> Result<Self> {
        Layer::load(weights, index, inputs, shared).map(Self::Layer)
    }

    pub(super) fn halving(weights: &Weights, channels: usize) -> Result<Self> {
        let spec = ConvSpec { stride: 2, ..ConvSpec::same(channels, channels) };
        Ok(Self::Halving(Conv2d::load(weights, spec)?))
    }

    pub(super) fn channels(&self) -> usize {
        match self {
            Self::Layer(layer) => layer.channels,
            Self::Halving(conv) => conv.spec.outputs,
        }
    }

    pub(super) fn forward(&self, x: &Tensor, seen: &Conditions, pass: &Pass) -> Result<Tensor> {
        match self {
            Self::Layer(layer) => layer.forward(x, seen, pass),
            Self::Halving(conv) => conv.forward(x, pass),
        }
    }

    pub(super) fn steps(&self) -> usize {
        match self {
            Self::Layer(layer) => layer.steps(),
            Self::Halving(_) => 0,
        }
    }
}

/// The coarsest features: two residual blocks with a transformer between them. Some distilled UNets have the first only.
pub(super) struct Middle {
    first: Layer,
    second: Option<Layer>,
}

impl Middle {
    pub(super) fn load(weights: &Weights, channels: usize, shared: &Shared) -> Result<Self> {
        let first = Layer::load(weights, 0, channels, shared)?;
        let second = weights.has("resnets.1.conv1.weight").then(|| Layer::load(weights, 1, channels, shared));
        Ok(Self { first, second: second.transpose()? })
    }

    pub(super) fn forward(&self, x: &Tensor, seen: &Conditions, pass: &Pass) -> Result<Tensor> {
        let x = self.first.forward(x, seen, pass)?;
        match &self.second {
            Some(second) => {
                let y = second.forward(&x, seen, pass)?;
                pass.recycle(x);
                Ok(y)
            }
            None => Ok(x),
        }
    }

    pub(super) fn steps(&self) -> usize {
        self.first.steps() + self.second.as_ref().map_or(0, Layer::steps)
    }
}

/// A layer on the way up, over its input and a skip connection side by side; the last of a level doubles the size.
pub(super) struct OutputBlock {
    layer: Layer,
    doubling: Option<Conv2d>,
}

impl OutputBlock {
    /// `resample`: whether this is the last block of its level, which bears the doubling.
    pub(super) fn load(
        weights: &Weights,
        index: usize,
        inputs: usize,
        shared: &Shared,
        resample: bool,
    ) -> Result<Self> {
        let layer = Layer::load(weights, index, inputs, shared)?;
        let doubling = weights.at("upsamplers").at(0).at("conv");
        let spec = ConvSpec::same(layer.channels, layer.channels);
        let doubling = (resample && doubling.has("weight")).then(|| Conv2d::load(&doubling, spec)).transpose()?;
        Ok(Self { layer, doubling })
    }

    pub(super) fn channels(&self) -> usize {
        self.layer.channels
    }

    pub(super) fn forward(&self, x: Tensor, skip: Tensor, seen: &Conditions, pass: &Pass) -> Result<Tensor> {
        let joined = join_channels(&x, &skip, pass)?;
        pass.recycle(x);
        pass.recycle(skip);
        let y = self.layer.forward(&joined, seen, pass)?;
        pass.recycle(joined);
        let Some(doubling) = &self.doubling else { return Ok(y) };
        let doubled = doubling.forward_with(&y, ConvCall { upsample: true, ..ConvCall::default() }, pass)?;
        pass.recycle(y);
        Ok(doubled)
    }

    pub(super) fn steps(&self) -> usize {
        self.layer.steps()
    }
}
