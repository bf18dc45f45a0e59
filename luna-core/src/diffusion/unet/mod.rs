//! The UNet of Stable Diffusion 1.x, 2.x and XL. Canonical names are diffusers'.
//!
//! Input blocks go from fine to coarse, each leaving its features for the output block of the same size:
//! `conv_in`, then at each level residual blocks, with a transformer over pixels where the level has one, and a halving
//! convolution. The middle, then output blocks from coarse to fine, `conv_norm_out`, SiLU, `conv_out`.

mod blocks;
mod control;
mod transformer;

use super::{
    Facts,
    network::Step,
    timestep::{Embedder, sinusoids},
    transformer::check_stated,
};
use crate::{
    Error, ErrorKind, Result,
    nn::{Activation, Conv2d, ConvCall, ConvSpec, GroupNorm, Pass, Tensor, Weights, activate, add},
};
use blocks::{Conditions, InputBlock, Middle, OutputBlock, Shared};
use control::Residuals;
use serde_json::Value;
use std::num::NonZeroUsize;
use transformer::Heads;

/// Groups and variance offset of the norms in residual blocks and at the end.
const GROUPS: usize = 32;
const EPS: f32 = 1e-5;

pub(super) struct Unet {
    time: Embedder,
    added: Option<Embedder>,
    conv_in: Conv2d,
    inputs: Vec<InputBlock>,
    middle: Middle,
    outputs: Vec<OutputBlock>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    levels: usize,
    context: usize,
}

impl Unet {
    pub(super) fn load(weights: &Weights, config: Option<&Value>) -> Result<Self> {
        let sizes = Sizes::read(weights)?;
        let time = Embedder::named(&weights.at("time_embedding"))?;
        let shared = Shared { time: time.outputs, heads: Heads::read(weights, config)? };
        let added = weights.at("add_embedding");
        let added = added.has("linear_1.weight").then(|| Embedder::named(&added)).transpose()?;

        let (mut inputs, mut skips) = (Vec::new(), vec![sizes.model]);
        let mut channels = sizes.model;
        let down = weights.at("down_blocks");
        for level in 0..sizes.levels {
            let place = down.at(level);
            for index in 0..place.at("resnets").count("conv1.weight") {
                let block = InputBlock::load(&place, index, channels, &shared)?;
                channels = block.channels();
                skips.push(channels);
                inputs.push(block);
            }
            let halving = place.at("downsamplers").at(0).at("conv");
            if halving.has("weight") {
                inputs.push(InputBlock::halving(&halving, channels)?);
                skips.push(channels);
            }
        }
        let middle = Middle::load(&weights.at("mid_block"), channels, &shared)?;
        let mut outputs = Vec::new();
        let up = weights.at("up_blocks");
        for level in 0..up.count("resnets.0.conv1.weight") {
            let place = up.at(level);
            let count = place.at("resnets").count("conv1.weight");
            for index in 0..count {
                let skip = skips.pop().ok_or_else(|| unbalanced("more output than input blocks"))?;
                let resample = index + 1 == count;
                let block = OutputBlock::load(&place, index, channels + skip, &shared, resample)?;
                channels = block.channels();
                outputs.push(block);
            }
        }
        if !skips.is_empty() || channels != sizes.model {
            return Err(unbalanced("the output blocks do not mirror the input blocks"));
        }
        check_stated(config, "in_channels", sizes.inputs)?;
        check_stated(config, "out_channels", sizes.outputs)?;
        Ok(Self {
            conv_in: Conv2d::load(&weights.at("conv_in"), ConvSpec::same(sizes.inputs, sizes.model))?,
            norm_out: GroupNorm::load(&weights.at("conv_norm_out"), sizes.model, GROUPS, EPS)?,
            conv_out: Conv2d::load(&weights.at("conv_out"), ConvSpec::same(sizes.model, sizes.outputs))?,
            context: shared.heads.context,
            levels: inputs.iter().filter(|block| matches!(block, InputBlock::Halving(_))).count(),
            time,
            added,
            inputs,
            middle,
            outputs,
        })
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            input_channels: self.conv_in.spec.inputs,
            output_channels: self.conv_out.spec.outputs,
            context_width: self.context,
            y_width: self.added.as_ref().and_then(|added| NonZeroUsize::new(added.inputs)),
            takes_guidance: false,
            size_multiple: 1 << self.levels,
            last_timestep: 999.0,
        }
    }

    pub(super) fn steps(&self) -> usize {
        let inputs: usize = self.inputs.iter().map(InputBlock::steps).sum();
        inputs + self.middle.steps() + self.outputs.iter().map(OutputBlock::steps).sum::<usize>()
    }

    pub(super) fn forward(&self, step: &Step, pass: &Pass) -> Result<Tensor> {
        let seen = Conditions { time: self.embed(step, pass)?, context: step.context.clone() };
        let mut control = Residuals::new(step.control);
        let first = control.input(self.conv_in.forward(&step.x, pass)?, pass)?;
        let mut inputs = self.inputs.iter();
        let block = inputs.next().ok_or_else(|| unbalanced("it has no input blocks"))?;
        let second = control.input(block.forward(&first, &seen, pass)?, pass)?;
        let last = step.after_first_block(&first, &second.clone(), || {
            let mut skips = vec![first.clone(), second];
            for block in inputs {
                let x = block.forward(&skips[skips.len() - 1], &seen, pass)?;
                skips.push(control.input(x, pass)?);
            }
            // The middle leaves its input alone: it is also the first skip connection.
            let x = self.middle.forward(&skips[skips.len() - 1], &seen, pass)?;
            let mut x = control.middle(x, pass)?;
            for block in &self.outputs {
                let skip = skips.pop().expect("as many as output blocks");
                x = block.forward(x, control.output(skip, pass)?, &seen, pass)?;
            }
            control.finish()?;
            Ok(x)
        })?;
        let head = ConvCall { norm: Some(&self.norm_out), activation: Activation::Silu, ..ConvCall::default() };
        let y = self.conv_out.forward_with(&last, head, pass)?;
        pass.recycle(last);
        Ok(y)
    }

    /// The activated embedding of time and pooled conditioning, `[batch, width]`.
    fn embed(&self, step: &Step, pass: &Pass) -> Result<Tensor> {
        let sinusoids = sinusoids(step.timesteps, self.time.inputs);
        let time = self.time.forward(sinusoids, Activation::None, &step.place, pass)?;
        let time = match (&self.added, step.y) {
            (Some(added), Some(y)) => {
                add(time, &added.forward(y.to_vec(), Activation::None, &step.place, pass)?, pass)?
            }
            _ => time,
        };
        activate(time, Activation::Silu, pass)
    }
}

/// The sizes outside the levels, from shapes.
struct Sizes {
    inputs: usize,
    outputs: usize,
    model: usize,
    levels: usize,
}

impl Sizes {
    fn read(weights: &Weights) -> Result<Self> {
        let [model, inputs, ..] = weights.conv_shape("conv_in.weight")?;
        let [outputs, ..] = weights.conv_shape("conv_out.weight")?;
        Ok(Self { inputs, outputs, model, levels: weights.at("down_blocks").count("resnets.0.conv1.weight") })
    }
}

fn unbalanced(message: &str) -> Error {
    Error::new(ErrorKind::InvalidFile, format!("the UNet's blocks do not fit together: {message}"))
        .remedy("the file is incomplete, or of a variant that Luna does not know")
}
