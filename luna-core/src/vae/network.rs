//! The two kinds of VAE behind one face: from a checkpoint to something that encodes and decodes tensors.

use super::{Halves, kl, taesd};
use crate::{
    Error, ErrorKind, Precision, Result, Runtime,
    checkpoint::{Checkpoint, Component, Family, dialect},
    nn::{BandSizes, Chain, FrozenWeights, Pass, Tensor, Weights},
};
use serde_json::Value;

/// A VAE's layers. Either half may be missing: there are files with a decoder only.
pub(super) enum Network {
    Kl { encoder: Option<kl::Encoder>, decoder: Option<kl::Decoder> },
    Taesd { encoder: Option<taesd::Half>, decoder: Option<taesd::Half> },
}

/// What an encoder gives: the mean and, for a variational one, the log-variance, each `[b, h, w, latent]`.
pub(super) struct Moments {
    pub(super) mean: Tensor,
    pub(super) log_variance: Option<Tensor>,
}

impl Network {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        component: &Component,
        runtime: &Runtime,
        halves: Halves,
    ) -> Result<(Self, FrozenWeights)> {
        let (encodes, decodes) = (halves != Halves::Decoder, halves != Halves::Encoder);
        let config = checkpoint.config(&component.prefix);
        // On devices other than the CPU weights take part in the activations' precision.
        let precision = Precision::F32;
        let (network, frozen) = if component.family == Family::Taesd {
            let weights = Weights::new(checkpoint, runtime, precision, dialect::taesd(component));
            let half = |name: &str, wanted: bool, decoder: bool| {
                let weights = weights.at(name);
                let there = wanted && weights.has("layers.0.weight");
                there.then(|| taesd::Half::load(&weights, decoder)).transpose()
            };
            let (encoder, decoder) = (half("encoder", encodes, false)?, half("decoder", decodes, true)?);
            let network = Self::Taesd { encoder, decoder };
            (network, weights.into_frozen())
        } else {
            let weights = Weights::new(checkpoint, runtime, precision, dialect::kl_vae(checkpoint, component));
            let groups = config.and_then(|config| config["norm_num_groups"].as_u64()).unwrap_or(32).max(1) as usize;
            let has = |half: &str| weights.at(half).has("conv_in.weight");
            let network = Self::Kl {
                encoder: (encodes && has("encoder")).then(|| kl::Encoder::load(&weights, groups)).transpose()?,
                decoder: (decodes && has("decoder")).then(|| kl::Decoder::load(&weights, groups)).transpose()?,
            };
            (network, weights.into_frozen())
        };
        match (&network, halves) {
            (Self::Kl { encoder: None, .. } | Self::Taesd { encoder: None, .. }, Halves::Encoder) => {
                return Err(lacks("encoder"));
            }
            (Self::Kl { decoder: None, .. } | Self::Taesd { decoder: None, .. }, Halves::Decoder) => {
                return Err(lacks("decoder"));
            }
            _ => network.check_halves()?,
        }
        if let Some(config) = config {
            network.check_config(config)?;
        }
        Ok((network, frozen))
    }

    /// What one half writes the other must read.
    fn check_halves(&self) -> Result<()> {
        let sizes = match self {
            Self::Kl { encoder: Some(encoder), decoder: Some(decoder) } => {
                [&encoder.half, &decoder.half].map(|half| (half.latent, half.channels.len()))
            }
            Self::Taesd { encoder: Some(encoder), decoder: Some(decoder) } => {
                [encoder, decoder].map(|half| (half.latent, half.levels))
            }
            _ => return Ok(()),
        };
        if sizes[0] == sizes[1] {
            return Ok(());
        }
        let tell = |(latent, levels): (usize, usize)| format!("{latent} latent channels and {levels} levels");
        Err(Error::new(ErrorKind::InvalidFile, "the VAE's encoder and decoder do not belong together")
            .expected(format!("{}, as the encoder has", tell(sizes[0])))
            .found(format!("{} in the decoder", tell(sizes[1]))))
    }

    /// What a config.json states must be what the shapes say.
    fn check_config(&self, config: &Value) -> Result<()> {
        let differs = |key: &str, stated: &Value, shapes: Value| {
            if stated.is_null() || *stated == shapes {
                return Ok(());
            }
            Err(Error::new(ErrorKind::InvalidFile, format!("config.json and weights disagree about `{key}`"))
                .expected(format!("{shapes}, as the shapes say"))
                .found(stated.to_string())
                .remedy("use the config.json that belongs to these weights"))
        };
        differs("latent_channels", &config["latent_channels"], self.latent_channels().into())?;
        if let Self::Kl { decoder: Some(decoder), .. } = self {
            let half = &decoder.half;
            differs("block_out_channels", &config["block_out_channels"], half.channels.clone().into())?;
            differs("layers_per_block", &config["layers_per_block"], (half.blocks - 1).into())?;
            differs("out_channels", &config["out_channels"], half.picture.into())?;
        }
        Ok(())
    }

    pub(super) fn encode(&self, x: &Tensor, pass: &Pass) -> Result<Moments> {
        match self {
            // The tiny encoder takes pictures in 0..1, the big one in −1..1.
            Self::Taesd { encoder: Some(encoder), .. } => {
                let mean = encoder.forward(&x.affine(0.5, 0.5)?, pass)?;
                Ok(Moments { mean, log_variance: None })
            }
            Self::Kl { encoder: Some(encoder), .. } => {
                let moments = encoder.forward(x, pass)?;
                let latent = encoder.half.latent;
                let mean = moments.narrow(3, 0, latent)?.contiguous()?;
                Ok(Moments { mean, log_variance: Some(moments.narrow(3, latent, latent)?.contiguous()?) })
            }
            _ => Err(lacks("encoder")),
        }
    }

    /// Latents to pictures, in the range that [`Network::to_unit_range`] is for.
    pub(super) fn decode(&self, z: &Tensor, pass: &Pass) -> Result<Tensor> {
        match self {
            Self::Taesd { decoder: Some(decoder), .. } => decoder.forward(z, pass),
            Self::Kl { decoder: Some(decoder), .. } => decoder.forward(z, pass),
            _ => Err(lacks("decoder")),
        }
    }

    /// The factor and what is then added to bring a decoded picture to 0..1.
    pub(super) fn to_unit_range(&self) -> (f32, f32) {
        match self {
            Self::Taesd { .. } => (1.0, 0.0),
            Self::Kl { .. } => (0.5, 0.5),
        }
    }

    pub(super) fn latent_channels(&self) -> usize {
        match self {
            Self::Kl { encoder: Some(encoder), .. } => encoder.half.latent,
            Self::Kl { decoder: Some(decoder), .. } => decoder.half.latent,
            Self::Taesd { encoder: Some(half), .. } | Self::Taesd { decoder: Some(half), .. } => half.latent,
            _ => 0,
        }
    }

    pub(super) fn picture_channels(&self) -> usize {
        match self {
            Self::Kl { encoder: Some(encoder), .. } => encoder.half.picture,
            Self::Kl { decoder: Some(decoder), .. } => decoder.half.picture,
            _ => 3,
        }
    }

    /// Picture pixels along a side for each latent pixel.
    pub(super) fn factor(&self) -> usize {
        let halvings = match self {
            Self::Kl { encoder: Some(encoder), .. } => encoder.half.channels.len() - 1,
            Self::Kl { decoder: Some(decoder), .. } => decoder.half.channels.len() - 1,
            Self::Taesd { encoder: Some(half), .. } | Self::Taesd { decoder: Some(half), .. } => half.levels,
            _ => 0,
        };
        1 << halvings
    }

    pub(super) fn steps(&self, decoding: bool) -> usize {
        match self {
            Self::Kl { decoder: Some(decoder), .. } if decoding => decoder.steps(),
            Self::Kl { encoder: Some(encoder), .. } => encoder.steps(),
            Self::Taesd { decoder: Some(half), .. } if decoding => half.steps(),
            Self::Taesd { encoder: Some(half), .. } => half.steps(),
            _ => 0,
        }
    }

    /// About how many bytes of activations are alive at once for a latent of this many pixels.
    ///
    /// At the finest level of a KL VAE a residual block holds its input, into which it adds, and one tensor more, or half
    /// of one where it is spared; the decoder's first block also holds the doubled image, or, where that is made in bands,
    /// the coarser one that it doubles. A large TAESD holds no image of the finest level, but the coarser one, the picture
    /// and what lies between its layers.
    pub(super) fn peak_bytes(&self, latent_pixels: u64, precision: Precision, bands: &BandSizes) -> u64 {
        let pixel_bytes = latent_pixels * (self.factor() as u64).pow(2) * precision.bytes() as u64;
        match self {
            Self::Kl { encoder: Some(kl::Encoder { half, .. }), .. }
            | Self::Kl { decoder: Some(kl::Decoder { half, .. }), .. } => {
                let fine = half.channels[0] as u64 * pixel_bytes;
                let doubled = half.channels.get(1).map_or(0, |&channels| channels as u64 * pixel_bytes);
                let first = if doubled >= bands.doubled as u64 { doubled / 4 } else { doubled };
                let second = if fine >= bands.spared as u64 { fine / 2 } else { fine };
                fine + second.max(first)
            }
            Self::Taesd { encoder: Some(half), .. } | Self::Taesd { decoder: Some(half), .. } => {
                let fine = half.channels as u64 * pixel_bytes;
                (3 * fine).min(fine / 2 + Chain::WINDOWS)
            }
            _ => 0,
        }
    }
}

fn lacks(half: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("this VAE has no {half}"))
        .remedy("use the complete VAE, with both halves loaded")
}
