//! A vision encoder of one file, loaded and frozen. Enters: a checkpoint, then pictures or pixel values. Leaves: what
//! the encoder makes of them.

use super::{
    Encoded, Fallback, PictureView, PixelValues, Preprocessing, VisionActivation, VisionKind, VisionLoadOptions,
    VisionOptions, encoded::States, size::Size, transformer::VisionTransformer,
};
use crate::{
    Error, ErrorKind, Precision, Result, Runtime,
    checkpoint::{Checkpoint, Component, ComponentKind, dialect},
    nn::{FrozenWeights, Pass, Tensor, Weights},
};
use std::{path::Path, time::Instant};

/// Tokens that run through the layers at a time. More would only need more memory.
const MOST_TOKENS: usize = 4096;

/// What is known of a vision encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VisionInfo {
    /// Its family.
    pub kind: VisionKind,
    /// Side of the pictures it takes, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Length of a token's encoding.
    pub channels: usize,
    /// Tokens of a picture: its patches, and a class token for a CLIP.
    pub tokens: usize,
    /// Length of the projected embedding, where the file has the projection.
    pub embedding: Option<usize>,
    /// Whether there is a pooled output.
    pub pooled: bool,
    /// The activation of its feed-forward blocks.
    pub activation: VisionActivation,
    /// Tensors of the component that the encoder does not use.
    pub unused: Vec<String>,
}

/// A frozen vision encoder. Any number of threads may use it at once.
///
/// ```no_run
/// use luna_core::{Limits, Runtime, picture::read_picture, vision::{VisionModel, VisionOptions}};
/// let model = VisionModel::open("clip-vit-large-patch14", &Runtime::cpu()?)?;
/// let photo = read_picture("photo.jpg".as_ref(), &Limits::default())?;
/// let encoded = model.encode(&[(&photo).into()], &VisionOptions::default())?;
/// assert_eq!(encoded.image_embeds.unwrap().shape(), [1, 768]);
/// # Ok::<(), luna_core::Error>(())
/// ```
pub struct VisionModel {
    network: VisionTransformer,
    frozen: FrozenWeights,
    preprocessing: Preprocessing,
    runtime: Runtime,
    unused: Vec<String>,
}

impl VisionModel {
    /// Opens a vision encoder's file or folder, or the one inside a checkpoint.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`VisionModel::load`].
    pub fn open(path: impl AsRef<Path>, runtime: &Runtime) -> Result<Self> {
        Self::open_with(path, runtime, &VisionLoadOptions::default())
    }

    /// As [`VisionModel::open`], with options.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`VisionModel::load`].
    pub fn open_with(path: impl AsRef<Path>, runtime: &Runtime, options: &VisionLoadOptions) -> Result<Self> {
        Self::load(&Checkpoint::open(path, &options.limits)?, runtime, options)
    }

    /// Builds the vision encoder of an opened checkpoint.
    ///
    /// # Errors
    /// `Unsupported` if the checkpoint holds none, or one of variable resolution; `InvalidFile` if it is incomplete, its
    /// shapes disagree, or config.json or preprocessor_config.json states other sizes.
    pub fn load(checkpoint: &Checkpoint, runtime: &Runtime, options: &VisionLoadOptions) -> Result<Self> {
        let found = checkpoint.recognise();
        let load = || {
            let component = found.component(ComponentKind::Vision).ok_or_else(|| {
                found.lacks("vision encoder", "a CLIP or SigLIP vision transformer (transformers' or OpenCLIP's names)")
            })?;
            Self::load_component(checkpoint, component, runtime, options)
        };
        // Packing weights is work for the runtime's threads.
        runtime.run(load).map_err(|error| error.at(checkpoint.path().display()))
    }

    fn load_component(
        checkpoint: &Checkpoint,
        component: &Component,
        runtime: &Runtime,
        options: &VisionLoadOptions,
    ) -> Result<Self> {
        let config = checkpoint.config(&component.prefix);
        let rename = dialect::vision(checkpoint, component);
        let weights = Weights::new(checkpoint, runtime, component.device_precision(), rename);
        let size = Size::of(&weights, config, options.activation)?;
        let network = VisionTransformer::load(&weights, size)?;
        network.check_whole(&weights)?;
        let preprocessing = match &options.preprocessing {
            Some(stated) => stated.clone(),
            None => match checkpoint.processor(&options.limits)? {
                Some(config) => Preprocessing::stated(&config, size.kind, size.side)?,
                None => Preprocessing::of(size.kind, size.side),
            },
        };
        let roots = component.roots();
        let roots: Vec<&str> = roots.iter().map(String::as_str).collect();
        let unused = weights.leftovers(&roots);
        Ok(Self { network, frozen: weights.into_frozen(), preprocessing, runtime: runtime.clone(), unused })
    }

