//! Reordering of images: channels first to channels last and back, nearest-neighbour doubling.
//!
//! Enters and leaves: slices, of different element types where wanted.

use crate::scalar::Scalar;
use rayon::prelude::*;

/// Sizes of a batch of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// Images.
    pub b: usize,
    /// Channels.
    pub c: usize,
    /// Height.
    pub h: usize,
    /// Width.
    pub w: usize,
}

impl ImageShape {
    /// Elements.
    pub fn len(&self) -> usize {
        self.b * self.c * self.h * self.w
    }

    /// True without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// `[b, c, h, w]` to `[b, h, w, c]`.
///
/// # Panics
/// If a slice does not have the size its shape says.
pub fn nchw_to_nhwc<A: Scalar, B: Scalar>(x: &[A], out: &mut [B], shape: ImageShape) {
    transpose(x, out, shape.b, shape.c, shape.h * shape.w);
}

/// `[b, h, w, c]` to `[b, c, h, w]`.
///
/// # Panics
/// If a slice does not have the size its shape says.
pub fn nhwc_to_nchw<A: Scalar, B: Scalar>(x: &[A], out: &mut [B], shape: ImageShape) {
    transpose(x, out, shape.b, shape.h * shape.w, shape.c);
}

/// `[b, rows, columns]` to `[b, columns, rows]`.
fn transpose<A: Scalar, B: Scalar>(x: &[A], out: &mut [B], b: usize, rows: usize, columns: usize) {
    let len = b * rows * columns;
    assert!(x.len() == len && out.len() == len, "both sides must hold {b} x {rows} x {columns} elements");
    if len == 0 {
        return;
    }
    // Bands of output rows; within them blocks of 32 × 32, which keep both sides in the first-level cache.
    let band = (1 << 14) / rows + 1;
    x.chunks_exact(rows * columns).zip(out.chunks_exact_mut(rows * columns)).for_each(|(x, out)| {
        out.par_chunks_mut(band * rows).enumerate().for_each(|(i, out)| {
            let first = i * band;
            let width = out.len() / rows;
            for r0 in (0..rows).step_by(32) {
                for c0 in (0..width).step_by(32) {
                    for c in c0..width.min(c0 + 32) {
                        for r in r0..rows.min(r0 + 32) {
                            out[c * rows + r] = B::from_f32(x[r * columns + first + c].to_f32());
                        }
                    }
                }
            }
        });
    });
}

/// Doubles height and width of `[b, h, w, c]` by repeating each pixel.
///
/// # Panics
/// If a slice does not have the size its shape says.
pub fn upsample_nearest_2x<T: Scalar>(x: &[T], out: &mut [T], shape: ImageShape) {
    T::upsample_nearest_2x(x, out, shape);
}

/// [`upsample_nearest_2x`], compiled once for each element type.
pub(crate) fn upsample_nearest_2x_of<T: Scalar>(x: &[T], out: &mut [T], shape: ImageShape) {
    assert!(x.len() == shape.len() && out.len() == 4 * shape.len(), "output must be [b, 2h, 2w, c]");
    if x.is_empty() {
        return;
    }
    let row = shape.w * shape.c;
    out.par_chunks_exact_mut(4 * row).zip(x.par_chunks_exact(row)).for_each(|(out, x)| {
        let (upper, lower) = out.split_at_mut(2 * row);
        for (pair, pixel) in upper.chunks_exact_mut(2 * shape.c).zip(x.chunks_exact(shape.c)) {
            pair[..shape.c].copy_from_slice(pixel);
            pair[shape.c..].copy_from_slice(pixel);
        }
        lower.copy_from_slice(upper);
    });
}
