//! The families of denoisers behind one face: from a checkpoint to something that predicts.

use super::{Control, Facts, cache::FirstBlock, flux::Flux, timestep::Place, unet::Unet, z_image::ZImage};
use crate::{
    Error, ErrorKind, Precision, Result, Runtime,
    checkpoint::{Checkpoint, Component, Family, dialect},
    nn::{FrozenWeights, Pass, Tensor, Weights},
};

/// A denoiser's layers.
pub(super) enum Network {
    Unet(Box<Unet>),
    Flux(Box<Flux>),
    ZImage(Box<ZImage>),
}

/// One checked step, on the device.
pub(super) struct Step<'a> {
    /// `[batch, height, width, channels]`.
    pub(super) x: Tensor,
    pub(super) timesteps: &'a [f32],
    /// `[batch, tokens, width]`.
    pub(super) context: Tensor,
    pub(super) y: Option<&'a [f32]>,
    pub(super) guidance: Option<&'a [f32]>,
    pub(super) control: &'a Control<'a>,
    pub(super) cache: Option<&'a FirstBlock<'a>>,
    pub(super) place: Place,
}

impl Step<'_> {
    /// The rest of a network after its first block, or what the cache has of it. `before` and `after` are the features
    /// around the first block; `rest` makes the last features, of the same shape, from what follows.
    pub(super) fn after_first_block(
        &self,
        before: &Tensor,
        after: &Tensor,
        rest: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        match self.cache {
            Some(cache) => cache.run(before, after, rest),
            None => rest(),
        }
    }
}

/// Ends of stored names that no network uses: Z-Image's single files inherit a norm from Lumina that is never applied;
/// scaled fp8 files have a marker, and scales for activations in fp8.
const UNUSED: &[&str] = &["norm_final.weight", "scaled_fp8", ".scale_input"];

impl Network {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        component: &Component,
        runtime: &Runtime,
        precision: Precision,
    ) -> Result<(Self, FrozenWeights)> {
        let config = checkpoint.config(&component.prefix);
        let (network, weights) = match component.family {
            Family::Flux => {
                let weights = Weights::new(checkpoint, runtime, precision, dialect::flux(checkpoint, component));
                (Self::Flux(Box::new(Flux::load(&weights, config)?)), weights)
            }
            Family::ZImage => {
                let weights = Weights::new(checkpoint, runtime, precision, dialect::z_image(component));
                (Self::ZImage(Box::new(ZImage::load(&weights, config)?)), weights)
            }
            _ => {
                let weights = Weights::new(checkpoint, runtime, precision, dialect::sd_unet(checkpoint, component));
                (Self::Unet(Box::new(Unet::load(&weights, config)?)), weights)
            }
        };
        let roots = component.roots();
        let mut unknown = weights.leftovers(&roots.iter().map(String::as_str).collect::<Vec<_>>());
        unknown.retain(|name| !UNUSED.iter().any(|end| name.ends_with(end)));
        match unknown.first() {
            None => Ok((network, weights.into_frozen())),
            Some(first) => Err(Error::new(ErrorKind::Unsupported, "the denoiser has layers that Luna does not know")
                .found(format!("{} tensors such as `{first}`", unknown.len()))
                .remedy("use a model of a supported variant")),
        }
    }

    pub(super) fn facts(&self) -> Facts {
        match self {
            Self::Unet(network) => network.facts(),
            Self::Flux(network) => network.facts(),
            Self::ZImage(network) => network.facts(),
        }
    }

    /// `[batch, height, width, outputs]`.
    pub(super) fn forward(&self, step: &Step, pass: &Pass) -> Result<Tensor> {
        match self {
            Self::Unet(network) => network.forward(step, pass),
            Self::Flux(network) => network.forward(step, pass),
            Self::ZImage(network) => network.forward(step, pass),
        }
    }

    /// How many steps a pass through it reports.
    pub(super) fn steps(&self) -> usize {
        match self {
            Self::Unet(network) => network.steps(),
            Self::Flux(network) => network.steps(),
            Self::ZImage(network) => network.steps(),
        }
    }
}
