//! What happens to the sums of a product on their way to the output.
//!
//! Enters: f32 sums. Leaves: scaled, biased, activated values in the output's element type, with the residual added.

use super::rows::Rows;
use crate::isa::Kernel;
use crate::panel::NR;
use crate::scalar::Scalar;
use crate::simd::Simd;
use crate::simd::math::Activation;

/// `out = activation(scale · sum + bias) + residual`; with `accumulate` added to what `out` holds.
///
/// The default leaves the product as it is.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a, T> {
    /// One value per output column (or output channel).
    pub bias: Option<&'a [f32]>,
    /// Applied after scale and bias.
    pub activation: Activation,
    /// Added after the activation; shaped like the output.
    pub residual: Option<&'a [T]>,
    /// Factor on the product, before the bias.
    pub scale: f32,
    /// Add to the output instead of replacing it.
    pub accumulate: bool,
}

impl<T> Default for Epilogue<'_, T> {
    fn default() -> Self {
        Self { bias: None, activation: Activation::None, residual: None, scale: 1.0, accumulate: false }
    }
}

impl<T> Epilogue<'_, T> {
    /// Panics unless bias and residual fit an output of `len` elements in rows of `n`.
    pub(crate) fn check(&self, n: usize, len: usize) {
        if let Some(bias) = self.bias {
            assert_eq!(bias.len(), n, "bias must hold one value per output column");
        }
        if let Some(residual) = self.residual {
            assert_eq!(residual.len(), len, "residual must have the output's shape");
        }
    }
}

/// An output that several tasks write at once, each its own part.
pub(crate) struct OutPtr<T> {
    ptr: *mut T,
    len: usize,
    /// Written past the caches: aligned, and too large to be found there when it is read.
    streamed: bool,
}

/// Bytes from which on outputs are written past the caches, which spares reading each line before it is written.
const STREAMED: usize = 24 << 20;

impl<T> Clone for OutPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for OutPtr<T> {}

// SAFETY: tasks write disjoint parts, which is what callers of `at` promise.
unsafe impl<T: Send> Send for OutPtr<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for OutPtr<T> {}

impl<T> OutPtr<T> {
    pub(crate) fn new(out: &mut [T]) -> Self {
        let streamed = size_of_val(out) >= STREAMED && out.as_ptr().addr().is_multiple_of(64);
        Self { ptr: out.as_mut_ptr(), len: out.len(), streamed }
    }

    /// Address of element `start`, of which the next `count` are there.
    ///
    /// # Safety
    /// The slice is still borrowed for the running kernel, and no other task touches these elements.
    #[inline(always)]
    pub(crate) unsafe fn at(self, start: usize, count: usize) -> *mut T {
        assert!(start.checked_add(count).is_some_and(|end| end <= self.len), "kernel wrote past its output");
        // SAFETY: within the slice, by the assertion.
        unsafe { self.ptr.add(start) }
    }
}

impl<T: Scalar> Epilogue<'_, T> {
    /// Sends `count <= LANES` sums of columns `column..` to element `at` of the output.
    ///
    /// # Safety
    /// No other task touches these elements; the bias holds `count` values from `column` on, the residual from `at` on. The task ends
    /// with a [`Simd::fence`].
    #[inline(always)]
    pub(crate) unsafe fn finish<S: Simd>(
        &self,
        s: S,
        sum: S::V,
        column: usize,
        at: usize,
        target: OutPtr<T>,
        count: usize,
    ) {
        // SAFETY: the caller gives `count` elements everywhere; whole vectors are touched only where `count` is `LANES`.
        unsafe {
            let out = target.at(at, count);
            let mut v = sum;
            if self.scale != 1.0 {
                v = s.mul(v, s.splat(self.scale));
            }
            if let Some(bias) = self.bias {
                v = s.add(v, read(s, bias.as_ptr().add(column), count));
            }
            v = self.activation.apply(s, v);
            if let Some(residual) = self.residual {
                v = s.add(v, read(s, residual.as_ptr().add(at), count));
            }
            if self.accumulate {
                v = s.add(v, read(s, out, count));
            }
            if count == S::LANES && target.streamed && out.addr().is_multiple_of(64) {
                T::stream(s, out, v);
            } else if count == S::LANES {
                T::store(s, out, v);
            } else {
                T::store_head(s, out, v, count);
            }
        }
    }
}

/// A vector, or its first elements.
///
/// # Safety
/// `p` is valid for reading `count <= LANES` elements.
#[inline(always)]
pub(crate) unsafe fn read<S: Simd, T: Scalar>(s: S, p: *const T, count: usize) -> S::V {
    // SAFETY: the caller gives `count <= LANES` elements.
    unsafe { if count == S::LANES { T::load(s, p) } else { T::load_head(s, p, count) } }
}

/// Sends a block of sums, 32 a row, to the output.
pub(crate) struct Finish<'a, T, R> {
    pub(crate) sums: &'a [f32],
    pub(crate) rows: &'a R,
    pub(crate) first: usize,
    pub(crate) column: usize,
    pub(crate) columns: usize,
    pub(crate) out: OutPtr<T>,
    pub(crate) epilogue: &'a Epilogue<'a, T>,
}

impl<T: Scalar, R: Rows> Kernel for Finish<'_, T, R> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let bias_ok = self.epilogue.bias.is_none_or(|bias| bias.len() >= self.column + self.columns);
        assert!(self.columns <= NR && bias_ok);
        for (r, sums) in self.sums.chunks_exact(NR).enumerate() {
            let place = self.rows.place(self.first + r) + self.column;
            assert!(self.epilogue.residual.is_none_or(|residual| residual.len() >= place + self.columns));
            // SAFETY: this task alone writes these columns of this row; sizes are asserted above and in `at`.
            unsafe {
                let mut j = 0;
                while j < self.columns {
                    let count = S::LANES.min(self.columns - j);
                    let sum = s.load(sums.as_ptr().add(j));
                    self.epilogue.finish(s, sum, self.column + j, place + j, self.out, count);
                    j += S::LANES;
                }
            }
        }
        s.fence();
    }
}
