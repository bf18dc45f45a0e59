//! Latents: what a VAE's encoder gives and a sampler works on.

use crate::{Error, ErrorKind, Limits, Result, limits::check_at_most};
use std::borrow::Cow;

/// How a latent relates to the one the VAE's encoder gave: a sampler of the model sees `(latent − shift) · scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentScale {
    /// The scale factor, for example 0.18215 (SD1.5), 0.13025 (SDXL), 0.3611 (Flux).
    pub scale: f32,
    /// The shift factor, for example 0 (SD1.5, SDXL), 0.1159 (Flux).
    pub shift: f32,
}

impl LatentScale {
    /// SD1.x and SD2.x.
    pub const SD15: Self = Self { scale: 0.18215, shift: 0.0 };
    /// SDXL.
    pub const SDXL: Self = Self { scale: 0.13025, shift: 0.0 };
    /// SD3 and SD3.5.
    pub const SD3: Self = Self { scale: 1.5305, shift: 0.0609 };
    /// Flux.1 and Z-Image.
    pub const FLUX: Self = Self { scale: 0.3611, shift: 0.1159 };
}

/// A batch of latents: f32, `[batch, channels, height, width]` in row-major order, an eighth of the picture's sides.
///
/// Unless [`Latent::is_scaled`] says otherwise they are as the VAE's encoder gives them and as ComfyUI's VAE nodes hand
/// them on.
#[derive(Debug, Clone, PartialEq)]
pub struct Latent {
    shape: [usize; 4],
    data: Vec<f32>,
    scaled: bool,
    scale: Option<LatentScale>,
}

/// A batch of latents as [`Latent`] has them, borrowed from their owner.
///
/// ```
/// use luna_core::{LatentScale, LatentView};
/// let values = [0.0; 24];
/// let latent = LatentView::new([1, 4, 2, 3], &values)?.with_scale(Some(LatentScale::SDXL), true);
/// assert!(std::ptr::eq(latent.data(), &values[..]));
/// # Ok::<(), luna_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentView<'a> {
    shape: [usize; 4],
    data: &'a [f32],
    scaled: bool,
    scale: Option<LatentScale>,
}

impl<'a> LatentView<'a> {
    /// Looks at unscaled values of the shape `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// As [`Latent::new`].
    pub fn new(shape: [usize; 4], data: &'a [f32]) -> Result<Self> {
        check(shape, data.len())?;
        Ok(Self { shape, data, scaled: false, scale: None })
    }

    /// As [`Latent::with_scale`].
    pub fn with_scale(mut self, scale: Option<LatentScale>, scaled: bool) -> Self {
        (self.scale, self.scaled) = (scale, scaled);
        self
    }

    /// `[batch, channels, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The values, row-major.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// The model's scale and shift factors, where they are known.
    pub fn scale(&self) -> Option<LatentScale> {
        self.scale
    }

    /// The values as a sampler sees them or as the VAE's encoder gave them; the caller's own where they are so already.
    ///
    /// # Errors
    /// `InvalidInput` if they are to be changed and the factors are not known.
    pub(crate) fn values(&self, scaled: bool) -> Result<Cow<'a, [f32]>> {
        if self.scaled == scaled {
            return Ok(Cow::Borrowed(self.data));
        }
        let owned = Latent { shape: self.shape, data: self.data.to_vec(), scaled: self.scaled, scale: self.scale };
        Ok(Cow::Owned(if scaled { owned.scaled()? } else { owned.unscaled()? }.data))
    }
}

impl<'a> From<&'a Latent> for LatentView<'a> {
    fn from(latent: &'a Latent) -> Self {
        Self { shape: latent.shape, data: &latent.data, scaled: latent.scaled, scale: latent.scale }
    }
}