    /// What is known of it.
    pub fn info(&self) -> VisionInfo {
        let size = &self.network.size;
        VisionInfo {
            kind: size.kind,
            image_size: size.side,
            patch_size: size.patch,
            layers: size.layers,
            channels: size.width,
            tokens: size.tokens(),
            embedding: self.network.projection(),
            pooled: self.network.pools(),
            activation: size.activation,
            unused: self.unused.clone(),
        }
    }

    /// How its pictures become pixel values.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// Bytes of its weights in memory.
    pub fn weight_bytes(&self) -> u64 {
        self.frozen.bytes()
    }

    /// Encodes pictures of any size, or parts of them, as one batch.
    ///
    /// # Errors
    /// As [`Preprocessing::prepare`] and [`VisionModel::encode_pixels`].
    pub fn encode(&self, pictures: &[PictureView], options: &VisionOptions) -> Result<Encoded> {
        let start = Instant::now();
        let pixels = self.runtime.run(|| self.preprocessing.prepare(pictures))?;
        let mut encoded = self.encode_pixels(&pixels, options)?;
        encoded.elapsed = start.elapsed();
        Ok(encoded)
    }

    /// Encodes pixel values that were prepared already.
    ///
    /// # Errors
    /// `InvalidInput` if they are not of the model's size; `NonFinite` if a result holds NaN or infinity in f32;
    /// `Cancelled`.
    pub fn encode_pixels(&self, pixels: &PixelValues, options: &VisionOptions) -> Result<Encoded> {
        let start = Instant::now();
        self.check(pixels)?;
        let mut fallbacks = Vec::new();
        let mut precision = options.precision;
        let mut states = self.run(pixels, precision, options)?;
        let non_finite = states.non_finite();
        if non_finite > 0 && precision != Precision::F32 {
            fallbacks.push(Fallback::Widened { from: precision, non_finite });
            precision = Precision::F32;
            states = self.run(pixels, precision, options)?;
        }
        let non_finite = states.non_finite();
        if non_finite > 0 {
            return Err(Error::new(ErrorKind::NonFinite, "the vision encoder gave values that are NaN or infinite")
                .expected("finite values")
                .found(format!("{non_finite} that are not"))
                .remedy("check the pixel values and the weights of the file"));
        }
        let States { last, penultimate, pooled, embeds } = states;
        Ok(Encoded {
            last_hidden_state: last,
            penultimate,
            pooler_output: pooled,
            image_embeds: embeds,
            precision,
            fallbacks,
            elapsed: start.elapsed(),
        })
    }

    fn check(&self, pixels: &PixelValues) -> Result<()> {
        let side = self.network.size.side;
        let [_, _, height, width] = pixels.shape();
        if [height, width] == [side, side] {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "the pixel values are not of the size this vision encoder takes")
            .expected(format!("[batch, 3, {side}, {side}]"))
            .found(format!("{:?}", pixels.shape()))
            .remedy("resize and crop them, or hand in the pictures themselves"))
    }

    /// Runs all pictures, as many at a time as make up [`MOST_TOKENS`].
    fn run(&self, pixels: &PixelValues, precision: Precision, options: &VisionOptions) -> Result<States> {
        let size = &self.network.size;
        let batch = pixels.shape()[0];
        let at_once = (MOST_TOKENS / size.tokens()).max(1);
        let pass = Pass::new(&self.runtime, &options.call, batch.div_ceil(at_once) * size.layers);
        let (count, length) = (size.grid * size.grid, 3 * size.patch * size.patch);
        let mut states = States::default();
        for first in (0..batch).step_by(at_once) {
            let pictures = first..batch.min(first + at_once);
            let mut patches = Vec::with_capacity(pictures.len() * count * length);
            pictures.clone().for_each(|index| pixels.patches(index, size.patch, &mut patches));
            let patches = Tensor::from_vec(patches, (pictures.len(), count, length), self.runtime.handle())?;
            states.append(self.runtime.run(|| self.network.forward(patches, precision, &pass))?);
        }
        Ok(states)
    }
}

impl std::fmt::Debug for VisionModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = &self.network.size;
        write!(f, "VisionModel({}, {} layers, {} pixels)", size.kind, size.layers, size.side)
    }
}
