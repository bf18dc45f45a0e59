//! VAEs: pictures to latents and back. Enters: a checkpoint; then images or latents with options. Leaves: latents or
//! images with a report of how they were made. Knows no other model family.

mod decode;
mod encode;
mod kl;
mod network;
mod options;
mod scale;
mod taesd;
mod tiling;

pub use decode::Decoded;
pub use encode::Encoded;
pub use options::{DecodeOptions, EncodeOptions, Fallback, Halves, Posterior, Report, SizeRule, TileChoice};
pub use tiling::Tiling;

use crate::{
    Error, ErrorKind, LatentScale, Limits, Precision, Result, Runtime,
    checkpoint::{Checkpoint, ComponentKind, Family},
    nn::{BandSizes, FrozenWeights},
};
use network::Network;
use std::path::Path;

/// A frozen VAE. It may be used by any number of threads at once.
///
/// ```
/// use luna_core::{Image, Runtime, vae::Vae};
/// let vae = Vae::moonlet(&Runtime::cpu()?)?;
/// let grey = Image::new([1, 32, 48, 3], vec![0.5; 32 * 48 * 3])?;
/// let latent = vae.encode(&grey, &Default::default())?.latent;
/// assert_eq!(latent.shape(), [1, 16, 4, 6]);
/// let image = vae.decode(&latent, &Default::default())?.image;
/// assert_eq!(image.shape(), grey.shape());
/// # Ok::<(), luna_core::Error>(())
/// ```
pub struct Vae {
    network: Network,
    runtime: Runtime,
    family: Family,
    scale: Option<LatentScale>,
    frozen: FrozenWeights,
}

/// The demonstration model that this crate carries.
static MOONLET: &[u8] = include_bytes!("../../../models/moonlet/moonlet.safetensors");

impl Vae {
    /// Opens a VAE file or folder, or the VAE inside a checkpoint.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`Vae::load`].
    pub fn open(path: impl AsRef<Path>, runtime: &Runtime) -> Result<Self> {
        Self::load(&Checkpoint::open(path, &Limits::default())?, runtime)
    }

    /// `moonlet`, the small 16-channel VAE that this crate carries: a demonstration model, trained on procedural
    /// pictures only.
    ///
    /// # Errors
    /// None but those of the device.
    pub fn moonlet(runtime: &Runtime) -> Result<Self> {
        Self::load(&Self::moonlet_checkpoint()?, runtime)
    }

    /// The file of [`Vae::moonlet`], for those who look at it before they load it.
    ///
    /// # Errors
    /// None: the file is part of the program.
    pub fn moonlet_checkpoint() -> Result<Checkpoint> {
        Checkpoint::from_bytes("moonlet", MOONLET, &Limits::default())
    }

    /// Builds the VAE of an opened checkpoint.
    ///
    /// # Errors
    /// `Unsupported` if the checkpoint holds no VAE, `InvalidFile` if it is incomplete or its shapes disagree.
    pub fn load(checkpoint: &Checkpoint, runtime: &Runtime) -> Result<Self> {
        Self::load_halves(checkpoint, runtime, Halves::Both)
    }

    /// As [`Vae::load`] for a caller who will only encode, or only decode.
    ///
    /// # Errors
    /// As [`Vae::load`], of the half that is loaded; `InvalidInput` if the file lacks it.
    ///
    /// # Example
    /// ```
    /// use luna_core::{Image, Runtime, vae::{Halves, Vae}};
    ///
    /// let vae = Vae::load_halves(&Vae::moonlet_checkpoint()?, &Runtime::cpu()?, Halves::Encoder)?;
    /// let image = Image::new([1, 16, 24, 3], vec![0.5; 16 * 24 * 3])?;
    /// let latent = vae.encode(&image, &Default::default())?.latent;
    /// assert!(vae.decode(&latent, &Default::default()).is_err());
    /// # Ok::<(), luna_core::Error>(())
    /// ```
    pub fn load_halves(checkpoint: &Checkpoint, runtime: &Runtime, halves: Halves) -> Result<Self> {
        let found = checkpoint.recognise();
        let component = found.component(ComponentKind::Vae).ok_or_else(|| {
            found.lacks("VAE", "an AutoencoderKL (ldm or diffusers names) or a TAESD").at(checkpoint.path().display())
        })?;
        let loaded = runtime.run(|| Network::load(checkpoint, component, runtime, halves));
        let (network, frozen) = loaded.map_err(|error| error.at(checkpoint.path().display()))?;
        Ok(Self {
            scale: scale::of(checkpoint, &found, component),
            family: component.family,
            frozen,
            runtime: runtime.clone(),
            network,
        })
    }

