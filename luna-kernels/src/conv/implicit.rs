//! Convolution as a matrix product whose rows are gathered while they are packed.
//!
//! Enters: an image. Leaves: packed patches of a few output pixels at a time; no image of all patches ever exists.

use super::{ConvInput, ConvShape};
use crate::gemm::rows::{LINE, Rows};
use crate::scalar::Scalar;
use crate::simd::Simd;

/// Rows of the product: one per output pixel, `[kh, kw, cin]` deep.
pub(super) struct Patches<'a, T> {
    pub(super) x: &'a ConvInput<'a, T>,
    pub(super) shape: ConvShape,
    pub(super) ho: usize,
    pub(super) wo: usize,
}

impl<T: Scalar> Patches<'_, T> {
    /// Pixel index of the input under tap (`ky`, `kx`) of output (`oy`, `ox`), unless it is padding.
    #[inline(always)]
    fn source(&self, image: usize, oy: usize, ox: usize, ky: usize, kx: usize) -> Option<usize> {
        let (h, w) = self.x.size();
        let y = (oy * self.shape.stride + ky).checked_sub(self.shape.padding[0]).filter(|&y| y < h)?;
        let x = (ox * self.shape.stride + kx).checked_sub(self.shape.padding[2]).filter(|&x| x < w)?;
        let shift = u32::from(self.x.upsample);
        Some((image * self.x.h + (y >> shift)) * self.x.w + (x >> shift))
    }

    /// Gathers one tap's channels of one output pixel: packed row `r` of `count`, from depth `k` on.
    #[inline(always)]
    fn gather<S: Simd>(
        &self,
        s: S,
        image: usize,
        pixel: Option<usize>,
        k: usize,
        r: usize,
        count: usize,
        packed: &mut [f32],
    ) {
        let cin = self.shape.cin;
        let mut c = 0;
        while c < cin {
            let lanes = S::LANES.min(cin - c);
            let v = match pixel {
                // SAFETY: the pixel lies in the image, so `cin` channels are there, `lanes` of them from `c` on.
                Some(pixel) => unsafe { self.x.load(s, image, &self.x.data[pixel * cin..][..cin], c, lanes) },
                None => s.zero(),
            };
            let (line, j) = ((k + c) / LINE, (k + c) % LINE);
            if j + S::LANES <= LINE && j.is_multiple_of(S::LANES) {
                let target = &mut packed[(line * count + r) * LINE + j..][..S::LANES];
                // SAFETY: the target holds `LANES` values; a partial vector's zeros are overwritten by the next tap or lie beyond the depth.
                unsafe { s.store(target.as_mut_ptr(), v) };
            } else {
                let mut lane = [0.0; LINE];
                // SAFETY: no vector is longer than 16 lanes.
                unsafe { s.store(lane.as_mut_ptr(), v) };
                for (i, value) in lane[..lanes].iter().enumerate() {
                    let depth = k + c + i;
                    packed[(depth / LINE * count + r) * LINE + depth % LINE] = *value;
                }
            }
            c += S::LANES;
        }
    }
}

impl<T: Scalar> ConvInput<'_, T> {
    /// Reads `lanes` channels from `c` on of a pixel, with norm and activation applied.
    ///
    /// # Safety
    /// `pixel` holds at least `c + lanes` channels, and `lanes` is at most `LANES`.
    #[inline(always)]
    pub(super) unsafe fn load<S: Simd>(&self, s: S, image: usize, pixel: &[T], c: usize, lanes: usize) -> S::V {
        let cin = pixel.len();
        // SAFETY: the caller gives the channels; the norm holds `[b, cin]` values (checked where the convolution begins).
        unsafe {
            let at = pixel.as_ptr().add(c);
            let mut v = if lanes == S::LANES { T::load(s, at) } else { T::load_head(s, at, lanes) };
            if let Some(norm) = self.norm {
                let (scale, shift) =
                    (norm.scale.as_ptr().add(image * cin + c), norm.shift.as_ptr().add(image * cin + c));
                v = if lanes == S::LANES {
                    s.fma(v, s.load(scale), s.load(shift))
                } else {
                    s.fma(v, s.load_head(scale, lanes), s.load_head(shift, lanes))
                };
            }
            self.activation.apply(s, v)
        }
    }
}

impl<T: Scalar> Rows for Patches<'_, T> {
    #[inline(always)]
    fn pack<S: Simd>(&self, s: S, first: usize, count: usize, depth: usize, packed: &mut [f32]) {
        let ConvShape { cin, kh, kw, .. } = self.shape;
        debug_assert_eq!(depth, kh * kw * cin);
        for r in 0..count {
            let row = first + r;
            let (image, oy, ox) = (row / (self.ho * self.wo), row / self.wo % self.ho, row % self.wo);
            for tap in 0..kh * kw {
                let pixel = self.source(image, oy, ox, tap / kw, tap % kw);
                self.gather(s, image, pixel, tap * cin, r, count, packed);
            }
        }
    }

    #[inline(always)]
    fn place(&self, row: usize) -> usize {
        row * self.shape.cout
    }
}
