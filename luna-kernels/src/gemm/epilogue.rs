//! What happens to the sums of a product on their way to the output.
//!
//! Enters: f32 sums. Leaves: scaled, biased, activated values in the output's element type, with the residual added.

use super::rows::Rows;
use crate::isa::Kernel;
use crate::panel::NR;
use crate::scalar::Scalar;
use crate::simd::Simd;
use crate::simd::math::Activation;

/// `out = activation(scale · sum + bias) + residual`; with `accumulate` added to what `out` holds. With `activation_last` the
/// activation is applied to all that instead: `out = activation(scale · sum + bias + residual)`.
///
/// The default leaves the product as it is.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a, T> {
    /// One value per output column (or output channel).
    pub bias: Option<&'a [f32]>,
    /// Applied after scale and bias.
    pub activation: Activation,
    /// Apply the activation after the residual instead of before it.
    pub activation_last: bool,
    /// Added after the activation, or before it with `activation_last`; shaped like the output.
    pub residual: Option<&'a [T]>,
    /// Factor on the product, before the bias.
    pub scale: f32,
    /// Add to the output instead of replacing it.
    pub accumulate: bool,
}

impl<T> Default for Epilogue<'_, T> {
    fn default() -> Self {
        Self {
            bias: None,
            activation: Activation::None,
            activation_last: false,
            residual: None,
            scale: 1.0,
            accumulate: false,
        }
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
    /// Sends `columns <= 32` sums, of columns `column..`, to elements `at..` of the output.
    ///
    /// # Safety
    /// No other task touches these elements; `sums` holds 32 values, the bias `columns` from `column` on, the residual from `at` on. The
    /// task ends with a [`Simd::fence`].
    #[inline(always)]
    pub(crate) unsafe fn finish<S: Simd>(
        &self,
        s: S,
        sums: *const f32,
        (column, columns): (usize, usize),
        at: usize,
        target: OutPtr<T>,
    ) {
        // SAFETY: the caller gives `columns` elements everywhere, and vectors reach no further.
        unsafe {
            let out = target.at(at, columns);
            let mut j = 0;
            if columns == NR {
                // Whole cache lines, which streamed writes have to be: half a line would be read first after all.
                let streamed = target.streamed && out.addr().is_multiple_of(64);
                let mut line = [s.zero(); MOST_VECTORS];
                let line = &mut line[..NR / S::LANES];
                for (i, v) in line.iter_mut().enumerate() {
                    *v = s.load(sums.add(i * S::LANES));
                }
                self.values(s, line, column, at, out, S::LANES);
                for (i, v) in line.iter().enumerate() {
                    let out = out.add(i * S::LANES);
                    if streamed { T::stream(s, out, *v) } else { T::store(s, out, *v) }
                }
                return;
            }
            while j < columns {
                let count = S::LANES.min(columns - j);
                let mut v = [s.load(sums.add(j))];
                self.values(s, &mut v, column + j, at + j, out.add(j), count);
                if count == S::LANES {
                    T::store(s, out.add(j), v[0])
                } else {
                    T::store_head(s, out.add(j), v[0], count)
                }
                j += S::LANES;
            }
        }
    }

    /// Turns vectors of sums into values; `count` lanes of the last count, all of the others.
    ///
    /// # Safety
    /// As [`Epilogue::finish`].
    #[inline(always)]
    unsafe fn values<S: Simd>(&self, s: S, line: &mut [S::V], column: usize, at: usize, out: *const T, count: usize) {
        if self.scale != 1.0 {
            for v in line.iter_mut() {
                *v = s.mul(*v, s.splat(self.scale));
            }
        }
        // SAFETY: the caller gives these elements.
        unsafe {
            if let Some(bias) = self.bias {
                add(s, line, bias.as_ptr().add(column), count);
            }
            if self.activation_last {
                self.add_rest(s, line, at, out, count);
            }
            self.activate(s, line);
            if !self.activation_last {
                self.add_rest(s, line, at, out, count);
            }
        }
    }

    /// Adds the residual, and what the output holds where that is wanted.
    ///
    /// # Safety
    /// As [`Epilogue::finish`].
    #[inline(always)]
    unsafe fn add_rest<S: Simd>(&self, s: S, line: &mut [S::V], at: usize, out: *const T, count: usize) {
        // SAFETY: the caller gives these elements.
        unsafe {
            if let Some(residual) = self.residual {
                add(s, line, residual.as_ptr().add(at), count);
            }
            if self.accumulate {
                add(s, line, out, count);
            }
        }
    }

    #[inline(always)]
    fn activate<S: Simd>(&self, s: S, line: &mut [S::V]) {
        // Loops, not closures: what is not inlined is compiled without the instruction set, and each operation is a call.
        match self.activation {
            // The two cheap ones are decided once for the line; the others cost more than deciding.
            Activation::None => {}
            Activation::Relu => {
                for v in line {
                    *v = Activation::Relu.apply(s, *v);
                }
            }
            other => {
                for v in line {
                    *v = other.apply(s, *v);
                }
            }
        }
    }
}

/// Vectors of 32 columns, at most: 4 lanes each.
const MOST_VECTORS: usize = NR / 4;

/// Adds a line in memory.
///
/// # Safety
/// `p` is valid for reading whole vectors, but `count` elements of the last.
#[inline(always)]
unsafe fn add<S: Simd, T: Scalar>(s: S, line: &mut [S::V], p: *const T, count: usize) {
    for (i, v) in line.iter_mut().enumerate() {
        // SAFETY: the caller's promise; where `count` is less than a vector the line is that vector.
        *v = s.add(*v, unsafe { read(s, p.add(i * S::LANES), count) });
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
            unsafe { self.epilogue.finish(s, sums.as_ptr(), (self.column, self.columns), place, self.out) };
        }
        s.fence();
    }
}
