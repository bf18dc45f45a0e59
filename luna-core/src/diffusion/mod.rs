//! Denoisers: one step of a sampler as a call. Enters: a checkpoint; then a noisy latent, timesteps and conditioning.
//! Leaves: the network's raw prediction with a report of how it was made. Knows no sampler, no text encoder and no VAE.

mod cache;
mod facts;
mod flux;
mod forward;
mod input;
mod network;
mod options;
mod pooled;
mod schedule;
mod timestep;
mod transformer;
mod unet;
mod z_image;

pub use cache::{CacheOptions, CacheReport, CachedSequence, FirstBlockCache};
pub use facts::Facts;
pub use forward::Predicted;
pub use input::{Control, ForwardInput};
pub use options::{Fallback, ForwardOptions, LoadOptions, Report};
pub use pooled::Pooled;
pub use schedule::NoiseLevel;

use crate::{
    AttentionMode, Error, Limits, Precision, Result, Runtime,
    checkpoint::{Checkpoint, ComponentKind, Family},
    nn::FrozenWeights,
};
use network::Network;
use std::path::Path;

/// A frozen denoiser: a Stable Diffusion UNet, a Flux or a Z-Image transformer. It may be used by any number of threads
/// at once.
///
/// ```no_run
/// use luna_core::{ArrayView, Runtime, diffusion::{Denoiser, ForwardInput, ForwardOptions}};
/// let denoiser = Denoiser::open("v1-5-pruned-emaonly.safetensors", &Runtime::cpu()?)?;
/// let (x, context) = (vec![0.0; 4 * 64 * 64], vec![0.0; 77 * 768]);
/// let input = ForwardInput::new(
///     ArrayView::new(&[1, 4, 64, 64], &x)?,
///     &[999.0],
///     ArrayView::new(&[1, 77, 768], &context)?,
/// );
/// let predicted = denoiser.forward(&input, &ForwardOptions::default())?;
/// assert_eq!(predicted.prediction.shape(), [1, 4, 64, 64]);
/// # Ok::<(), luna_core::Error>(())
/// ```
pub struct Denoiser {
    network: Network,
    runtime: Runtime,
    family: Family,
    facts: Facts,
    attention: AttentionMode,
    precision: Precision,
    frozen: FrozenWeights,
}

impl Denoiser {
    /// Opens a denoiser's file or folder, or the denoiser inside a checkpoint.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`Denoiser::load`].
    pub fn open(path: impl AsRef<Path>, runtime: &Runtime) -> Result<Self> {
        Self::load(&Checkpoint::open(path, &Limits::default())?, runtime, &LoadOptions::default())
    }

    /// Builds the denoiser of an opened checkpoint.
    ///
    /// # Errors
    /// `Unsupported` if the checkpoint holds no denoiser or one with layers that Luna does not know, `InvalidFile` if it
    /// is incomplete or its shapes disagree.
    pub fn load(checkpoint: &Checkpoint, runtime: &Runtime, options: &LoadOptions) -> Result<Self> {
        let found = checkpoint.recognise();
        let at = |error: Error| error.at(checkpoint.path().display());
        let component = found.component(ComponentKind::Diffusion).ok_or_else(|| at(found.lacks("denoiser", "a Stable Diffusion UNet, a Flux or a Z-Image transformer (ldm or diffusers names, alone or in a checkpoint)")))?;
        // Packing weights is the work of all threads.
        let loaded = runtime.run(|| Network::load(checkpoint, component, runtime, options.precision));
        let (network, frozen) = loaded.map_err(at)?;
        Ok(Self {
            facts: network.facts(),
            network,
            runtime: runtime.clone(),
            family: component.family,
            attention: options.attention,
            precision: options.precision,
            frozen,
        })
    }

    /// UNet, Flux or Z-Image.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The sizes of what goes in and out.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Bytes of its weights in memory.
    pub fn weight_bytes(&self) -> u64 {
        self.frozen.bytes()
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Its layers, for those who resolve patches.
    pub(crate) fn frozen(&self) -> &FrozenWeights {
        &self.frozen
    }

    /// BLAKE3 of its weights as they are held: no use of the model changes it, and it does not depend on whose names
    /// the file bears.
    ///
    /// # Errors
    /// Those of the device that the weights are read back from.
    pub fn digest(&self) -> Result<blake3::Hash> {
        self.runtime.run(|| self.frozen.digest())
    }
}
