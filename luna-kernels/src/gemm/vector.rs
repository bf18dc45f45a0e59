//! The product of one row: a weight matrix read once, straight from memory, as a language model does for each token.
//!
//! Enters: a row of f32, panels of any type. Leaves: the epilogue's output. Nothing is packed and nothing widened but in registers, so
//! that reading the weights is all that takes time. A processor reads ahead in several places at once: four at a time gave a third more
//! than one, and more than asking for lines ahead of time.

use super::Epilogue;
use super::epilogue::{Finish, OutPtr};
use super::rows::Matrix;
use crate::isa::{Context, Kernel};
use crate::panel::{NR, Panels};
use crate::scalar::Scalar;
use crate::simd::Simd;
use crate::weight::WeightType;
use rayon::prelude::*;

/// Bytes of weights worth a task of their own.
const TASK_BYTES: usize = 1 << 16;

/// Places of a panel that are read in turn.
const STREAMS: usize = 4;

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
        let together = (TASK_BYTES / panel_bytes).max(1);
        let tasks = self.panels.count().div_ceil(together);
        // Each task may be taken by the other threads: they end together, for the next product waits for all of them.
        (0..tasks).into_par_iter().with_max_len(1).for_each(|task| {
            for p in task * together..self.panels.count().min((task + 1) * together) {
                if cx.interrupted() {
                    return;
                }
                self.panel(p, cx);
            }
        });
    }

    fn panel(&self, p: usize, cx: &Context<'_>) {
        let mut sums = [0.0; NR];
        let source = self.panels.rest_of(p, 0);
        cx.isa().run(Panel { row: self.row, dtype: self.panels.dtype(), source, sums: &mut sums });
        let rows: Matrix<'_, T> = Matrix { data: &[], stride: 0, out_stride: 0 };
        cx.isa().run(Finish {
            sums: &sums,
            rows: &rows,
            first: 0,
            column: p * NR,
            columns: self.panels.columns(p),
            out: self.out,
            epilogue: &self.epilogue,
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
        // The number of vectors is a constant of the code, or the sums leave the registers.
        match NR / S::LANES {
            2 => self.of_type::<S, 2>(s),
            4 => self.of_type::<S, 4>(s),
            8 => self.of_type::<S, 8>(s),
            _ => unreachable!("no instruction set has {} lanes", S::LANES),
        }
    }
}

impl Panel<'_> {
    #[inline(always)]
    fn of_type<S: Simd, const C: usize>(self, s: S) {
        match self.dtype {
            WeightType::BF16 => self.multiply::<S, C>(s, WeightType::BF16),
            WeightType::F32 => self.multiply::<S, C>(s, WeightType::F32),
            WeightType::F16 => self.multiply::<S, C>(s, WeightType::F16),
            WeightType::F8E4M3 => self.multiply::<S, C>(s, WeightType::F8E4M3),
            WeightType::F8E5M2 => self.multiply::<S, C>(s, WeightType::F8E5M2),
            quantised => unreachable!("{quantised:?} has no panels of single elements"),
        }
    }

    /// Two depths at a time, from several places of the panel in turn.
    #[inline(always)]
    fn multiply<S: Simd, const C: usize>(self, s: S, dtype: WeightType) {
        let (size, count) = (2 * NR * dtype.size(), self.row.len() / 2);
        assert!(C * S::LANES == NR && self.source.len() >= count * size);
        let (row, source) = (self.row.as_ptr(), self.source.as_ptr());
        let mut sums = [[s.zero(); C]; 2];
        let part = count / STREAMS;
        for i in 0..part {
            for stream in 0..STREAMS {
                let pair = stream * part + i;
                // SAFETY: of the row and of the panel there are `count` pairs, by the assertion.
                unsafe { add_pair(s, dtype, row.add(2 * pair), source.add(pair * size), &mut sums) };
            }
        }
        for pair in part * STREAMS..count {
            // SAFETY: as above.
            unsafe { add_pair(s, dtype, row.add(2 * pair), source.add(pair * size), &mut sums) };
        }
        if let [last] = self.row[2 * count..] {
            let (row, mut lines) = ([last, 0.0], [0; 2 * NR * 4]);
            let rest = &self.source[count * size..];
            lines[..rest.len()].copy_from_slice(rest);
            // SAFETY: two values, and two lines of the widest type.
            unsafe { add_pair(s, dtype, row.as_ptr(), lines.as_ptr(), &mut sums) };
        }
        let [evens, odds] = sums;
        for (sums, (even, odd)) in self.sums.chunks_exact_mut(S::LANES).zip(evens.into_iter().zip(odds)) {
            // SAFETY: a chunk holds `LANES` values.
            unsafe { s.store(sums.as_mut_ptr(), s.add(even, odd)) };
        }
    }
}

/// Adds two depths to the sums of even and of odd ones. bf16 lies as `[32][2]`, anything else as `[2][32]`.
///
/// # Safety
/// `row` holds two values, `lines` two lines of this type.
#[inline(always)]
unsafe fn add_pair<S: Simd, const C: usize>(
    s: S,
    dtype: WeightType,
    row: *const f32,
    lines: *const u8,
    [evens, odds]: &mut [[S::V; C]; 2],
) {
    // SAFETY: the caller's promise; a line holds `C` vectors.
    unsafe {
        let (x0, x1) = (s.splat(*row), s.splat(*row.add(1)));
        for (j, (even, odd)) in evens.iter_mut().zip(odds).enumerate() {
            let at = lines.add(j * S::LANES * dtype.size());
            let (w0, w1) = match dtype {
                WeightType::BF16 => s.split_bf16(s.load(lines.cast::<f32>().add(j * S::LANES))),
                _ => (dtype.load(s, at), dtype.load(s, at.add(NR * dtype.size()))),
            };
            *even = s.fma(x0, w0, *even);
            *odd = s.fma(x1, w1, *odd);
        }
    }
}
