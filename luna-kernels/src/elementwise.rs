//! Pointwise work on activations: gates, sums, softmax.
//!
//! Enters and leaves: slices. Each function splits its work over the ambient threads where there is enough of it.

use crate::isa::{Context, Kernel};
use crate::scalar::Scalar;
use crate::simd::Simd;
use crate::simd::math::{Activation, exp};
use rayon::prelude::*;

/// Elements of one task.
pub(crate) const CHUNK: usize = 1 << 14;

/// `out[r, j] = x[r, j] · gelu(x[r, n + j])`: diffusers' GEGLU, value first, gate second. `x` is `[rows, 2n]`, `out` `[rows, n]`.
///
/// # Panics
/// If a slice does not have the size its shape says.
pub fn geglu<T: Scalar>(x: &[T], out: &mut [T], n: usize, cx: &Context<'_>) {
    T::geglu(x, out, n, cx);
}

/// [`geglu`], compiled once for each element type.
pub(crate) fn geglu_of<T: Scalar>(x: &[T], out: &mut [T], n: usize, cx: &Context<'_>) {
    gated(x, out, n, Gate { activation: Activation::Gelu, activated_first: false }, cx);
}

/// `out[r, j] = silu(x[r, j]) · x[r, n + j]`: gate first, as in Llama's fused projections. `x` is `[rows, 2n]`, `out` `[rows, n]`.
///
/// # Panics
/// If a slice does not have the size its shape says.
pub fn swiglu<T: Scalar>(x: &[T], out: &mut [T], n: usize, cx: &Context<'_>) {
    T::swiglu(x, out, n, cx);
}

/// [`swiglu`], compiled once for each element type.
pub(crate) fn swiglu_of<T: Scalar>(x: &[T], out: &mut [T], n: usize, cx: &Context<'_>) {
    gated(x, out, n, Gate { activation: Activation::Silu, activated_first: true }, cx);
}

/// Which half of a row is the gate, and its non-linearity.
#[derive(Clone, Copy)]
struct Gate {
    activation: Activation,
    activated_first: bool,
}

fn gated<T: Scalar>(x: &[T], out: &mut [T], n: usize, gate: Gate, cx: &Context<'_>) {
    assert!(
        n > 0 && out.len().is_multiple_of(n) && x.len() == 2 * out.len(),
        "input must be [rows, 2n], output [rows, n] with n = {n}"
    );
    let rows = (CHUNK / n).max(1);
    out.par_chunks_mut(rows * n).zip(x.par_chunks(rows * 2 * n)).for_each(|(out, x)| {
        if cx.interrupted() {
            return;
        }
        for (out, x) in out.chunks_exact_mut(n).zip(x.chunks_exact(2 * n)) {
            let (first, second) = x.split_at(n);
            let (activated, plain) = if gate.activated_first { (first, second) } else { (second, first) };
            cx.isa().run(Gated { activated, plain, out, activation: gate.activation });
        }
    });
}

struct Gated<'a, T> {
    activated: &'a [T],
    plain: &'a [T],
    out: &'a mut [T],
    activation: Activation,
}

impl<T: Scalar> Kernel for Gated<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut j = 0;
        while j < self.out.len() {
            let lanes = S::LANES.min(self.out.len() - j);
            // SAFETY: all three rows have the output's length.
            unsafe {
                let gate = self.activation.apply(s, read(s, self.activated, j, lanes));
                write(s, self.out, j, lanes, s.mul(gate, read(s, self.plain, j, lanes)));
            }
            j += S::LANES;
        }
    }
}

/// # Safety
/// `row` holds `lanes <= LANES` elements from `j` on.
#[inline(always)]
pub(crate) unsafe fn read<S: Simd, T: Scalar>(s: S, row: &[T], j: usize, lanes: usize) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        if lanes == S::LANES { T::load(s, row.as_ptr().add(j)) } else { T::load_head(s, row.as_ptr().add(j), lanes) }
    }
}

/// # Safety
/// As [`read`].
#[inline(always)]
pub(crate) unsafe fn write<S: Simd, T: Scalar>(s: S, row: &mut [T], j: usize, lanes: usize, v: S::V) {
    // SAFETY: the caller's promise.
    unsafe {
        if lanes == S::LANES {
            T::store(s, row.as_mut_ptr().add(j), v)
        } else {
            T::store_head(s, row.as_mut_ptr().add(j), v, lanes)
        }
    }
}

/// Applies an activation function to each element.
pub fn activate_in_place<T: Scalar>(x: &mut [T], activation: Activation, cx: &Context<'_>) {
    T::activate_in_place(x, activation, cx);
}

/// [`activate_in_place`], compiled once for each element type.
pub(crate) fn activate_in_place_of<T: Scalar>(x: &mut [T], activation: Activation, cx: &Context<'_>) {
    x.par_chunks_mut(CHUNK).for_each(|x| {
        if !cx.interrupted() {
            cx.isa().run(Activate { x, activation });
        }
    });
}

struct Activate<'a, T> {
    x: &'a mut [T],
    activation: Activation,
}

