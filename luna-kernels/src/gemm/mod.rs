//! The matrix product that everything else stands on: `out = epilogue(A · Wᵀ)`.
//!
//! Enters: a source of rows ([`Rows`]), weight panels, an output with an epilogue. Leaves: the output. Rows are packed block by block, so
//! a convolution gathers its patches here without an image of all patches. It must not know where rows come from.

pub(crate) mod branch;
pub(crate) mod epilogue;
pub(crate) mod micro;
pub(crate) mod rows;
pub(crate) mod vector;

use crate::isa::{Context, Isa, Kernel};
use crate::panel::{NR, Panels};
use crate::scalar::Scalar;
use crate::simd::Simd;
use crate::tasks::in_order;
use crate::workspace::Buffer;
pub(crate) use branch::Branch;
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
/// Panels that share the packed rows of a pass while they are in the second-level cache.
const TOGETHER: usize = 4;
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
    /// Added to the sums.
    pub(crate) branch: Option<Branch<'a, T>>,
    pub(crate) out: OutPtr<T>,
    pub(crate) epilogue: Epilogue<'a, T>,
}

/// A depth rounded up to whole lines of packed rows.
pub(crate) fn lines(depth: usize) -> usize {
    depth.next_multiple_of(LINE).max(LINE)
}

impl<T: Scalar, R: Rows> Product<'_, T, R> {
    /// Computes the product on the ambient threads.
    pub(crate) fn run(&self, cx: &Context<'_>) {
        if self.m == 0 || self.panels.n == 0 {
            return;
        }
        let block = self.block_rows(cx.isa());
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

    fn depth(&self) -> usize {
        lines(self.panels.k)
    }

    /// Rows of one task: enough to use a panel well, few enough that they stay in the second-level cache. Where there are
    /// fewer panels than threads, few enough that each thread has some.
    fn block_rows(&self, isa: Isa) -> usize {
        let most = (BLOCK_ELEMENTS / self.depth()).clamp(84, 252) / 84 * 84;
        let shares = rayon::current_num_threads().div_ceil(self.panels.count());
        most.min(self.m.div_ceil(shares).next_multiple_of(Groups::tile(isa)))
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
        let together = self.together(usize::MAX);
        let mut scratch = self.scratch(cx, rows.len(), together);
        self.pack_branch(cx.isa(), rows.start, groups, &mut scratch);
        for p in (0..self.panels.count()).step_by(together) {
            if cx.interrupted() {
                return;
            }
            let block = PackedRows { first: rows.start, packed: &packed, groups };
            let end = self.panels.count().min(p + together);
            self.some_panels(cx.isa(), (p..end, end), block, &mut scratch);
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
        let spans = self.spans(chunks.len());
        let scratch = || (None, self.scratch(cx, chunks[0].len(), spans[0].len()));
        in_order(spans.len() * chunks.len(), scratch, |(branch_of, scratch), task| {
            if cx.interrupted() {
                return;
            }
            let (panels, chunk) = (spans[task / chunks.len()].clone(), task % chunks.len());
            let rows = &chunks[chunk];
            let groups = Groups::new(cx.isa(), rows.len());
            if branch_of.replace(chunk) != Some(chunk) {
                self.pack_branch(cx.isa(), rows.start, groups, scratch);
            }
            let block = PackedRows { first: rows.start, packed: &packed[chunk * block * depth..], groups };
            // While the others take the tasks in between.
            let next = spans.get((task + rayon::current_num_threads()) / chunks.len());
            let next = next.map_or(self.panels.count(), |span| span.start);
            self.some_panels(cx.isa(), (panels, next), block, scratch);
        });
    }

    fn pack(&self, isa: Isa, first: usize, group: Range<usize>, packed: &mut [f32]) {
        let depth = self.depth();
        self.pack_into(isa, first + group.start, group.len(), &mut packed[group.start * depth..group.end * depth]);
    }

    fn pack_into(&self, isa: Isa, first: usize, count: usize, packed: &mut [f32]) {
        isa.run(Pack { rows: self.rows, first, count, depth: self.panels.k, packed });
    }

    /// Panels that go through a pass together where there are `chunks` of rows: no more than leave each thread several tasks.
    fn together(&self, chunks: usize) -> usize {
        if self.panels.k <= DEPTH {
            return 1;
        }
        let tasks = self.panels.count().saturating_mul(chunks);
        (tasks / (4 * rayon::current_num_threads())).clamp(1, TOGETHER)
    }

    /// The panels of each task where there are `chunks` of rows. The last ones come one by one, so that threads end together.
    fn spans(&self, chunks: usize) -> Vec<Range<usize>> {
        let (together, count) = (self.together(chunks), self.panels.count());
        let single = (2 * rayon::current_num_threads() * together).div_ceil(chunks).min(count);
        let whole = (count - single) / together * together;
        let spans = (0..whole).step_by(together).map(|first| first..first + together);
        spans.chain((whole..count).map(|p| p..p + 1)).collect()
    }

    fn scratch(&self, cx: &Context<'_>, rows: usize, panels: usize) -> Scratch {
        let widened = if self.panels.dtype() == crate::WeightType::F32 { 0 } else { DEPTH.min(self.panels.k) * NR };
        let branch = self.branch.as_ref();
        Scratch {
            sums: cx.workspace().take(rows * NR * panels),
            weights: cx.workspace().take(branch.map_or(0, Branch::widened_len).max(widened)),
            branch: cx.workspace().take(branch.map_or(0, |branch| branch.packed_len(rows))),
        }
    }

    fn pack_branch(&self, isa: Isa, first: usize, groups: Groups, scratch: &mut Scratch) {
        if let Some(branch) = &self.branch {
            let packed = &mut scratch.branch[..branch.packed_len(groups.rows())];
            branch.pack(isa, first, groups, packed);
        }
    }

    /// Some panels of one block: products into scratch, epilogue to the output. `next` is the panel that this thread is likely to read
    /// after them.
    fn some_panels(
        &self,
        isa: Isa,
        (panels, next): (Range<usize>, usize),
        rows: PackedRows<'_>,
        scratch: &mut Scratch,
    ) {
        let PackedRows { first, packed, groups } = rows;
        let widened = self.panels.dtype() != crate::WeightType::F32;
        let step = if widened && groups.rows() <= FEW_ROWS { FEW_ROWS_DEPTH } else { DEPTH };
        // Passes begin and end with blocks.
        let block = self.panels.dtype().block();
        let step = (step / block * block).max(block);
        let size = groups.rows() * NR;
        if self.panels.k == 0 {
            scratch.sums.fill(0.0);
        }
        for k0 in (0..self.panels.k).step_by(step) {
            let k = step.min(self.panels.k - k0);
            for (p, sums) in panels.clone().zip(scratch.sums.chunks_exact_mut(size)) {
                let after = if p + 1 < panels.end { (p + 1, k0) } else { (panels.start, k0 + step) };
                let multiply = Multiply {
                    a: packed,
                    depth: self.depth(),
                    k0,
                    b: self.panels.widened(isa, p, k0, k, &mut scratch.weights),
                    k,
                    c: sums,
                    groups,
                    columns: self.panels.columns(p),
                    accumulate: k0 > 0,
                    ahead: self.panels.some_of(after, step, next),
                };
                if self.pairs {
                    isa.run_dot_bf16(MultiplyPairs(multiply));
                } else {
                    isa.run(multiply);
                }
            }
        }
        for (p, sums) in panels.zip(scratch.sums.chunks_exact_mut(size)) {
            if let Some(branch) = &self.branch {
                branch.add(isa, p, (&scratch.branch, groups), sums, &mut scratch.weights);
            }
            isa.run(Finish {
                sums,
                rows: self.rows,
                first,
                column: p * NR,
                columns: self.panels.columns(p),
                out: self.out,
                epilogue: &self.epilogue,
            });
        }
    }
}

/// Rows that go through some panels together.
struct PackedRows<'a> {
    /// The first of them in the whole product.
    first: usize,
    packed: &'a [f32],
    groups: Groups,
}

/// What one task needs for itself.
struct Scratch {
    sums: Buffer<f32>,
    weights: Buffer<f32>,
    /// Packed rows of the branch.
    branch: Buffer<f32>,
}

/// Packs one group of rows.
pub(crate) struct Pack<'a, R> {
    pub(crate) rows: &'a R,
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) depth: usize,
    pub(crate) packed: &'a mut [f32],
}

impl<R: Rows> Kernel for Pack<'_, R> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        assert!(self.packed.len() >= self.count * self.depth.next_multiple_of(LINE));
        self.rows.pack(s, self.first, self.count, self.depth, self.packed);
    }
}
