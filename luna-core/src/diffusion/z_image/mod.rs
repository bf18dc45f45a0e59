//! The Z-Image transformer. Canonical names are diffusers'.
//!
//! Picture and text are refined apart by a few blocks each, then go through all layers as one sequence. Either is filled
//! up to a multiple of 32 tokens with a learned padding token.

mod blocks;

use super::{
    Facts,
    network::Step,
    timestep::{Embedder, matrix, sinusoids},
    transformer::{Axes, PATCH, PatchOrder, check_stated, grid, head_width, no_control},
};
use crate::{
    Error, ErrorKind, Result,
    nn::{Activation, Linear, ModulatedNorm, Parameter, Pass, RowNorm, Tensor, Weights, activate},
};
use blocks::Block;
use serde_json::Value;

/// Variance offset of the blocks' norms and of the last one.
const EPS: f32 = 1e-5;
const LAST_EPS: f32 = 1e-6;
/// Timesteps come in units of 1000 sinusoid steps.
const TIME_FACTOR: f32 = 1000.0;
const THETA: f64 = 256.0;
/// Picture and text are filled up to a multiple of this.
const TOKENS: usize = 32;

pub(super) struct ZImage {
    picture_in: Linear,
    text_norm: RowNorm,
    text_in: Linear,
    time: Embedder,
    picture_padding: Parameter,
    text_padding: Parameter,
    picture_refiner: Vec<Block>,
    text_refiner: Vec<Block>,
    layers: Vec<Block>,
    last_scale: Linear,
    last: Linear,
    axes: Axes,
    context: usize,
    channels: usize,
}

impl ZImage {
    pub(super) fn load(weights: &Weights, config: Option<&Value>) -> Result<Self> {
        let (picture_in, text_in) = (weights.at("all_x_embedder.2-1"), weights.at("cap_embedder"));
        let ((width, inputs), (_, context)) = (matrix(&picture_in)?, matrix(&text_in.at(1))?);
        let layers = weights.at("layers");
        let head = head_width(&layers.at(0).at("attention.norm_q"), width)?;
        check_stated(config, "n_heads", width / head)?;
        let time = Embedder::load(&weights.at("t_embedder.mlp"), ["0", "2"])?;
        let blocks = |name: &str| -> Result<Vec<Block>> {
            let place = weights.at(name);
            let count = place.count("attention_norm1.weight");
            (0..count).map(|index| Block::load(&place.at(index), [width, time.outputs], head)).collect()
        };
        let last = weights.at("all_final_layer.2-1");
        let padding = |name: &str| Parameter::load(weights, name, width);
        Ok(Self {
            picture_in: Linear::load(&picture_in, inputs, width)?,
            text_norm: RowNorm::rms_norm(&text_in.at(0), context, EPS)?,
            text_in: Linear::load(&text_in.at(1), context, width)?,
            picture_padding: padding("x_pad_token")?,
            text_padding: padding("cap_pad_token")?,
            picture_refiner: blocks("noise_refiner")?,
            text_refiner: blocks("context_refiner")?,
            layers: blocks("layers")?,
            last_scale: Linear::load(&last.at("adaLN_modulation.1"), time.outputs, width)?,
            last: Linear::load(&last.at("linear"), width, inputs)?,
            axes: Axes::read(config, "axes_dims", head, [4, 6, 6], theta(config))?,
            time,
            context,
            channels: inputs / (PATCH * PATCH),
        })
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            input_channels: self.channels,
            output_channels: self.channels,
            context_width: self.context,
            y_width: None,
            takes_guidance: false,
            size_multiple: PATCH,
            last_timestep: 1.0,
        }
    }

    pub(super) fn steps(&self) -> usize {
        self.picture_refiner.len() + self.text_refiner.len() + self.layers.len()
    }

    pub(super) fn forward(&self, step: &Step, pass: &Pass) -> Result<Tensor> {
        if !step.control.is_empty() {
            return Err(no_control("Z-Image"));
        }
        let (_, h, w, _) = step.x.dims4()?;
        let seen = self.embed(step, pass)?;
        let text = self.text_in.forward(&self.text_norm.forward(&step.context, pass)?, pass)?;
        let mut text = fill(text, &self.text_padding, pass)?;
        let (rows, columns) = (h / PATCH, w / PATCH);
        let picture = self.picture_in.forward(&PatchOrder::ChannelsLast.patches(&step.x)?, pass)?;
        let mut picture = fill(picture, &self.picture_padding, pass)?;
        let (texts, pictures) = (text.dim(1)?, picture.dim(1)?);

        // The picture stands at the place after the text's last token; its padding at the origin.
        let padding = std::iter::repeat_n([0; 3], pictures - rows * columns);
        let mut places: Vec<_> = grid(texts + 1, rows, columns).chain(padding).collect();
        places.extend((1..=texts).map(|token| [token, 0, 0]));
        let table = |places: &[[usize; 3]]| self.axes.table(places, &step.place.device);
        let picture_table = table(&places[..pictures])?;
        for block in &self.picture_refiner {
            picture = block.forward(picture, Some(&seen), &picture_table, pass)?;
        }
        let text_table = table(&places[pictures..])?;
        for block in &self.text_refiner {
            text = block.forward(text, None, &text_table, pass)?;
        }
        let table = table(&places)?;
        let x = Tensor::cat(&[&picture, &text], 1)?;
        pass.recycle(picture);
        pass.recycle(text);
        let (first, others) = self
            .layers
            .split_first()
            .ok_or_else(|| Error::new(ErrorKind::InvalidFile, "the transformer has no layers"))?;
        let before = x.copy()?;
        let x = first.forward(x, Some(&seen), &table, pass)?;
        let last = step.after_first_block(&before, &x.clone(), || {
            others.iter().try_fold(x, |x, block| block.forward(x, Some(&seen), &table, pass))
        })?;
        let last = last.narrow(1, 0, rows * columns)?.contiguous()?;
        let scale = self.last_scale.forward(&activate(seen, Activation::Silu, pass)?, pass)?;
        let gain = (scale + 1.0)?;
        let norm = ModulatedNorm { eps: LAST_EPS, centred: true, gain: &gain, offset: None };
        let tokens = self.last.forward(&norm.forward(&last, pass)?, pass)?;
        // The network predicts picture minus noise; samplers expect noise minus picture.
        Ok(PatchOrder::ChannelsLast.pixels(&tokens, [h, w])?.neg()?)
    }

    /// `[b, time]`. The network counts time from pure noise on.
    fn embed(&self, step: &Step, pass: &Pass) -> Result<Tensor> {
        let times: Vec<f32> = step.timesteps.iter().map(|timestep| (1.0 - timestep) * TIME_FACTOR).collect();
        self.time.forward(sinusoids(&times, self.time.inputs), Activation::None, &step.place, pass)
    }
}

fn theta(config: Option<&Value>) -> f64 {
    config.and_then(|config| config["rope_theta"].as_f64()).unwrap_or(THETA)
}

/// Tokens filled up to a multiple of 32.
fn fill(x: Tensor, padding: &Parameter, pass: &Pass) -> Result<Tensor> {
    let (b, tokens, width) = x.dims3()?;
    match tokens.next_multiple_of(TOKENS) - tokens {
        0 => Ok(x),
        missing => {
            let padding = padding.values(pass)?.to_dtype(x.dtype())?.broadcast_as((b, missing, width))?.contiguous()?;
            Ok(Tensor::cat(&[&x, &padding], 1)?)
        }
    }
}