/// Refuses shapes that no latent has, and another number of values than the shape tells.
fn check(shape: [usize; 4], values: usize) -> Result<()> {
    let limits = Limits::default();
    let wrong = |message: &str| Error::new(ErrorKind::InvalidInput, message.to_owned());
    if shape.contains(&0) {
        return Err(wrong("the latent has an empty side").found(format!("{shape:?}")));
    }
    check_at_most("latents in a batch", shape[0] as u64, limits.batch as u64)?;
    check_at_most("channels of a latent", shape[1] as u64, 1024)?;
    check_at_most("latent pixels along a side", shape[2].max(shape[3]) as u64, limits.image_side as u64 / 8)?;
    let count = shape.iter().product::<usize>();
    if count == values {
        return Ok(());
    }
    Err(wrong("the latent has a wrong number of values")
        .expected(format!("{count} for {shape:?}"))
        .found(values.to_string()))
}

impl Latent {
    /// Takes unscaled values of the shape `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// `InvalidInput` if a side is 0 or the number of values differs; `LimitExceeded` above the default [`Limits`].
    pub fn new(shape: [usize; 4], data: Vec<f32>) -> Result<Self> {
        check(shape, data.len())?;
        Ok(Self { shape, data, scaled: false, scale: None })
    }

    /// States the model's scale and shift factors and whether they are applied already; changes no value.
    pub fn with_scale(mut self, scale: Option<LatentScale>, scaled: bool) -> Self {
        (self.scale, self.scaled) = (scale, scaled);
        self
    }

    /// `[batch, channels, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Latents in the batch.
    pub fn batch(&self) -> usize {
        self.shape[0]
    }

    /// Latent channels: 4 (SD1.5, SDXL) or 16 (SD3, Flux, Z-Image).
    pub fn channels(&self) -> usize {
        self.shape[1]
    }

    /// Latent rows.
    pub fn height(&self) -> usize {
        self.shape[2]
    }

    /// Latent columns.
    pub fn width(&self) -> usize {
        self.shape[3]
    }

    /// The values, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The values, row-major, without a copy.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// The model's scale and shift factors, where they are known.
    pub fn scale(&self) -> Option<LatentScale> {
        self.scale
    }

    /// Whether scale and shift are applied to the values.
    pub fn is_scaled(&self) -> bool {
        self.scaled
    }

    /// The same latent as a sampler sees it, `(x − shift) · scale`; unchanged if it is so already.
    ///
    /// # Errors
    /// `InvalidInput` if the factors are not known.
    pub fn scaled(mut self) -> Result<Self> {
        if !self.scaled {
            let LatentScale { scale, shift } = self.factors()?;
            self.data.iter_mut().for_each(|x| *x = (*x - shift) * scale);
            self.scaled = true;
        }
        Ok(self)
    }

    /// The same latent as the VAE's encoder gave it, `x / scale + shift`; unchanged if it is so already.
    ///
    /// # Errors
    /// `InvalidInput` if the factors are not known.
    pub fn unscaled(mut self) -> Result<Self> {
        if self.scaled {
            let LatentScale { scale, shift } = self.factors()?;
            self.data.iter_mut().for_each(|x| *x = *x / scale + shift);
            self.scaled = false;
        }
        Ok(self)
    }

    fn factors(&self) -> Result<LatentScale> {
        self.scale.ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "the model's scale and shift factors are not known")
                .expected("a config.json with `scaling_factor` beside the VAE, or a checkpoint that shows its model")
                .remedy("name the latent format: sd15, sdxl, sd3 or flux")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_there_and_back_is_the_identity() {
        let latent = Latent::new([1, 2, 1, 2], vec![-1.0, 0.0, 1.0, 3.5]).unwrap();
        assert_eq!(latent.clone().scaled().unwrap_err().kind(), ErrorKind::InvalidInput);
        let latent = latent.with_scale(Some(LatentScale::FLUX), false);
        let scaled = latent.clone().scaled().unwrap();
        assert!((scaled.data()[0] - (-1.0 - 0.1159) * 0.3611).abs() < 1e-6);
        let back = scaled.scaled().unwrap().unscaled().unwrap();
        assert!(back.data().iter().zip(latent.data()).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn wrong_shapes_are_refused() {
        assert!(Latent::new([1, 4, 0, 8], vec![]).is_err());
        assert!(Latent::new([1, 4, 8, 8], vec![0.0; 255]).is_err());
        assert_eq!(Latent::new([1, 4, 1 << 20, 1], vec![]).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }
}
