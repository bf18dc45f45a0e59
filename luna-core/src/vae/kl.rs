//! AutoencoderKL: the VAE of SD1.5, SDXL, SD3, Flux and Z-Image. Canonical names are diffusers'.
//!
//! Encoder: `conv_in`, levels of residual blocks each but the last followed by a halving convolution, a middle with
//! self-attention, `conv_norm_out`, SiLU, `conv_out` → mean and log-variance. The decoder mirrors it with doubling.

use crate::{
    Error, ErrorKind, Result,
    nn::{Activation, Conv2d, ConvCall, ConvSpec, GroupNorm, Pass, ResnetBlock, SelfAttention, Tensor, Weights},
};

/// Variance offset of every GroupNorm in this family.
const EPS: f32 = 1e-6;

/// Each level doubles the picture's sides; known VAEs have 4 or 5.
const MOST_LEVELS: usize = 8;

/// The sizes of one half, read from shapes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Half {
    /// Channels of each level, finest first.
    pub(super) channels: Vec<usize>,
    /// Residual blocks of each level.
    pub(super) blocks: usize,
    /// Channels at the picture's end: 3, or 4 for a VAE of pictures with alpha.
    pub(super) picture: usize,
    /// Channels at the latent's end, without the log-variance.
    pub(super) latent: usize,
    pub(super) groups: usize,
}

struct Middle {
    first: ResnetBlock,
    attention: Option<SelfAttention>,
    second: ResnetBlock,
}

impl Middle {
    fn load(weights: &Weights, channels: usize, groups: usize) -> Result<Self> {
        let block = |index| ResnetBlock::load(&weights.at("resnets").at(index), channels, channels, groups, EPS);
        let attention = weights.at("attentions").at(0);
        Ok(Self {
            first: block(0)?,
            attention: attention
                .has("group_norm.weight")
                .then(|| SelfAttention::load(&attention, channels, groups, EPS))
                .transpose()?,
            second: block(1)?,
        })
    }

    fn forward(&self, x: Tensor, pass: &Pass) -> Result<Tensor> {
        let mut x = self.first.forward(x, pass)?;
        if let Some(attention) = &self.attention {
            x = attention.forward(x, pass)?;
        }
        self.second.forward(x, pass)
    }

    fn steps(&self) -> usize {
        2 + usize::from(self.attention.is_some())
    }
}

/// Residual blocks at one size, then a convolution that changes the size, but at the last level.
struct Level {
    blocks: Vec<ResnetBlock>,
    resample: Option<Conv2d>,
}

impl Level {
    fn load(weights: &Weights, half: &Half, inputs: usize, outputs: usize, resample: Option<&str>) -> Result<Self> {
        let block = |index| {
            let inputs = if index == 0 { inputs } else { outputs };
            ResnetBlock::load(&weights.at("resnets").at(index), inputs, outputs, half.groups, EPS)
        };
        let spec = match resample {
            Some("downsamplers") => ConvSpec::halving(outputs),
            _ => ConvSpec::same(outputs, outputs),
        };
        let resample = resample.map(|name| Conv2d::load(&weights.at(name).at(0).at("conv"), spec)).transpose()?;
        Ok(Self { blocks: (0..half.blocks).map(block).collect::<Result<_>>()?, resample })
    }

    /// The blocks, then the halving.
    fn halved(&self, x: Tensor, pass: &Pass) -> Result<Tensor> {
        let x = run(&self.blocks, x, pass)?;
        let Some(resample) = &self.resample else { return Ok(x) };
        let y = resample.forward(&x, pass)?;
        pass.recycle(x);
        pass.step()?;
        Ok(y)
    }

