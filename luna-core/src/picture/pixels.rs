//! One picture on its way into a file. Enters: f32 in 0..1 or u8, channels last. Leaves: 8- or 16-bit integers.

use rayon::prelude::*;

use crate::{Error, ErrorKind, Image, Limits, Result, limits::check_at_most};

/// One picture's pixels, borrowed: `[height, width, channels]`, row-major; 1 (grey), 3 (RGB) or 4 (RGB and alpha)
/// channels.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    height: usize,
    width: usize,
    channels: usize,
    values: Values<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Values<'a> {
    F32(&'a [f32]),
    U8(&'a [u8]),
}

/// Values worked on at a time: enough to be worth a task of its own.
const CHUNK: usize = 1 << 16;

impl<'a> Pixels<'a> {
    /// f32 values, nominally 0..1.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong shape or number of values, `LimitExceeded` above the default [`Limits`].
    pub fn from_f32(height: usize, width: usize, channels: usize, values: &'a [f32]) -> Result<Self> {
        check_shape(height, width, channels, values.len())?;
        Ok(Self { height, width, channels, values: Values::F32(values) })
    }

    /// 8-bit values.
    ///
    /// # Errors
    /// As [`Pixels::from_f32`].
    pub fn from_u8(height: usize, width: usize, channels: usize, values: &'a [u8]) -> Result<Self> {
        check_shape(height, width, channels, values.len())?;
        Ok(Self { height, width, channels, values: Values::U8(values) })
    }

    /// Picture `index` of a batch.
    ///
    /// # Panics
    /// If `index` is not below the batch.
    pub fn of(image: &'a Image, index: usize) -> Self {
        let [_, height, width, channels] = image.shape();
        Self { height, width, channels, values: Values::F32(image.picture(index)) }
    }

    /// Pixels from top to bottom.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Pixels from left to right.
    pub fn width(&self) -> usize {
        self.width
    }

    /// 1 (grey), 3 (RGB) or 4 (RGB and alpha).
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// 8-bit values, by ComfyUI's rule: `clip(255 * x, 0, 255)`, cut off.
    ///
    /// # Errors
    /// `NonFinite` if there is a NaN. Infinities are clipped like any other value.
    pub fn to_u8(&self) -> Result<Vec<u8>> {
        match self.values {
            Values::U8(values) => Ok(values.to_vec()),
            Values::F32(values) => quantise(values, |value| (value * 255.0) as u8),
        }
    }

    /// 16-bit values: `clip(65535 * x, 0, 65535)`, cut off; 8-bit ones are widened so that 255 becomes 65535.
    ///
    /// # Errors
    /// As [`Pixels::to_u8`].
    pub(super) fn to_u16(self) -> Result<Vec<u16>> {
        match self.values {
            Values::U8(values) => Ok(values.iter().map(|&value| u16::from(value) * 257).collect()),
            Values::F32(values) => quantise(values, |value| (value * 65535.0) as u16),
        }
    }

    /// 8-bit values with 3 or 4 channels, for formats without grey.
    pub(super) fn to_colour_u8(self) -> Result<Vec<u8>> {
        let values = self.to_u8()?;
        Ok(if self.channels == 1 { values.iter().flat_map(|&grey| [grey; 3]).collect() } else { values })
    }

    /// Refuses NaN, which no format can hold.
    ///
    /// # Errors
    /// `NonFinite` with the place of the first.
    pub(crate) fn check_finite(&self) -> Result<()> {
        match self.values {
            Values::F32(values) => values.iter().position(|value| value.is_nan()).map_or(Ok(()), |at| Err(nan(at))),
            Values::U8(_) => Ok(()),
        }
    }

    /// Luma in 0..1, .299 R + .587 G + .114 B, a value for each pixel; grey as it is.
    pub(crate) fn luma(&self) -> Vec<f32> {
        let weigh = |pixel: &[f32]| 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2];
        match (self.values, self.channels) {
            (Values::F32(values), 1) => values.to_vec(),
            (Values::U8(values), 1) => values.iter().map(|&value| f32::from(value) / 255.0).collect(),
            (Values::F32(values), channels) => values.chunks_exact(channels).map(weigh).collect(),
            (Values::U8(values), channels) => {
                let weigh = |pixel: &[u8]| weigh(&[pixel[0], pixel[1], pixel[2]].map(|value| f32::from(value) / 255.0));
                values.chunks_exact(channels).map(weigh).collect()
            }
        }
    }

    /// Refuses a picture whose sides the format cannot express.
    pub(super) fn check_side(&self, format: &str, most: usize) -> Result<()> {
        check_at_most(&format!("pixels along a side of a {format}"), self.height.max(self.width) as u64, most as u64)
    }
}

