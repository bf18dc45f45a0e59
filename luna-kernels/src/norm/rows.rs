//! Layer and root-mean-square norms.
//!
//! Enters: rows of activations. Leaves: the rows normalised.

use super::CHUNK;
use crate::elementwise::{read, write};
use crate::isa::{Context, Kernel};
use crate::scalar::Scalar;
use crate::simd::Simd;
use rayon::prelude::*;

/// Which statistic a row norm removes.
#[derive(Clone, Copy, PartialEq)]
enum RowKind {
    Layer,
    RootMeanSquare,
}

/// Parameters of a norm over rows of `c` values.
#[derive(Clone, Copy, Debug)]
pub struct RowNorm<'a> {
    /// Row length.
    pub c: usize,
    /// Added to the variance (or mean square).
    pub eps: f32,
    /// `[c]`; ones where absent.
    pub gamma: Option<&'a [f32]>,
    /// `[c]`; zeros where absent.
    pub beta: Option<&'a [f32]>,
}

/// Layer norm of each row of `x`, `[rows, c]`: mean 0, variance 1, then gamma and beta.
///
/// # Panics
/// If a slice does not have the size its shape says.
pub fn layer_norm<T: Scalar>(x: &[T], out: &mut [T], norm: &RowNorm<'_>, cx: &Context<'_>) {
    T::layer_norm(x, out, norm, cx);
}

/// [`layer_norm`], compiled once for each element type.
pub(crate) fn layer_norm_of<T: Scalar>(x: &[T], out: &mut [T], norm: &RowNorm<'_>, cx: &Context<'_>) {
    row_norm(x, out, norm, RowKind::Layer, cx);
}

/// Root-mean-square norm of each row of `x`, `[rows, c]`: mean square 1, then gamma and beta.
///
/// # Panics
/// If a slice does not have the size its shape says.
pub fn rms_norm<T: Scalar>(x: &[T], out: &mut [T], norm: &RowNorm<'_>, cx: &Context<'_>) {
    T::rms_norm(x, out, norm, cx);
}

/// [`rms_norm`], compiled once for each element type.
pub(crate) fn rms_norm_of<T: Scalar>(x: &[T], out: &mut [T], norm: &RowNorm<'_>, cx: &Context<'_>) {
    row_norm(x, out, norm, RowKind::RootMeanSquare, cx);
}

fn row_norm<T: Scalar>(x: &[T], out: &mut [T], norm: &RowNorm<'_>, kind: RowKind, cx: &Context<'_>) {
    let c = norm.c;
    assert_eq!(x.len(), out.len(), "input and output must have the same size");
    assert!(c > 0 && x.len().is_multiple_of(c), "input must be [rows, {c}]");
    for weight in [norm.gamma, norm.beta].into_iter().flatten() {
        assert_eq!(weight.len(), c, "gamma and beta must hold c values");
    }
    let rows = (CHUNK / c).max(1);
    let isa = cx.isa();
    out.par_chunks_mut(rows * c).zip(x.par_chunks(rows * c)).for_each(|(out, x)| {
        if !cx.interrupted() {
            isa.run(NormRows { x, out, norm: *norm, kind });
        }
    });
}

struct NormRows<'a, T> {
    x: &'a [T],
    out: &'a mut [T],
    norm: RowNorm<'a>,
    kind: RowKind,
}

impl<T: Scalar> Kernel for NormRows<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let c = self.norm.c;
        for (x, out) in self.x.chunks_exact(c).zip(self.out.chunks_exact_mut(c)) {
            let mean = if self.kind == RowKind::Layer { row_sum(s, x, 0.0, false) / c as f64 } else { 0.0 };
            let square = row_sum(s, x, mean as f32, true) / c as f64;
            let inverse = (1.0 / (square + f64::from(self.norm.eps)).sqrt()) as f32;
            let mut j = 0;
            while j < c {
                let lanes = S::LANES.min(c - j);
                // SAFETY: the rows and the weights, where present, hold `lanes` values from `j` on.
                unsafe {
                    let v = s.mul(s.sub(read(s, x, j, lanes), s.splat(mean as f32)), s.splat(inverse));
                    let v = match self.norm.gamma {
                        Some(gamma) => s.mul(v, read(s, gamma, j, lanes)),
                        None => v,
                    };
                    let v = match self.norm.beta {
                        Some(beta) => s.add(v, read(s, beta, j, lanes)),
                        None => v,
                    };
                    write(s, out, j, lanes, v);
                }
                j += S::LANES;
            }
        }
    }
}

/// Sum of `x - pilot`, or of its squares; runs of 64 vectors in f32, joined in f64.
#[inline(always)]
fn row_sum<S: Simd, T: Scalar>(s: S, x: &[T], pilot: f32, squared: bool) -> f64 {
    let mut total = 0.0;
    for run in x.chunks(64 * S::LANES) {
        // Several sums, as an addition takes longer than until the next could begin.
        let mut sums = [s.zero(); 4];
        let mut vectors = run.chunks_exact(S::LANES);
        while vectors.len() > 0 {
            for (sum, v) in sums.iter_mut().zip(&mut vectors) {
                // SAFETY: a chunk holds `LANES` values.
                let d = s.sub(unsafe { T::load(s, v.as_ptr()) }, s.splat(pilot));
                *sum = if squared { s.fma(d, d, *sum) } else { s.add(*sum, d) };
            }
        }
        total += f64::from(s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]))));
        for v in vectors.remainder() {
            let d = f64::from(v.to_f32() - pilot);
            total += if squared { d * d } else { d };
        }
    }
    total
}