impl<T: Scalar> Kernel for Activate<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut j = 0;
        while j < self.x.len() {
            let lanes = S::LANES.min(self.x.len() - j);
            // SAFETY: `lanes` elements from `j` on are there.
            unsafe { write(s, self.x, j, lanes, self.activation.apply(s, read(s, self.x, j, lanes))) };
            j += S::LANES;
        }
    }
}

/// `x += scale · y`.
///
/// # Panics
/// If the lengths differ.
pub fn add_scaled<T: Scalar>(x: &mut [T], y: &[T], scale: f32, cx: &Context<'_>) {
    T::add_scaled(x, y, scale, cx);
}

/// [`add_scaled`], compiled once for each element type.
pub(crate) fn add_scaled_of<T: Scalar>(x: &mut [T], y: &[T], scale: f32, cx: &Context<'_>) {
    assert_eq!(x.len(), y.len(), "summands must have the same size");
    x.par_chunks_mut(CHUNK).zip(y.par_chunks(CHUNK)).for_each(|(x, y)| {
        if !cx.interrupted() {
            cx.isa().run(AddScaled { x, y, scale });
        }
    });
}

/// `x += y`.
///
/// # Panics
/// If the lengths differ.
pub fn add<T: Scalar>(x: &mut [T], y: &[T], cx: &Context<'_>) {
    add_scaled(x, y, 1.0, cx);
}

/// `x ⊙= y`.
///
/// # Panics
/// If the lengths differ.
pub fn multiply<T: Scalar>(x: &mut [T], y: &[T], cx: &Context<'_>) {
    T::multiply(x, y, cx);
}

/// [`multiply`], compiled once for each element type.
pub(crate) fn multiply_of<T: Scalar>(x: &mut [T], y: &[T], cx: &Context<'_>) {
    assert_eq!(x.len(), y.len(), "factors must have the same size");
    x.par_chunks_mut(CHUNK).zip(y.par_chunks(CHUNK)).for_each(|(x, y)| {
        if !cx.interrupted() {
            cx.isa().run(Multiply { x, y });
        }
    });
}

struct Multiply<'a, T> {
    x: &'a mut [T],
    y: &'a [T],
}

impl<T: Scalar> Kernel for Multiply<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut j = 0;
        while j < self.x.len() {
            let lanes = S::LANES.min(self.x.len() - j);
            // SAFETY: both slices hold `lanes` elements from `j` on.
            unsafe { write(s, self.x, j, lanes, s.mul(read(s, self.x, j, lanes), read(s, self.y, j, lanes))) };
            j += S::LANES;
        }
    }
}

struct AddScaled<'a, T> {
    x: &'a mut [T],
    y: &'a [T],
    scale: f32,
}

impl<T: Scalar> Kernel for AddScaled<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut j = 0;
        while j < self.x.len() {
            let lanes = S::LANES.min(self.x.len() - j);
            // SAFETY: both slices hold `lanes` elements from `j` on.
            unsafe {
                let sum = s.fma(read(s, self.y, j, lanes), s.splat(self.scale), read(s, self.x, j, lanes));
                write(s, self.x, j, lanes, sum);
            }
            j += S::LANES;
        }
    }
}

/// Softmax of each row of `x`, `[rows, c]`, in place. A row of negative infinities becomes zeros.
///
/// # Panics
/// If `c` does not divide the length.
pub fn softmax_rows<T: Scalar>(x: &mut [T], c: usize, cx: &Context<'_>) {
    T::softmax_rows(x, c, cx);
}

/// [`softmax_rows`], compiled once for each element type.
pub(crate) fn softmax_rows_of<T: Scalar>(x: &mut [T], c: usize, cx: &Context<'_>) {
    assert!(c > 0 && x.len().is_multiple_of(c), "input must be [rows, {c}]");
    let rows = (CHUNK / c).max(1);
    x.par_chunks_mut(rows * c).for_each(|x| {
        if !cx.interrupted() {
            cx.isa().run(SoftmaxRows { x, c });
        }
    });
}

struct SoftmaxRows<'a, T> {
    x: &'a mut [T],
    c: usize,
}

impl<T: Scalar> Kernel for SoftmaxRows<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in self.x.chunks_exact_mut(self.c) {
            let top = row.iter().map(|v| v.to_f32()).fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b });
            if top == f32::NEG_INFINITY {
                row.fill(T::default());
                continue;
            }
            let (mut total, mut j) = (0.0f64, 0);
            while j < row.len() {
                let lanes = S::LANES.min(row.len() - j);
                // SAFETY: `lanes` elements from `j` on are there; the array holds any vector.
                unsafe {
                    let mut parts = [0.0f32; 16];
                    s.store(parts.as_mut_ptr(), exp(s, s.sub(read(s, row, j, lanes), s.splat(top))));
                    total += parts[..lanes].iter().map(|&v| f64::from(v)).sum::<f64>();
                }
                j += S::LANES;
            }
            let factor = s.splat((1.0 / total) as f32);
            j = 0;
            while j < row.len() {
                let lanes = S::LANES.min(row.len() - j);
                // SAFETY: as above.
                unsafe { write(s, row, j, lanes, s.mul(exp(s, s.sub(read(s, row, j, lanes), s.splat(top))), factor)) };
                j += S::LANES;
            }
        }
    }
}