    /// The doubling of the level before, if there is one, then the blocks. At the finest level the doubled image would be
    /// the largest of all by far.
    fn after(&self, coarser: Option<&Level>, finest: bool, x: Tensor, pass: &Pass) -> Result<Tensor> {
        let Some(doubling) = coarser.and_then(|level| level.resample.as_ref()) else {
            return run(&self.blocks, x, pass);
        };
        match self.blocks.split_first() {
            Some((first, others)) if finest => run(others, first.forward_doubled(doubling, x, pass)?, pass),
            _ => run(&self.blocks, doubling.forward_doubled(x, pass)?, pass),
        }
    }

    fn steps(&self) -> usize {
        self.blocks.len() + usize::from(self.resample.is_some())
    }
}

fn run(blocks: &[ResnetBlock], x: Tensor, pass: &Pass) -> Result<Tensor> {
    blocks.iter().try_fold(x, |x, block| block.forward(x, pass))
}

/// Pictures in −1..1 to mean and log-variance.
pub(super) struct Encoder {
    pub(super) half: Half,
    conv_in: Conv2d,
    levels: Vec<Level>,
    middle: Middle,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    quant: Option<Conv2d>,
}

impl Encoder {
    /// `weights` stands at the root of the VAE, above `encoder`.
    pub(super) fn load(weights: &Weights, groups: usize) -> Result<Self> {
        let encoder = weights.at("encoder");
        let half = Half::read(&encoder, "down_blocks", groups)?;
        // The first level may widen what the first convolution gives.
        let stem = encoder.shape("conv_in.weight")?[0];
        let last = *half.channels.last().expect("at least one level");
        let levels = half.channels.iter().enumerate().map(|(index, &outputs)| {
            let inputs = if index == 0 { stem } else { half.channels[index - 1] };
            let resample = (index + 1 < half.channels.len()).then_some("downsamplers");
            Level::load(&encoder.at("down_blocks").at(index), &half, inputs, outputs, resample)
        });
        let quant = weights.at("quant_conv");
        let moments = 2 * half.latent;
        Ok(Self {
            conv_in: Conv2d::load(&encoder.at("conv_in"), ConvSpec::same(half.picture, stem))?,
            levels: levels.collect::<Result<_>>()?,
            middle: Middle::load(&encoder.at("mid_block"), last, half.groups)?,
            norm_out: GroupNorm::load(&encoder.at("conv_norm_out"), last, half.groups, EPS)?,
            conv_out: Conv2d::load(&encoder.at("conv_out"), ConvSpec::same(last, moments))?,
            quant: quant
                .has("weight")
                .then(|| Conv2d::load(&quant, ConvSpec::pointwise(moments, moments)))
                .transpose()?,
            half,
        })
    }

    /// `[b, h, w, picture]` → `[b, h/8, w/8, 2·latent]` for four levels.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let mut x = self.conv_in.forward(x, pass)?;
        for level in &self.levels {
            x = level.halved(x, pass)?;
        }
        x = self.middle.forward(x, pass)?;
        let y = self.conv_out.forward_with(&x, head(&self.norm_out), pass)?;
        pass.recycle(x);
        pass.step()?;
        match &self.quant {
            Some(quant) => quant.forward(&y, pass),
            None => Ok(y),
        }
    }

    pub(super) fn steps(&self) -> usize {
        self.levels.iter().map(Level::steps).sum::<usize>() + self.middle.steps() + 1
    }
}

