//! Pictures to latents: sizes, tiles, precision, the distribution's mean or a sample.

use super::{
    EncodeOptions, Fallback, Posterior, Report, SizeRule, Tiling, Vae,
    network::Moments,
    refuse_non_finite,
    tiling::{Mosaic, Tile},
};
use crate::{
    Error, ErrorKind, ImageView, Latent, Precision, Result, memory,
    nn::{Pass, Tensor},
};
use candle_core::{DType, Device};
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use std::time::Instant;

/// A latent and how it was made.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Encoded {
    /// `[batch, latent channels, height/8, width/8]`, unscaled.
    pub latent: Latent,
    /// The part of the picture that was encoded, `[height, width]`, after the size rule.
    pub size: [usize; 2],
    /// How it was done.
    pub report: Report,
}

impl Vae {
    /// Encodes pictures with 3 channels (alpha is dropped, grey is repeated), f32 in 0..1, to unscaled latents.
    ///
    /// # Errors
    /// `InvalidInput` for sides that [`SizeRule::Refuse`] refuses or below 8, or a file without an encoder;
    /// `NonFinite` for NaN or infinity in pictures or, in f32, in the result; `OutOfMemory`, `Cancelled`.
    pub fn encode<'a>(&self, image: impl Into<ImageView<'a>>, options: &EncodeOptions) -> Result<Encoded> {
        let start = Instant::now();
        let image = image.into();
        refuse_non_finite("the image", image.data())?;
        let frame = Frame::fit(image, self.factor(), options.sizes)?;
        let size = frame.size;
        let latent_size = size.map(|side| side / self.factor());
        let available = options.memory_limit.or_else(memory::available);
        let (tiling, fallback) = self.choose_tiles(options.tiles, latent_size, options.precision, available)?;
        let mut fallbacks: Vec<_> = fallback.into_iter().collect();

        let mut precision = options.precision;
        let mut values = self.encode_all(&frame, tiling, precision, available, options)?;
        if precision != Precision::F32 {
            let non_finite = values.iter().filter(|value| !value.is_finite()).count();
            if non_finite > 0 {
                fallbacks.push(Fallback::Widened { from: precision, non_finite });
                precision = Precision::F32;
                values = self.encode_all(&frame, tiling, precision, available, options)?;
            }
        }
        refuse_non_finite("the latent", &values)?;
        let shape = [image.shape()[0], self.latent_channels(), latent_size[0], latent_size[1]];
        let latent = Latent::new(shape, values)?.with_scale(self.latent_scale(), false);
        let tiles = tiling.map(|tiling| (tiling, tiling.tiles(latent_size[0], latent_size[1]).len()));
        Ok(Encoded { latent, size, report: Report { precision, tiling: tiles, fallbacks, elapsed: start.elapsed() } })
    }

    /// All pictures of the batch, one after the other, to `[batch, channels, height, width]`.
    fn encode_all(
        &self,
        frame: &Frame,
        tiling: Option<Tiling>,
        precision: Precision,
        available: Option<u64>,
        options: &EncodeOptions,
    ) -> Result<Vec<f32>> {
        let factor = self.factor();
        let [height, width] = frame.size.map(|side| side / factor);
        let (batch, channels) = (frame.image.shape()[0], self.latent_channels());
        let tiles = tiling.map(|tiling| tiling.tiles(height, width));
        let passes = batch * tiles.as_ref().map_or(1, Vec::len);
        let piece = tiling.map_or([height, width], |tiling| [height, width].map(|side| side.min(tiling.tile)));
        let bands = self.choose_bands(piece, precision, available);
        let pass = Pass::new(&self.runtime, &options.call, passes * self.network.steps(false)).with_bands(bands);
        let mut noise = Noise::new(options.posterior);
        let mut latents = Vec::with_capacity(batch * height * width * channels);
        for picture in 0..batch {
            let [mean, deviation] = match &tiles {
                None => self.encode_one(frame.part(picture, [0, 0], frame.size), frame.size, precision, &pass)?,
                Some(tiles) => self.encode_tiles(frame, picture, tiles, precision, &pass)?,
            };
            let values = noise.apply(mean, &deviation);
            // Channels last → channels first.
            latents.extend((0..channels).flat_map(|channel| values.iter().skip(channel).step_by(channels)));
        }
        Ok(latents)
    }

    fn encode_tiles(
        &self,
        frame: &Frame,
        picture: usize,
        tiles: &[Tile],
        precision: Precision,
        pass: &Pass,
    ) -> Result<[Vec<f32>; 2]> {
        let (factor, channels) = (self.factor(), self.latent_channels());
        let [rows, columns] = frame.size.map(|side| side / factor);
        let mosaic = || Mosaic::new(rows, columns, channels);
        let mut mosaics = [mosaic(), mosaic()];
        for &tile in tiles {
            let [top, left, height, width] =
                [tile.rows.start, tile.columns.start, tile.rows.size, tile.columns.size].map(|side| side * factor);
            let values =
                self.encode_one(frame.part(picture, [top, left], [height, width]), [height, width], precision, pass)?;
            for (mosaic, values) in mosaics.iter_mut().zip(&values) {
                if !values.is_empty() {
                    mosaic.add(tile, 1, values);
                }
            }
        }
        let [mean, deviation] = mosaics.map(Mosaic::finish);
        Ok([mean, deviation])
    }

    /// Mean and standard deviation of a part, `[h, w, c]` each; no deviation for a VAE that is not variational.
    fn encode_one(
        &self,
        values: Vec<f32>,
        [height, width]: [usize; 2],
        precision: Precision,
        pass: &Pass,
    ) -> Result<[Vec<f32>; 2]> {
        self.runtime.run(|| {
            let x = Tensor::from_vec(values, (1, height, width, 3), &Device::Cpu)?
                .to_dtype(precision.dtype())?
                .to_device(self.runtime.handle())?;
            let Moments { mean, log_variance } = self.network.encode(&x, pass)?;
            let deviation = match log_variance {
                Some(log_variance) => {
                    to_values(&log_variance)?.into_iter().map(|v| (0.5 * v.clamp(-30.0, 20.0)).exp()).collect()
                }
                None => Vec::new(),
            };
            Ok([to_values(&mean)?, deviation])
        })
    }
}

