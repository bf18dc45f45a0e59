//! Pictures brought to another size, bit for bit as the `resize` of Pillow 13 does it. Enters: one picture, the size it is
//! brought to, the window of it that is wanted. Leaves: 8-bit RGB of that window; what lies outside is never made.

use super::Pixels;
use crate::{Error, ErrorKind, Result};
use rayon::prelude::*;
use std::ops::Range;

/// How pixels between pixels come about. Downscaling widens the filter, so that every source pixel counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Filter {
    /// Linear between neighbours.
    Bilinear,
    /// Cubic convolution with a = −0.5.
    Bicubic,
    /// A windowed sinc over three lobes.
    Lanczos,
}

impl Filter {
    /// The filter of Pillow's number, as model configurations give it: 1 Lanczos, 2 bilinear, 3 bicubic.
    pub const fn of_pillow(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Lanczos),
            2 => Some(Self::Bilinear),
            3 => Some(Self::Bicubic),
            _ => None,
        }
    }

    /// How far it reaches, in pixels of the smaller picture.
    const fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI) };
        let far = x.abs();
        match self {
            Self::Bilinear => (1.0 - far).max(0.0),
            Self::Bicubic if far < 1.0 => (1.5 * far - 2.5) * far * far + 1.0,
            Self::Bicubic if far < 2.0 => (((far - 5.0) * far + 8.0) * far - 4.0) * -0.5,
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Bicubic | Self::Lanczos => 0.0,
        }
    }
}

/// The size a picture is brought to, and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resampling {
    /// Height and width of the whole result.
    pub size: [usize; 2],
    /// Rows of it that are wanted.
    pub rows: Range<usize>,
    /// Columns of it that are wanted.
    pub columns: Range<usize>,
    /// How.
    pub filter: Filter,
}

impl Resampling {
    /// All of the result.
    pub fn whole(size: [usize; 2], filter: Filter) -> Self {
        Self { size, rows: 0..size[0], columns: 0..size[1], filter }
    }
}

/// Channels of the result.
const RGB: usize = 3;
/// Bits behind the point of a weight.
const BITS: u32 = 22;

/// The window of the resampled picture, `[rows, columns, 3]` 8-bit RGB; grey is repeated, what is transparent is laid on
/// white as transformers' processors do it, f32 becomes integers as a saved file has them.
///
/// ```
/// use luna_core::picture::{Filter, Pixels, Resampling, resample};
/// let picture = Pixels::from_u8(2, 2, 1, &[0, 255, 0, 255])?;
/// let wide = resample(&picture, &Resampling::whole([1, 4], Filter::Bilinear))?;
/// assert_eq!(wide, [0, 0, 0, 64, 64, 64, 191, 191, 191, 255, 255, 255]);
/// # Ok::<(), luna_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidInput` for a size of 0 or a window outside the result, `NonFinite` for a NaN among the pixels.
pub fn resample(picture: &Pixels, to: &Resampling) -> Result<Vec<u8>> {
    let Resampling { size: [height, width], rows, columns, filter } = to.clone();
    if rows.is_empty() || columns.is_empty() || rows.end > height || columns.end > width {
        return Err(Error::new(ErrorKind::InvalidInput, "the window lies outside the resampled picture")
            .expected(format!("rows and columns within {height}x{width}"))
            .found(format!("rows {rows:?}, columns {columns:?}")));
    }
    let (from_height, from_width) = (picture.height(), picture.width());
    let vertical = (height != from_height).then(|| Taps::new(from_height, height, rows.clone(), filter));
    let horizontal = (width != from_width).then(|| Taps::new(from_width, width, columns.clone(), filter));
    // Only what the window looks at goes through the passes.
    let seen = [(&vertical, rows), (&horizontal, columns)].map(|(taps, all)| taps.as_ref().map_or(all, Taps::seen));
    let mut part = Part::of(picture, &seen)?;
    // Each pass rounds to 8 bits, so their order shows: Pillow 13 begins where more is gained, columns counting double.
    let (fewer_rows, fewer_columns) = (from_height as i64 - height as i64, from_width as i64 - width as i64);
    let vertical_first = fewer_rows > 0 && fewer_rows > 2 * fewer_columns;
    if let Some(taps) = vertical.as_ref().filter(|_| vertical_first) {
        part = part.vertically(taps, seen[0].start);
    }
    if let Some(taps) = &horizontal {
        part = part.horizontally(taps, seen[1].start);
    }
    if let Some(taps) = vertical.as_ref().filter(|_| !vertical_first) {
        part = part.vertically(taps, seen[0].start);
    }
    Ok(part.values)
}

