//! Pictures to latents: sizes, tiles, precision, the distribution's mean or a sample.

use super::{
    EncodeOptions, Fallback, Posterior, Report, SizeRule, Tiling, Vae,
    network::Moments,
    refuse_non_finite,
    tiling::{Mosaic, Tile},
};
use crate::{
    Error, ErrorKind, Image, Latent, Precision, Result,
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
    pub fn encode(&self, image: &Image, options: &EncodeOptions) -> Result<Encoded> {
        let start = Instant::now();
        refuse_non_finite("the image", image.data())?;
        let image = fit(&image.to_rgb(), self.factor(), options.sizes)?;
        let size = [image.height(), image.width()];
        let latent_size = size.map(|side| side / self.factor());
        let (tiling, fallback) =
            self.choose_tiles(options.tiles, latent_size, options.precision, options.memory_limit)?;
        let mut fallbacks: Vec<_> = fallback.into_iter().collect();

        let mut precision = options.precision;
        let mut values = self.encode_all(&image, tiling, precision, options)?;
        if precision != Precision::F32 {
            let non_finite = values.iter().filter(|value| !value.is_finite()).count();
            if non_finite > 0 {
                fallbacks.push(Fallback::Widened { from: precision, non_finite });
                precision = Precision::F32;
                values = self.encode_all(&image, tiling, precision, options)?;
            }
        }
        refuse_non_finite("the latent", &values)?;
        let shape = [image.batch(), self.latent_channels(), latent_size[0], latent_size[1]];
        let latent = Latent::new(shape, values)?.with_scale(self.latent_scale(), false);
        let tiles = tiling.map(|tiling| (tiling, tiling.tiles(latent_size[0], latent_size[1]).len()));
        Ok(Encoded { latent, size, report: Report { precision, tiling: tiles, fallbacks, elapsed: start.elapsed() } })
    }

    /// All pictures of the batch, one after the other, to `[batch, channels, height, width]`.
    fn encode_all(
        &self,
        image: &Image,
        tiling: Option<Tiling>,
        precision: Precision,
        options: &EncodeOptions,
    ) -> Result<Vec<f32>> {
        let factor = self.factor();
        let (height, width, channels) = (image.height() / factor, image.width() / factor, self.latent_channels());
        let tiles = tiling.map(|tiling| tiling.tiles(height, width));
        let passes = image.batch() * tiles.as_ref().map_or(1, Vec::len);
        let pass = Pass::new(&self.runtime, &options.call, passes * self.network.steps(false));
        let mut noise = Noise::new(options.posterior);
        let mut latents = Vec::with_capacity(image.batch() * height * width * channels);
        for index in 0..image.batch() {
            let picture = Image::new([1, image.height(), image.width(), 3], image.picture(index).to_vec())?;
            let [mean, deviation] = match &tiles {
                None => self.encode_one(&picture, precision, &pass)?,
                Some(tiles) => self.encode_tiles(&picture, tiles, precision, &pass)?,
            };
            let values = noise.apply(mean, &deviation);
            // Channels last → channels first.
            latents.extend((0..channels).flat_map(|channel| values.iter().skip(channel).step_by(channels)));
        }
        Ok(latents)
    }

    fn encode_tiles(
        &self,
        picture: &Image,
        tiles: &[Tile],
        precision: Precision,
        pass: &Pass,
    ) -> Result<[Vec<f32>; 2]> {
        let (factor, channels) = (self.factor(), self.latent_channels());
        let mosaic = || Mosaic::new(picture.height() / factor, picture.width() / factor, channels);
        let mut mosaics = [mosaic(), mosaic()];
        for &tile in tiles {
            let [top, left, height, width] =
                [tile.rows.start, tile.columns.start, tile.rows.size, tile.columns.size].map(|side| side * factor);
            let values = self.encode_one(&picture.crop(top, left, height, width)?, precision, pass)?;
            for (mosaic, values) in mosaics.iter_mut().zip(&values) {
                if !values.is_empty() {
                    mosaic.add(tile, 1, values);
                }
            }
        }
        let [mean, deviation] = mosaics.map(Mosaic::finish);
        Ok([mean, deviation])
    }

    /// Mean and standard deviation, `[h, w, c]` each; no deviation for a VAE that is not variational.
    fn encode_one(&self, picture: &Image, precision: Precision, pass: &Pass) -> Result<[Vec<f32>; 2]> {
        let (height, width) = (picture.height(), picture.width());
        let values: Vec<f32> = picture.data().iter().map(|value| 2.0 * value - 1.0).collect();
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

/// Brings sides to multiples of `factor`.
fn fit(image: &Image, factor: usize, rule: SizeRule) -> Result<Image> {
    let (height, width) = (image.height(), image.width());
    if height % factor == 0 && width % factor == 0 {
        return Ok(image.clone());
    }
    let wrong = |remedy: &str| {
        Error::new(ErrorKind::InvalidInput, "the picture's size does not fit the VAE")
            .expected(format!("sides that are multiples of {factor}"))
            .found(format!("{width}x{height}"))
            .remedy(remedy)
    };
    match rule {
        SizeRule::Refuse => Err(wrong("crop or pad the picture, or choose a size rule")),
        SizeRule::Crop if height < factor || width < factor => Err(wrong("pad the picture: nothing is left to crop")),
        SizeRule::Crop => {
            let (top, left) = (height % factor / 2, width % factor / 2);
            image.crop(top, left, height - height % factor, width - width % factor)
        }
        SizeRule::Pad => {
            let (rows, columns) = (height.next_multiple_of(factor), width.next_multiple_of(factor));
            let mut data = Vec::with_capacity(image.batch() * rows * columns * 3);
            for index in 0..image.batch() {
                let pixels = image.picture(index);
                for row in 0..rows {
                    let line = &pixels[row.min(height - 1) * width * 3..][..width * 3];
                    data.extend_from_slice(line);
                    (width..columns).for_each(|_| data.extend_from_slice(&line[(width - 1) * 3..]));
                }
            }
            Image::new([image.batch(), rows, columns, 3], data)
        }
    }
}