/// The elements of a tensor in f32 on the CPU.
pub(super) fn to_values(x: &Tensor) -> Result<Vec<f32>> {
    Ok(x.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// Adds what [`Posterior`] asks for.
struct Noise(Option<rand_chacha::ChaCha8Rng>);

impl Noise {
    fn new(posterior: Posterior) -> Self {
        Self(match posterior {
            Posterior::Mean => None,
            Posterior::Sample { seed } => Some(rand_chacha::ChaCha8Rng::seed_from_u64(seed)),
        })
    }

    fn apply(&mut self, mut mean: Vec<f32>, deviation: &[f32]) -> Vec<f32> {
        if let Some(random) = &mut self.0 {
            for (value, deviation) in mean.iter_mut().zip(deviation) {
                let noise: f32 = StandardNormal.sample(random);
                *value += deviation * noise;
            }
        }
        mean
    }
}

/// The part of the caller's pictures that is encoded: sides are multiples of the factor, and what lies beyond the
/// last row and column repeats them. The pictures themselves stay where they are.
struct Frame<'a> {
    image: ImageView<'a>,
    /// Where it begins, `[top, left]`.
    start: [usize; 2],
    /// `[height, width]`.
    size: [usize; 2],
}

impl<'a> Frame<'a> {
    fn fit(image: ImageView<'a>, factor: usize, rule: SizeRule) -> Result<Self> {
        let [_, height, width, _] = image.shape();
        let whole = |size| Ok(Self { image, start: [0, 0], size });
        if height % factor == 0 && width % factor == 0 {
            return whole([height, width]);
        }
        let wrong = |remedy: &str| {
            Error::new(ErrorKind::InvalidInput, "the picture's size does not fit the VAE")
                .expected(format!("sides that are multiples of {factor}"))
                .found(format!("{width}x{height}"))
                .remedy(remedy)
        };
        match rule {
            SizeRule::Refuse => Err(wrong("crop or pad the picture, or choose a size rule")),
            SizeRule::Crop if height < factor || width < factor => {
                Err(wrong("pad the picture: nothing is left to crop"))
            }
            SizeRule::Crop => {
                let start = [height % factor / 2, width % factor / 2];
                Ok(Self { image, start, size: [height - height % factor, width - width % factor] })
            }
            SizeRule::Pad => whole([height.next_multiple_of(factor), width.next_multiple_of(factor)]),
        }
    }

    /// A part of one picture as the network takes it: `[height, width, 3]` in −1..1; grey is repeated, alpha dropped.
    fn part(&self, picture: usize, [top, left]: [usize; 2], [height, width]: [usize; 2]) -> Vec<f32> {
        let [_, rows, columns, channels] = self.image.shape();
        let pixels = self.image.picture(picture);
        let mut values = Vec::with_capacity(height * width * 3);
        for row in 0..height {
            let line = &pixels[(self.start[0] + top + row).min(rows - 1) * columns * channels..][..columns * channels];
            let first = (self.start[1] + left).min(columns);
            let inside = width.min(columns - first);
            push_line(&mut values, &line[first * channels..][..inside * channels], channels);
            for _ in inside..width {
                push_line(&mut values, &line[(columns - 1) * channels..], channels);
            }
        }
        values
    }
}

/// Adds pixels of a line with 3 channels each, 0..1 → −1..1.
fn push_line(values: &mut Vec<f32>, line: &[f32], channels: usize) {
    let scaled = |value: &f32| 2.0 * value - 1.0;
    match channels {
        1 => values.extend(line.iter().flat_map(|value| [scaled(value); 3])),
        3 => values.extend(line.iter().map(scaled)),
        _ => values.extend(line.chunks_exact(channels).flat_map(|pixel| pixel[..3].iter().map(scaled))),
    }
}
