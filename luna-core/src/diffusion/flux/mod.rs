//! The Flux transformer. Canonical names are diffusers'.
//!
//! Text and picture are two streams of tokens that attend to each other in double blocks, each with weights of its own;
//! joined, text first, they go through single blocks. Time, pooled text and guidance modulate every block.

mod blocks;
mod control;

use super::{
    Facts,
    network::Step,
    timestep::{Embedder, matrix, sinusoids},
    transformer::{Axes, PATCH, PatchOrder, check_stated, grid, head_width},
};
use crate::{
    Result,
    nn::{Activation, Linear, ModulatedNorm, Pass, Tensor, Weights, activate, add},
};
use blocks::{DoubleBlock, SingleBlock, Stream};
use serde_json::Value;
use std::num::NonZeroUsize;

/// Variance offset of every norm in this family.
const EPS: f32 = 1e-6;
/// Timesteps and guidance scales come in units of 1000 sinusoid steps.
const TIME_FACTOR: f32 = 1000.0;
const THETA: f64 = 10_000.0;

pub(super) struct Flux {
    picture_in: Linear,
    text_in: Linear,
    time: Embedder,
    guidance: Option<Embedder>,
    pooled: Embedder,
    double: Vec<DoubleBlock>,
    single: Vec<SingleBlock>,
    /// Scale and shift before the last projection.
    last_scale: Linear,
    last_shift: Linear,
    last: Linear,
    axes: Axes,
    context: usize,
    channels: [usize; 2],
}

impl Flux {
    pub(super) fn load(weights: &Weights, config: Option<&Value>) -> Result<Self> {
        let (width, inputs) = matrix(&weights.at("x_embedder"))?;
        let (_, context) = matrix(&weights.at("context_embedder"))?;
        let (outputs, _) = matrix(&weights.at("proj_out"))?;
        let (double, single) = (weights.at("transformer_blocks"), weights.at("single_transformer_blocks"));
        let head = head_width(&double.at(0).at("attn.norm_q"), width)?;
        let axes = Axes::read(config, "axes_dims_rope", head, [2, 7, 7], THETA)?;
        check_stated(config, "attention_head_dim", head)?;
        check_stated(config, "in_channels", inputs)?;
        let embedders = weights.at("time_text_embed");
        let guidance = embedders.at("guidance_embedder");
        let counts = [double.count("norm1.linear.weight"), single.count("norm.linear.weight")];
        Ok(Self {
            picture_in: Linear::load(&weights.at("x_embedder"), inputs, width)?,
            text_in: Linear::load(&weights.at("context_embedder"), context, width)?,
            time: Embedder::named(&embedders.at("timestep_embedder"))?,
            guidance: guidance.has("linear_1.weight").then(|| Embedder::named(&guidance)).transpose()?,
            pooled: Embedder::named(&embedders.at("text_embedder"))?,
            double: (0..counts[0]).map(|i| DoubleBlock::load(&double.at(i), width, head)).collect::<Result<_>>()?,
            single: (0..counts[1]).map(|i| SingleBlock::load(&single.at(i), width, head)).collect::<Result<_>>()?,
            last_scale: Linear::load(&weights.at("norm_out.scale"), width, width)?,
            last_shift: Linear::load(&weights.at("norm_out.shift"), width, width)?,
            last: Linear::load(&weights.at("proj_out"), width, outputs)?,
            axes,
            context,
            channels: [inputs, outputs].map(|channels| channels / (PATCH * PATCH)),
        })
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            input_channels: self.channels[0],
            output_channels: self.channels[1],
            context_width: self.context,
            y_width: NonZeroUsize::new(self.pooled.inputs),
            takes_guidance: self.guidance.is_some(),
            size_multiple: PATCH,
            last_timestep: 1.0,
        }
    }

    pub(super) fn steps(&self) -> usize {
        self.double.len() + self.single.len()
    }

    pub(super) fn forward(&self, step: &Step, pass: &Pass) -> Result<Tensor> {
        let (_, h, w, _) = step.x.dims4()?;
        let seen = self.embed(step, pass)?;
        let texts = step.context.dim(1)?;
        let places: Vec<_> = std::iter::repeat_n([0; 3], texts).chain(grid(0, h / PATCH, w / PATCH)).collect();
        let table = self.axes.table(&places, &step.place.device)?;
        let picture = self.picture_in.forward(&PatchOrder::ChannelsFirst.patches(&step.x)?, pass)?;
        let stream = Stream { picture, text: self.text_in.forward(&step.context, pass)? };
        let mut control = control::Residuals::new(step.control);
        control.check(self.double.len(), self.single.len())?;

        let before = stream.picture.copy()?;
        let (first, others) = self.double.split_first().ok_or_else(no_blocks)?;
        let mut stream = first.forward(stream, &seen, &table, pass)?;
        stream.picture = control.double(stream.picture, pass)?;
        let last = step.after_first_block(&before, &stream.picture.clone(), || {
            for block in others {
                stream = block.forward(stream, &seen, &table, pass)?;
                stream.picture = control.double(stream.picture, pass)?;
            }
            let mut x = Tensor::cat(&[&stream.text, &stream.picture], 1)?;
            pass.recycle(stream.text);
            pass.recycle(stream.picture);
            for block in &self.single {
                x = block.forward(x, &seen, &table, pass)?;
                x = control.single(x, texts, pass)?;
            }
            Ok(x.narrow(1, texts, x.dim(1)? - texts)?.contiguous()?)
        })?;
        let gain = (self.last_scale.forward(&seen, pass)? + 1.0)?;
        let offset = self.last_shift.forward(&seen, pass)?;
        let norm = ModulatedNorm { eps: EPS, centred: true, gain: &gain, offset: Some(&offset) };
        let tokens = self.last.forward(&norm.forward(&last, pass)?, pass)?;
        PatchOrder::ChannelsFirst.pixels(&tokens, [h, w])
    }

    /// The activated sum of what modulates every block, `[b, width]`.
    fn embed(&self, step: &Step, pass: &Pass) -> Result<Tensor> {
        let scaled = |values: &[f32], embedder: &Embedder| {
            let values: Vec<f32> = values.iter().map(|value| value * TIME_FACTOR).collect();
            embedder.forward(sinusoids(&values, embedder.inputs), Activation::None, &step.place, pass)
        };
        let mut sum = scaled(step.timesteps, &self.time)?;
        if let (Some(embedder), Some(guidance)) = (&self.guidance, step.guidance) {
            sum = add(sum, &scaled(guidance, embedder)?, pass)?;
        }
        if let Some(y) = step.y {
            sum = add(sum, &self.pooled.forward(y.to_vec(), Activation::None, &step.place, pass)?, pass)?;
        }
        activate(sum, Activation::Silu, pass)
    }
}

fn no_blocks() -> crate::Error {
    crate::Error::new(crate::ErrorKind::InvalidFile, "the transformer has no blocks")
}