    /// AutoencoderKL or TAESD.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Channels of its latents: 4 or 16.
    pub fn latent_channels(&self) -> usize {
        self.network.latent_channels()
    }

    /// Channels of its pictures: 3.
    pub fn picture_channels(&self) -> usize {
        self.network.picture_channels()
    }

    /// Picture pixels along a side for each latent pixel: 8.
    pub fn factor(&self) -> usize {
        self.network.factor()
    }

    /// The model's scale and shift factors, where the file tells them.
    pub fn latent_scale(&self) -> Option<LatentScale> {
        self.scale
    }

    /// States the scale and shift factors of a file that does not tell them.
    pub fn with_latent_scale(mut self, scale: LatentScale) -> Self {
        self.scale = Some(scale);
        self
    }

    /// Bytes of its weights in memory.
    pub fn weight_bytes(&self) -> u64 {
        self.frozen.bytes()
    }

    /// BLAKE3 of its weights as they are held: no use of the model changes it.
    ///
    /// # Errors
    /// Those of the device that the weights are read back from.
    pub fn digest(&self) -> Result<blake3::Hash> {
        self.runtime.run(|| self.frozen.digest())
    }

    /// About how many bytes one picture of `height`×`width` latent pixels needs at least in one piece, beyond the weights.
    /// With more it is faster, as no image is made twice.
    pub fn memory_for(&self, height: usize, width: usize, precision: Precision) -> u64 {
        self.memory_by(&BandSizes::SPARED, [height, width], precision)
    }

    fn memory_by(&self, bands: &BandSizes, [height, width]: [usize; 2], precision: Precision) -> u64 {
        const KERNEL_BUFFERS: u64 = 96 << 20;
        self.network.peak_bytes(height as u64 * width as u64, precision, bands) + KERNEL_BUFFERS
    }

    /// The fastest way to make a piece of this size in the memory that there is.
    fn choose_bands(&self, piece: [usize; 2], precision: Precision, available: Option<u64>) -> BandSizes {
        let available = available.unwrap_or(u64::MAX);
        let fits = |bands: &BandSizes| self.memory_by(bands, piece, precision) <= available;
        BandSizes::ALL.into_iter().find(fits).unwrap_or(BandSizes::SPARED)
    }

    /// Decides between one piece and tiles for pictures of this size.
    fn choose_tiles(
        &self,
        choice: TileChoice,
        [height, width]: [usize; 2],
        precision: Precision,
        available: Option<u64>,
    ) -> Result<(Option<Tiling>, Option<Fallback>)> {
        if let TileChoice::Tiles(tiling) = choice {
            let fits = tiling.check()?.tile >= height.max(width);
            return Ok(((!fits).then_some(tiling), None));
        }
        let needed = self.memory_for(height, width, precision);
        let Some(available) = available.filter(|&available| available < needed) else {
            return Ok((None, None));
        };
        let too_little = |needed: u64| {
            Error::new(ErrorKind::OutOfMemory, "the memory does not suffice")
                .expected(format!("about {} MiB for the activations", needed >> 20))
                .found(format!("{} MiB", available >> 20))
        };
        if choice == TileChoice::Never {
            return Err(too_little(needed).remedy("allow tiles, or use bf16"));
        }
        let tile = (Tiling::SMALLEST..height.max(width))
            .rev()
            .filter(|tile| tile % 8 == 0)
            .find(|&tile| self.memory_for(tile.min(height), tile.min(width), precision) <= available)
            .ok_or_else(|| too_little(self.memory_for(Tiling::SMALLEST, Tiling::SMALLEST, precision)))?;
        let tiling = Tiling::fewest(tile);
        Ok((Some(tiling), Some(Fallback::Tiled { needed, available, tiling })))
    }
}

/// Refuses values that are not numbers before they spoil a whole picture.
fn refuse_non_finite(what: &str, values: &[f32]) -> Result<()> {
    match values.iter().filter(|value| !value.is_finite()).count() {
        0 => Ok(()),
        count => Err(Error::new(ErrorKind::NonFinite, format!("{what} holds values that are NaN or infinite"))
            .expected("finite values")
            .found(format!("{count} of {}", values.len()))),
    }
}

#[cfg(test)]
mod tests;
