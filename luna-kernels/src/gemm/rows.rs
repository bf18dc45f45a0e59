//! Where the rows of a product come from.
//!
//! Enters: a plain or strided matrix of activations. Leaves: packed groups of rows in f32. Convolution has a source of its own.

use crate::scalar::Scalar;
use crate::simd::Simd;

/// Depths that lie side by side in a packed group: one cache line of f32.
pub(crate) const LINE: usize = 16;

/// A source of rows, and where the results of each row go.
pub(crate) trait Rows: Sync {
    /// Packs rows `first..first + count` of depth `depth` as `[depth/16][count][16]`; what lies beyond the depth may be anything finite.
    fn pack<S: Simd>(&self, s: S, first: usize, count: usize, depth: usize, packed: &mut [f32]);

    /// Where in the output (in elements) the results of `row` begin.
    fn place(&self, row: usize) -> usize;
}

/// A matrix in memory, `m` rows of `stride` elements; results go to rows of `out_stride`.
pub(crate) struct Matrix<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) stride: usize,
    pub(crate) out_stride: usize,
}

impl<T: Scalar> Rows for Matrix<'_, T> {
    #[inline(always)]
    fn pack<S: Simd>(&self, s: S, first: usize, count: usize, depth: usize, packed: &mut [f32]) {
        assert!(packed.len() >= count * depth.next_multiple_of(LINE));
        for r in 0..count {
            let row = &self.data[(first + r) * self.stride..][..depth];
            // SAFETY: the row has `depth` elements, and the packed group (asserted) holds line `[k/16][r]` for each of them.
            unsafe { pack_run(s, row.as_ptr(), depth, packed.as_mut_ptr().add(r * LINE), count * LINE) };
        }
    }

    #[inline(always)]
    fn place(&self, row: usize) -> usize {
        row * self.out_stride
    }
}

/// A matrix of bf16 in memory, packed as words of two; its depth counts words.
pub(crate) struct PairMatrix<'a, T> {
    pub(crate) data: &'a [T],
    /// Elements, not words, from one row to the next.
    pub(crate) stride: usize,
    pub(crate) out_stride: usize,
}

impl<T: Scalar> Rows for PairMatrix<'_, T> {
    #[inline(always)]
    fn pack<S: Simd>(&self, s: S, first: usize, count: usize, depth: usize, packed: &mut [f32]) {
        assert!(T::IS_BF16 && packed.len() >= count * depth.next_multiple_of(LINE));
        for r in 0..count {
            let row = &self.data[(first + r) * self.stride..][..2 * depth];
            // SAFETY: the row holds `depth` words, read without alignment; the packed group holds line `[k/16][r]` for each of them.
            unsafe { pack_run(s, row.as_ptr().cast::<f32>(), depth, packed.as_mut_ptr().add(r * LINE), count * LINE) };
        }
    }

    #[inline(always)]
    fn place(&self, row: usize) -> usize {
        row * self.out_stride
    }
}

/// A matrix read across: row `i` is column `i` of memory, `stride` elements from one depth to the next.
pub(crate) struct Transposed<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) stride: usize,
    pub(crate) out_stride: usize,
}

impl<T: Scalar> Rows for Transposed<'_, T> {
    #[inline(always)]
    fn pack<S: Simd>(&self, _: S, first: usize, count: usize, depth: usize, packed: &mut [f32]) {
        for k in 0..depth {
            let values = &self.data[k * self.stride + first..][..count];
            for (r, value) in values.iter().enumerate() {
                packed[(k / LINE * count + r) * LINE + k % LINE] = value.to_f32();
            }
        }
    }

    #[inline(always)]
    fn place(&self, row: usize) -> usize {
        row * self.out_stride
    }
}

/// Widens `count` elements to lines of 16 that lie `step` apart, zeros behind the last.
///
/// # Safety
/// `from` holds `count` elements; each line written from `to` on is valid.
#[inline(always)]
pub(crate) unsafe fn pack_run<S: Simd, T: Scalar>(s: S, from: *const T, count: usize, to: *mut f32, step: usize) {
    for line in 0..count.div_ceil(LINE) {
        for j in (0..LINE).step_by(S::LANES) {
            let at = line * LINE + j;
            // SAFETY: reads stop at `count`, and the line written is the caller's.
            unsafe {
                let v = if at + S::LANES <= count {
                    T::load(s, from.add(at))
                } else {
                    T::load_head(s, from.add(at.min(count)), count.saturating_sub(at))
                };
                s.store(to.add(line * step + j), v);
            }
        }
    }
}