/// A part of a picture, 8-bit RGB.
struct Part {
    width: usize,
    values: Vec<u8>,
}

impl Part {
    fn of(picture: &Pixels, [rows, columns]: &[Range<usize>; 2]) -> Result<Self> {
        let values = picture.to_colour_u8()?;
        let values = if picture.channels() == 4 { on_white(&values) } else { values };
        let lines = values.chunks_exact(picture.width() * RGB).skip(rows.start).take(rows.len());
        let values = lines.flat_map(|line| &line[columns.start * RGB..columns.end * RGB]).copied().collect();
        Ok(Self { width: columns.len(), values })
    }

    /// Filters the columns, of which the first is column `start` of the source.
    fn horizontally(&self, taps: &Taps, start: usize) -> Self {
        let (height, width) = (self.values.len() / (self.width * RGB), taps.first.len());
        let mut values = vec![0; height * width * RGB];
        let lines = self.values.par_chunks_exact(self.width * RGB);
        values.par_chunks_exact_mut(width * RGB).zip(lines).for_each(|(out, line)| {
            for (index, pixel) in out.chunks_exact_mut(RGB).enumerate() {
                let (first, weights) = taps.of(index);
                for (channel, value) in pixel.iter_mut().enumerate() {
                    *value = weigh(weights, |tap| line[(first - start + tap) * RGB + channel]);
                }
            }
        });
        Self { width, values }
    }

    /// Filters the rows, of which the first is row `start` of the source.
    fn vertically(&self, taps: &Taps, start: usize) -> Self {
        let stride = self.width * RGB;
        let mut values = vec![0; taps.first.len() * stride];
        values.par_chunks_exact_mut(stride).enumerate().for_each(|(row, out)| {
            let (first, weights) = taps.of(row);
            for (column, value) in out.iter_mut().enumerate() {
                *value = weigh(weights, |tap| self.values[(first - start + tap) * stride + column]);
            }
        });
        Self { width: self.width, values }
    }
}

/// RGB over white, with the arithmetic of Pillow's `alpha_composite`.
fn on_white(rgba: &[u8]) -> Vec<u8> {
    let blend = |value: u8, alpha: u8| {
        let alpha = u32::from(alpha);
        let sum = (u32::from(value) * alpha + 255 * (255 - alpha) + 0x80) << 7;
        (((sum >> 8) + sum) >> 15) as u8
    };
    let (pixels, _) = rgba.as_chunks::<4>();
    pixels.iter().flat_map(|&[red, green, blue, alpha]| [red, green, blue].map(|value| blend(value, alpha))).collect()
}

/// The weighted sum in fixed point, rounded and clipped.
fn weigh(weights: &[i32], at: impl Fn(usize) -> u8) -> u8 {
    let sum = weights
        .iter()
        .enumerate()
        .fold(1i64 << (BITS - 1), |sum, (tap, &weight)| sum + i64::from(weight) * i64::from(at(tap)));
    (sum >> BITS).clamp(0, 255) as u8
}

/// Which source pixels make up each wanted pixel of an axis, with what weight.
struct Taps {
    first: Vec<usize>,
    weights: Vec<Vec<i32>>,
}

impl Taps {
    fn new(from: usize, to: usize, wanted: Range<usize>, filter: Filter) -> Self {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let (support, shrink) = (filter.support() * stretch, 1.0 / stretch);
        let taps = wanted.map(|index| {
            let centre = (index as f64 + 0.5) * scale;
            // Casts cut off towards zero, as the original's do.
            let first = ((centre - support + 0.5) as i64).max(0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let weight = |pixel: usize| filter.weight((pixel as f64 - centre + 0.5) * shrink);
            let weights: Vec<f64> = (first..end).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |weight: &f64| {
                let scaled = weight / sum * f64::from(1 << BITS);
                (scaled + 0.5f64.copysign(scaled)) as i32
            };
            (first, weights.iter().map(fixed).collect())
        });
        let (first, weights) = taps.unzip();
        Self { first, weights }
    }

    fn of(&self, index: usize) -> (usize, &[i32]) {
        (self.first[index], &self.weights[index])
    }

    /// All source pixels that are looked at.
    fn seen(&self) -> Range<usize> {
        let ends = self.first.iter().zip(&self.weights).map(|(first, weights)| first + weights.len());
        self.first.iter().copied().min().unwrap_or(0)..ends.max().unwrap_or(0)
    }
}
