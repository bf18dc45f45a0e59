//! The matrix product that everything else stands on: `out = epilogue(A · Wᵀ)`.
//!
//! Enters: a source of rows ([`Rows`]), weight panels, an output with an epilogue. Leaves: the output. Rows are packed block by block, so
//! a convolution gathers its patches here without an image of all patches. It must not know where rows come from.

pub(crate) mod epilogue;
pub(crate) mod micro;
pub(crate) mod rows;
pub(crate) mod vector;

use crate::isa::{Context, Isa, Kernel};
use crate::panel::{NR, Panels};
use crate::scalar::Scalar;
use crate::simd::Simd;
use crate::workspace::Buffer;
use epilogue::{Finish, OutPtr};
use micro::{Groups, Multiply, MultiplyPairs};
use rayon::prelude::*;
use rows::{LINE, Rows};
use std::ops::Range;

pub use epilogue::Epilogue;

/// Depth of one pass over a panel: 48 KiB of f32 weights, which stay in the second-level cache beside the packed rows and the next pass'.
const DEPTH: usize = 384;
/// Depth of one pass for a few rows, where widening the weights is most of the work: 16 KiB, which never leave the first-level cache.
const FEW_ROWS_DEPTH: usize = 128;
/// Rows up to which that holds.
const FEW_ROWS: usize = 14;
/// Packed rows of one task, in f32 elements: 384 KiB.
const BLOCK_ELEMENTS: usize = 96 << 10;
/// Packed rows shared by all tasks, in f32 elements: 16 MiB.
const SHARED_ELEMENTS: usize = 1 << 22;

/// One product: `m` rows from `rows` times `panels`, through `epilogue` to `out`.
pub(crate) struct Product<'a, T, R> {
    pub(crate) rows: &'a R,
    pub(crate) m: usize,
    pub(crate) panels: Panels<'a>,
    /// Rows and panels hold words of two bf16 each.
    pub(crate) pairs: bool,
    pub(crate) out: OutPtr<T>,
    pub(crate) epilogue: Epilogue<'a, T>,
}

