//! Latents to pictures: tiles and precision.

use super::{DecodeOptions, Fallback, Report, Tiling, Vae, encode::to_values, refuse_non_finite, tiling::Mosaic};
use crate::{
    Error, ErrorKind, Image, LatentScale, LatentView, Precision, Result,
    checkpoint::Family,
    memory,
    nn::{Pass, Tensor},
};
use candle_core::Device;
use std::{borrow::Cow, time::Instant};

/// Pictures and how they were made.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Decoded {
    /// `[batch, height·8, width·8, 3]`, clamped to 0..1.
    pub image: Image,
    /// How it was done.
    pub report: Report,
}

impl Vae {
    /// Decodes latents to pictures. A latent that states its scale is unscaled first, for a KL VAE, or scaled, for a
    /// TAESD, which was trained on scaled latents; one that states nothing is taken as this VAE's own.
    ///
    /// # Errors
    /// `InvalidInput` for another number of channels or a file without a decoder; `NonFinite` for NaN or infinity in
    /// latents or, in f32, in the result; `OutOfMemory`, `Cancelled`.
    pub fn decode<'a>(&self, latent: impl Into<LatentView<'a>>, options: &DecodeOptions) -> Result<Decoded> {
        let start = Instant::now();
        let latent = latent.into();
        let own = self.own_space(&latent)?;
        let [batch, _, height, width] = latent.shape();
        let latent = LatentView::new(latent.shape(), &own)?;
        let size = [height, width];
        let available = options.memory_limit.or_else(memory::available);
        let (tiling, fallback) = self.choose_tiles(options.tiles, size, options.precision, available)?;
        let mut fallbacks: Vec<_> = fallback.into_iter().collect();

        let mut precision = options.precision;
        let mut values = self.decode_all(&latent, tiling, precision, available, options)?;
        if precision != Precision::F32 {
            let non_finite = values.iter().filter(|value| !value.is_finite()).count();
            if non_finite > 0 {
                fallbacks.push(Fallback::Widened { from: precision, non_finite });
                precision = Precision::F32;
                values = self.decode_all(&latent, tiling, precision, available, options)?;
            }
        }
        refuse_non_finite("the decoded image", &values)?;
        let (scale, shift) = self.network.to_unit_range();
        values.iter_mut().for_each(|value| *value = (scale * *value + shift).clamp(0.0, 1.0));
        let [height, width] = size.map(|side| side * self.factor());
        let image = Image::new([batch, height, width, self.picture_channels()], values)?;
        let tiles = tiling.map(|tiling| (tiling, tiling.tiles(size[0], size[1]).len()));
        Ok(Decoded { image, report: Report { precision, tiling: tiles, fallbacks, elapsed: start.elapsed() } })
    }

    /// Checks the latent and brings its values to the scale that the network works on.
    fn own_space<'a>(&self, latent: &LatentView<'a>) -> Result<Cow<'a, [f32]>> {
        refuse_non_finite("the latent", latent.data())?;
        if latent.shape()[1] != self.latent_channels() {
            let models = |channels| match channels {
                4 => " (as of SD1.5 and SDXL)",
                16 => " (as of SD3, Flux and Z-Image)",
                _ => "",
            };
            let [own, other] = [self.latent_channels(), latent.shape()[1]];
            return Err(Error::new(ErrorKind::InvalidInput, "the latent is not one of this VAE's")
                .expected(format!("{own} channels{}", models(own)))
                .found(format!("{other} channels{}", models(other)))
                .remedy("use the VAE of the model that made the latent"));
        }
        let identity = |scale: LatentScale| scale.scale == 1.0 && scale.shift == 0.0;
        match (self.family(), latent.scale()) {
            (Family::Taesd, Some(scale)) if !identity(scale) => latent.values(true),
            _ => latent.values(false),
        }
    }

    /// All latents of the batch, one after the other, to `[batch, height, width, 3]` in the network's range.
    fn decode_all(
        &self,
        latent: &LatentView,
        tiling: Option<Tiling>,
        precision: Precision,
        available: Option<u64>,
        options: &DecodeOptions,
    ) -> Result<Vec<f32>> {
        let [batch, channels, height, width] = latent.shape();
        let (factor, size) = (self.factor(), channels * height * width);
        let tiles = tiling.map(|tiling| tiling.tiles(height, width));
        let passes = batch * tiles.as_ref().map_or(1, Vec::len);
        let piece = tiling.map_or([height, width], |tiling| [height, width].map(|side| side.min(tiling.tile)));
        let bands = self.choose_bands(piece, precision, available);
        let pass = Pass::new(&self.runtime, &options.call, passes * self.network.steps(true)).with_bands(bands);
        let mut pictures = Vec::new();
        for index in 0..batch {
            let planes =
                Tensor::from_slice(&latent.data()[index * size..][..size], (1, channels, height, width), &Device::Cpu)?;
            let z = planes.permute((0, 2, 3, 1))?.contiguous()?.to_dtype(precision.dtype())?;
            let values = match &tiles {
                None => self.decode_one(&z, &pass)?,
                Some(tiles) => {
                    let mut mosaic = Mosaic::new(height * factor, width * factor, self.picture_channels());
                    for &tile in tiles {
                        let part = z.narrow(1, tile.rows.start, tile.rows.size)?;
                        let part = part.narrow(2, tile.columns.start, tile.columns.size)?.contiguous()?;
                        mosaic.add(tile, factor, &self.decode_one(&part, &pass)?);
                    }
                    mosaic.finish()
                }
            };
            if batch == 1 {
                return Ok(values);
            }
            pictures.extend(values);
        }
        Ok(pictures)
    }

    fn decode_one(&self, z: &Tensor, pass: &Pass) -> Result<Vec<f32>> {
        self.runtime.run(|| {
            let x = self.network.decode(&z.to_device(self.runtime.handle())?, pass)?;
            let values = to_values(&x)?;
            pass.recycle(x);
            Ok(values)
        })
    }
}
