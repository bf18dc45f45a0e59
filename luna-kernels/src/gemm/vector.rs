//! The product of one row: a weight matrix read once, straight from memory, as a language model does for each token.
//!
//! Enters: a row of f32, panels of any type. Leaves: the epilogue's output. Nothing is packed and nothing widened but in registers, so
//! that reading the weights is all that takes time.

use super::Epilogue;
use super::epilogue::{Finish, OutPtr};
use super::rows::Matrix;
use crate::isa::{Context, Kernel};
use crate::panel::{NR, Panels};
use crate::scalar::Scalar;
use crate::simd::Simd;
use crate::weight::WeightType;
use rayon::prelude::*;

/// Vectors of columns of a panel, at most: 4 lanes each.
const MOST_VECTORS: usize = NR / 4;
/// Bytes of weights worth a task of their own.
const TASK_BYTES: usize = 1 << 18;

/// `out = epilogue(row · W)`.
pub(crate) struct VectorProduct<'a, T> {
    /// As many values as the panels are deep.
    pub(crate) row: &'a [f32],
    pub(crate) panels: Panels<'a>,
    pub(crate) out: OutPtr<T>,
    pub(crate) epilogue: Epilogue<'a, T>,
}

impl<T: Scalar> VectorProduct<'_, T> {
    /// Computes the product on the ambient threads.
    pub(crate) fn run(&self, cx: &Context<'_>) {
        let panel_bytes = (self.panels.k * NR * self.panels.dtype().size()).max(1);
        let place: Matrix<'_, T> = Matrix { data: &[], stride: 0, out_stride: 0 };
        let panels = (0..self.panels.count()).into_par_iter().with_min_len((TASK_BYTES / panel_bytes).max(1));
        panels.for_each(|p| {
            if cx.interrupted() {
                return;
            }
            let mut sums = [0.0; NR];
            let source = self.panels.rest_of(p, 0);
            cx.isa().run(Panel { row: self.row, dtype: self.panels.dtype(), source, sums: &mut sums });
            cx.isa().run(Finish {
                sums: &sums,
                rows: &place,
                first: 0,
                column: p * NR,
                columns: self.panels.columns(p),
                out: self.out,
                epilogue: &self.epilogue,
            });
        });
    }
}

/// One panel times the row.
struct Panel<'a> {
    row: &'a [f32],
    dtype: WeightType,
    source: &'a [u8],
    sums: &'a mut [f32; NR],
}

impl Kernel for Panel<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        assert!(NR / S::LANES <= MOST_VECTORS && self.source.len() >= self.row.len() * NR * self.dtype.size());
        match self.dtype {
            WeightType::BF16 => self.pairs(s),
            WeightType::F32 => self.depths(s, WeightType::F32),
            WeightType::F16 => self.depths(s, WeightType::F16),
            WeightType::F8E4M3 => self.depths(s, WeightType::F8E4M3),
            WeightType::F8E5M2 => self.depths(s, WeightType::F8E5M2),
            quantised => unreachable!("{quantised:?} has no panels of single elements"),
        }
    }
}

impl Panel<'_> {
    /// `[k][32]`, two depths at a time so that sums wait for each other half as long.
    #[inline(always)]
    fn depths<S: Simd>(self, s: S, dtype: WeightType) {
        let line = NR * dtype.size();
        let (mut evens, mut odds) = ([s.zero(); MOST_VECTORS], [s.zero(); MOST_VECTORS]);
        for (x, lines) in self.row.chunks(2).zip(self.source.chunks(2 * line)) {
            s.prefetch(lines.as_ptr().wrapping_add(AHEAD));
            s.prefetch(lines.as_ptr().wrapping_add(AHEAD + line));
            let (x0, x1) = (s.splat(x[0]), s.splat(x.get(1).copied().unwrap_or(0.0)));
            // The last of an odd number of depths stands for its partner too, which counts nothing.
            let (first, second) = (&lines[..line], &lines[lines.len() - line..]);
            for (j, (even, odd)) in evens.iter_mut().zip(&mut odds).take(NR / S::LANES).enumerate() {
                let at = j * S::LANES * dtype.size();
                // SAFETY: both slices hold 32 elements of this type.
                let (w0, w1) =
                    unsafe { (dtype.load(s, first.as_ptr().add(at)), dtype.load(s, second.as_ptr().add(at))) };
                *even = s.fma(x0, w0, *even);
                *odd = s.fma(x1, w1, *odd);
            }
        }
        self.store(s, evens, odds);
    }

    /// `[k/2][32][2]` bf16: a load gives two depths of its columns.
    #[inline(always)]
    fn pairs<S: Simd>(self, s: S) {
        let (mut evens, mut odds) = ([s.zero(); MOST_VECTORS], [s.zero(); MOST_VECTORS]);
        for (pair, x) in self.row.chunks(2).enumerate() {
            // An odd depth has a partner of zeros in the panel.
            let (x0, x1) = (s.splat(x[0]), s.splat(x.get(1).copied().unwrap_or(0.0)));
            let line = self.source[pair * NR * 4..][..NR * 4].as_ptr();
            s.prefetch(line.wrapping_add(AHEAD));
            s.prefetch(line.wrapping_add(AHEAD + 64));
            for (j, (even, odd)) in evens.iter_mut().zip(&mut odds).take(NR / S::LANES).enumerate() {
                // SAFETY: the slice above holds 32 pairs.
                let (w0, w1) = s.split_bf16(unsafe { s.load(line.cast::<f32>().add(j * S::LANES)) });
                *even = s.fma(x0, w0, *even);
                *odd = s.fma(x1, w1, *odd);
            }
        }
        self.store(s, evens, odds);
    }

    #[inline(always)]
    fn store<S: Simd>(self, s: S, evens: [S::V; MOST_VECTORS], odds: [S::V; MOST_VECTORS]) {
        for (sums, (even, odd)) in self.sums.chunks_exact_mut(S::LANES).zip(evens.into_iter().zip(odds)) {
            // SAFETY: a chunk holds `LANES` values.
            unsafe { s.store(sums.as_mut_ptr(), s.add(even, odd)) };
        }
    }
}

/// Bytes that are asked for before they are read.
const AHEAD: usize = 4096;