impl<T: Scalar, R: Rows> Product<'_, T, R> {
    /// Computes the product on the ambient threads.
    pub(crate) fn run(&self, cx: &Context<'_>) {
        if self.m == 0 || self.panels.n == 0 {
            return;
        }
        let block = self.block_rows();
        let blocks = self.m.div_ceil(block);
        if blocks >= 3 * rayon::current_num_threads() {
            (0..blocks)
                .into_par_iter()
                .with_max_len(1)
                .for_each(|b| self.own_rows(cx, b * block..self.m.min((b + 1) * block)));
        } else {
            let shared = (SHARED_ELEMENTS / self.depth()).max(block) / block * block;
            for first in (0..self.m).step_by(shared) {
                self.shared_rows(cx, first..self.m.min(first + shared), block);
            }
        }
    }

    /// Depth rounded up to whole lines of packed rows.
    fn depth(&self) -> usize {
        self.panels.k.next_multiple_of(LINE).max(LINE)
    }

    /// Rows of one task: enough to use a panel well, few enough that they stay in the second-level cache.
    fn block_rows(&self) -> usize {
        (BLOCK_ELEMENTS / self.depth()).clamp(84, 252) / 84 * 84
    }

    /// One task packs its own rows and walks all panels.
    fn own_rows(&self, cx: &Context<'_>, rows: Range<usize>) {
        if cx.interrupted() {
            return;
        }
        let groups = Groups::new(cx.isa(), rows.len());
        let mut packed = cx.workspace().take::<f32>(rows.len() * self.depth());
        for group in groups.iter() {
            self.pack(cx.isa(), rows.start, group, &mut packed);
        }
        let mut scratch = Scratch::new(cx, &self.panels, rows.len());
        for p in 0..self.panels.count() {
            if cx.interrupted() {
                return;
            }
            self.panel(cx.isa(), p, rows.start, &packed, groups, &mut scratch);
        }
    }

    /// All threads pack a common set of rows, then share out (rows × panels).
    fn shared_rows(&self, cx: &Context<'_>, rows: Range<usize>, block: usize) {
        let depth = self.depth();
        let mut packed = cx.workspace().take::<f32>(rows.len() * depth);
        let chunks: Vec<Range<usize>> =
            (rows.clone()).step_by(block).map(|first| first..rows.end.min(first + block)).collect();
        packed.par_chunks_mut(block * depth).zip(&chunks).for_each(|(packed, chunk)| {
            let groups = Groups::new(cx.isa(), chunk.len());
            groups.par_split(packed, depth).for_each(|(group, packed)| {
                self.pack_into(cx.isa(), chunk.start + group.start, group.len(), packed);
            });
        });
        let panels = self.panels.count();
        (0..panels * chunks.len()).into_par_iter().for_each_init(
            || Scratch::new(cx, &self.panels, chunks[0].len()),
            |scratch, task| {
                if cx.interrupted() {
                    return;
                }
                let (p, chunk) = (task / chunks.len(), task % chunks.len());
                let rows = &chunks[chunk];
                let groups = Groups::new(cx.isa(), rows.len());
                self.panel(cx.isa(), p, rows.start, &packed[chunk * block * depth..], groups, scratch);
            },
        );
    }

    fn pack(&self, isa: Isa, first: usize, group: Range<usize>, packed: &mut [f32]) {
        let depth = self.depth();
        self.pack_into(isa, first + group.start, group.len(), &mut packed[group.start * depth..group.end * depth]);
    }

    fn pack_into(&self, isa: Isa, first: usize, count: usize, packed: &mut [f32]) {
        isa.run(Pack { rows: self.rows, first, count, depth: self.panels.k, packed });
    }

    /// One panel of one block: product into scratch, epilogue to the output.
    fn panel(&self, isa: Isa, p: usize, first: usize, packed: &[f32], groups: Groups, scratch: &mut Scratch) {
        let columns = self.panels.columns(p);
        let widened = self.panels.dtype() != crate::WeightType::F32;
        let step = if widened && groups.rows() <= FEW_ROWS { FEW_ROWS_DEPTH } else { DEPTH };
        // Passes begin and end with blocks.
        let block = self.panels.dtype().block();
        let step = (step / block * block).max(block);
        for k0 in (0..self.panels.k).step_by(step) {
            let k = step.min(self.panels.k - k0);
            let b = self.panels.widened(isa, p, k0, k, &mut scratch.weights);
            let multiply = Multiply {
                a: packed,
                depth: self.depth(),
                k0,
                b,
                k,
                c: &mut scratch.sums,
                groups,
                columns,
                accumulate: k0 > 0,
                ahead: self.panels.next_of(p, k0, step),
            };
            if self.pairs {
                isa.run_dot_bf16(MultiplyPairs(multiply));
            } else {
                isa.run(multiply);
            }
        }
        if self.panels.k == 0 {
            scratch.sums.fill(0.0);
        }
        let sums = &scratch.sums[..groups.rows() * NR];
        isa.run(Finish {
            sums,
            rows: self.rows,
            first,
            column: p * NR,
            columns,
            out: self.out,
            epilogue: &self.epilogue,
        });
    }
}

/// What one task needs for itself.
struct Scratch {
    sums: Buffer<f32>,
    weights: Buffer<f32>,
}

impl Scratch {
    fn new(cx: &Context<'_>, panels: &Panels<'_>, rows: usize) -> Self {
        let widened = if panels.dtype() == crate::WeightType::F32 { 0 } else { DEPTH.min(panels.k) * NR };
        Self { sums: cx.workspace().take(rows * NR), weights: cx.workspace().take(widened) }
    }
}

/// Packs one group of rows.
struct Pack<'a, R> {
    rows: &'a R,
    first: usize,
    count: usize,
    depth: usize,
    packed: &'a mut [f32],
}

impl<R: Rows> Kernel for Pack<'_, R> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        assert!(self.packed.len() >= self.count * self.depth.next_multiple_of(LINE));
        self.rows.pack(s, self.first, self.count, self.depth, self.packed);
    }
}
