//! Convolution as a matrix product whose rows are gathered while they are packed.
//!
//! Enters: an image. Leaves: packed patches of a few output pixels at a time; no image of all patches ever exists.

use super::prologue::{NormSilu, Plain, Prologue};
use super::{ConvInput, ConvShape};
use crate::gemm::rows::{LINE, Rows};
use crate::scalar::Scalar;
use crate::simd::Simd;
use crate::simd::math::Activation;

/// Rows of the product: one per output pixel, `[kh, kw, cin]` deep.
pub(super) struct Patches<'a, T> {
    pub(super) x: &'a ConvInput<'a, T>,
    pub(super) shape: ConvShape,
    /// Output row that the first row of pixels is.
    pub(super) first: usize,
    pub(super) ho: usize,
    pub(super) wo: usize,
}

impl<T: Scalar> Patches<'_, T> {
    /// Pixel index of the input under tap (`ky`, `kx`) of output (`oy`, `ox`), unless it is padding.
    #[inline(always)]
    pub(super) fn source(&self, image: usize, oy: usize, ox: usize, ky: usize, kx: usize) -> Option<usize> {
        let (h, w) = self.x.size();
        let y = ((self.first + oy) * self.shape.stride + ky).checked_sub(self.shape.padding[0]).filter(|&y| y < h)?;
        let x = (ox * self.shape.stride + kx).checked_sub(self.shape.padding[2]).filter(|&x| x < w)?;
        let shift = u32::from(self.x.upsample);
        Some((image * self.x.h + (y >> shift)) * self.x.w + (x >> shift))
    }

    /// Gathers all taps of `lanes` channels from `c` on for packed rows `0..count`.
    #[inline(always)]
    fn gather<S: Simd, R: Prologue<S>>(&self, s: S, first: usize, count: usize, packed: &mut [f32]) {
        let ConvShape { cin, kh, kw, .. } = self.shape;
        for r in 0..count {
            let row = first + r;
            let (image, oy, ox) = (row / (self.ho * self.wo), row / self.wo % self.ho, row % self.wo);
            for tap in 0..kh * kw {
                let pixel = self.source(image, oy, ox, tap / kw, tap % kw);
                let mut c = 0;
                while c < cin {
                    let lanes = S::LANES.min(cin - c);
                    let v = match pixel {
                        // SAFETY: the pixel lies in the image, and `c + lanes` is at most `cin`.
                        Some(pixel) => unsafe {
                            self.x.prepared(s, R::new(s, self.x, image, c, lanes), pixel, cin, c, lanes)
                        },
                        None => s.zero(),
                    };
                    put(s, v, lanes, tap * cin + c, r, count, packed);
                    c += S::LANES;
                }
            }
        }
    }
}

/// Writes `lanes` values to depth `k` and on of packed row `r` of `count`.
#[inline(always)]
fn put<S: Simd>(s: S, v: S::V, lanes: usize, k: usize, r: usize, count: usize, packed: &mut [f32]) {
    let (line, j) = (k / LINE, k % LINE);
    if j.is_multiple_of(S::LANES) {
        let target = &mut packed[(line * count + r) * LINE + j..][..S::LANES];
        // SAFETY: the target holds `LANES` values; a partial vector's zeros are overwritten by the next tap or lie beyond the depth.
        unsafe { s.store(target.as_mut_ptr(), v) };
        return;
    }
    let mut lane = [0.0; LINE];
    // SAFETY: no vector is longer than 16 lanes.
    unsafe { s.store(lane.as_mut_ptr(), v) };
    for (i, value) in lane[..lanes].iter().enumerate() {
        packed[((k + i) / LINE * count + r) * LINE + (k + i) % LINE] = *value;
    }
}

impl<T: Scalar> Rows for Patches<'_, T> {
    #[inline(always)]
    fn pack<S: Simd>(&self, s: S, first: usize, count: usize, depth: usize, packed: &mut [f32]) {
        assert_eq!(depth, self.shape.kh * self.shape.kw * self.shape.cin);
        if self.x.activation == Activation::Silu {
            self.gather::<S, NormSilu<S>>(s, first, count, packed);
        } else {
            self.gather::<S, Plain<S>>(s, first, count, packed);
        }
    }

    #[inline(always)]
    fn place(&self, row: usize) -> usize {
        row * self.shape.cout
    }
}