/// Latents to pictures in −1..1.
pub(super) struct Decoder {
    pub(super) half: Half,
    post_quant: Option<Conv2d>,
    conv_in: Conv2d,
    middle: Middle,
    levels: Vec<Level>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    /// `weights` stands at the root of the VAE, above `decoder`.
    pub(super) fn load(weights: &Weights, groups: usize) -> Result<Self> {
        let decoder = weights.at("decoder");
        let half = Half::read(&decoder, "up_blocks", groups)?;
        let [first, last] = [half.channels[0], *half.channels.last().expect("at least one level")];
        let coarse_first: Vec<_> = half.channels.iter().rev().copied().collect();
        let levels = coarse_first.iter().enumerate().map(|(index, &outputs)| {
            let inputs = coarse_first[index.saturating_sub(1)];
            let resample = (index + 1 < coarse_first.len()).then_some("upsamplers");
            Level::load(&decoder.at("up_blocks").at(index), &half, inputs, outputs, resample)
        });
        let post_quant = weights.at("post_quant_conv");
        Ok(Self {
            post_quant: post_quant
                .has("weight")
                .then(|| Conv2d::load(&post_quant, ConvSpec::pointwise(half.latent, half.latent)))
                .transpose()?,
            conv_in: Conv2d::load(&decoder.at("conv_in"), ConvSpec::same(half.latent, last))?,
            middle: Middle::load(&decoder.at("mid_block"), last, half.groups)?,
            levels: levels.collect::<Result<_>>()?,
            norm_out: GroupNorm::load(&decoder.at("conv_norm_out"), first, half.groups, EPS)?,
            conv_out: Conv2d::load(&decoder.at("conv_out"), ConvSpec::same(first, half.picture))?,
            half,
        })
    }

    /// `[b, h, w, latent]` → `[b, 8·h, 8·w, picture]` for four levels.
    pub(super) fn forward(&self, z: &Tensor, pass: &Pass) -> Result<Tensor> {
        let quantised = self.post_quant.as_ref().map(|conv| conv.forward(z, pass)).transpose()?;
        let mut x = self.conv_in.forward(quantised.as_ref().unwrap_or(z), pass)?;
        x = self.middle.forward(x, pass)?;
        let coarser = std::iter::once(None).chain(self.levels.iter().map(Some));
        for (index, (level, coarser)) in self.levels.iter().zip(coarser).enumerate() {
            x = level.after(coarser, index + 1 == self.levels.len(), x, pass)?;
        }
        let y = self.conv_out.forward_with(&x, head(&self.norm_out), pass)?;
        pass.recycle(x);
        pass.step()?;
        Ok(y)
    }

    pub(super) fn steps(&self) -> usize {
        self.levels.iter().map(Level::steps).sum::<usize>() + self.middle.steps() + 1
    }
}

/// The last convolution of either half works on the normed, activated input.
fn head(norm: &GroupNorm) -> ConvCall<'_> {
    ConvCall { norm: Some(norm), activation: Activation::Silu, ..ConvCall::default() }
}

impl Half {
    /// Reads the sizes from shapes. Channels come finest first, whichever way the half counts its levels.
    fn read(weights: &Weights, blocks: &str, groups: usize) -> Result<Self> {
        let levels = weights.at(blocks).count("resnets.0.conv1.weight");
        let level = |index: usize| weights.at(blocks).at(index).at("resnets");
        let count = if levels == 0 { 0 } else { level(0).count("conv1.weight") };
        if count == 0 || !(1..=MOST_LEVELS).contains(&levels) {
            return Err(Error::new(ErrorKind::InvalidFile, "the VAE's levels are not those of a VAE")
                .expected(format!("1 to {MOST_LEVELS} levels of residual blocks"))
                .found(levels.to_string()));
        }
        let mut channels: Vec<_> =
            (0..levels).map(|index| Ok(level(index).at(0).conv_shape("conv1.weight")?[0])).collect::<Result<_>>()?;
        let [outputs, inputs] = [weights.conv_shape("conv_out.weight")?[0], weights.conv_shape("conv_in.weight")?[1]];
        let (picture, latent) = if blocks == "up_blocks" {
            channels.reverse();
            (outputs, inputs)
        } else {
            (inputs, outputs / 2)
        };
        if let Some(wrong) = channels.iter().find(|&&channels| channels % groups != 0) {
            return Err(Error::new(ErrorKind::InvalidFile, "the VAE's channels do not fit its groups")
                .expected(format!("a multiple of {groups} channels at each level"))
                .found(wrong.to_string()));
        }
        Ok(Self { channels, blocks: count, picture, latent, groups })
    }
}