fn check_shape(height: usize, width: usize, channels: usize, count: usize) -> Result<()> {
    let wrong = |message: &str| Error::new(ErrorKind::InvalidInput, message);
    if height == 0 || width == 0 || !matches!(channels, 1 | 3 | 4) {
        return Err(wrong("the picture has a wrong shape")
            .expected("[height, width, 1 or 3 or 4], no side 0")
            .found(format!("[{height}, {width}, {channels}]")));
    }
    let limits = Limits::default();
    check_at_most("pixels along a side of an image", height.max(width) as u64, limits.image_side as u64)?;
    check_at_most("pixels in an image", height as u64 * width as u64, limits.image_pixels as u64)?;
    if height * width * channels == count {
        return Ok(());
    }
    Err(wrong("the picture has a wrong number of values")
        .expected((height * width * channels).to_string())
        .found(count.to_string()))
}

/// A cast from f32 to an integer cuts off and clips (infinities too); only NaN, which it would make 0, is looked for.
fn quantise<T: Copy + Default + Send>(values: &[f32], cast: impl Fn(f32) -> T + Sync) -> Result<Vec<T>> {
    let mut out = vec![T::default(); values.len()];
    let finite = out
        .par_chunks_mut(CHUNK)
        .zip(values.par_chunks(CHUNK))
        .map(|(out, values)| {
            let mut nan = false;
            for (out, &value) in out.iter_mut().zip(values) {
                nan |= value.is_nan();
                *out = cast(value);
            }
            !nan
        })
        .reduce(|| true, |a, b| a & b);
    if finite {
        return Ok(out);
    }
    Err(nan(values.iter().position(|value| value.is_nan()).unwrap_or_default()))
}

fn nan(at: usize) -> Error {
    Error::new(ErrorKind::NonFinite, "the picture holds NaN").found(format!("the first at value {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cut_off_as_comfyui_does() {
        let values = [0.0, 0.5, 1.0, -1.0, 2.0, 127.999 / 255.0, f32::INFINITY, f32::NEG_INFINITY, 254.99 / 255.0];
        let pixels = Pixels::from_f32(3, 3, 1, &values).unwrap();
        assert_eq!(pixels.to_u8().unwrap(), [0, 127, 255, 0, 255, 127, 255, 0, 254]);
        assert_eq!(pixels.to_u16().unwrap()[..4], [0, 32767, 65535, 0]);
    }

    #[test]
    fn what_was_read_from_8_bits_is_written_as_the_same_8_bits() {
        let values: Vec<f32> = (0..=255u8).map(|value| f32::from(value) / 255.0).collect();
        let bytes = Pixels::from_f32(16, 16, 1, &values).unwrap().to_u8().unwrap();
        assert!(bytes.iter().enumerate().all(|(i, &byte)| i == byte as usize));
        let values: Vec<f32> = (0..=65535u16).map(|value| f32::from(value) / 65535.0).collect();
        let words = Pixels::from_f32(256, 256, 1, &values).unwrap().to_u16().unwrap();
        assert!(words.iter().enumerate().all(|(i, &word)| i == word as usize));
    }

    #[test]
    fn nan_is_refused_with_its_place() {
        let values = [0.0, f32::NAN, 1.0];
        let error = Pixels::from_f32(1, 1, 3, &values).unwrap().to_u8().unwrap_err();
        assert_eq!((error.kind(), error.finding()), (ErrorKind::NonFinite, Some("the first at value 1")));
    }
}
