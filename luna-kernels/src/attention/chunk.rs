//! One chunk of queries of one head, over all keys.
//!
//! Enters: packed keys and values. Leaves: the chunk's output rows. Scores of a chunk of keys are computed, turned into weights against the
//! greatest score so far, and multiplied with the values at once; what was summed before is scaled down whenever a greater score turns up.

use super::{AttentionInput, AttentionMask};
use crate::gemm::epilogue::OutPtr;
use crate::gemm::micro::{Groups, Multiply};
use crate::gemm::rows::{LINE, Matrix, Rows};
use crate::isa::{Context, Isa, Kernel};
use crate::panel::{NR, as_bytes};
use crate::scalar::Scalar;
use crate::simd::Simd;
use crate::simd::math::{exp, exps};
use crate::workspace::Buffer;
use std::ops::Range;

/// The task: queries `first..first + count` of `head` in `sequence`.
pub(super) struct QueryChunk<'a, T> {
    pub(super) x: &'a AttentionInput<'a, T>,
    pub(super) sequence: usize,
    pub(super) head: usize,
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) keys_at_once: usize,
    pub(super) keys: &'a [f32],
    pub(super) values: &'a [f32],
}

/// Scratch of one task.
struct State {
    /// Packed queries.
    queries: Buffer<f32>,
    /// `[key panel][query][32]`.
    scores: Buffer<f32>,
    /// Scores turned into weights, packed as rows of the second product.
    weights: Buffer<f32>,
    /// `[value panel][query][32]`.
    sums: Buffer<f32>,
    /// Greatest score so far, per query.
    top: Vec<f32>,
    /// Sum of weights so far, per query.
    total: Vec<f32>,
}

impl<T: Scalar> QueryChunk<'_, T> {
    pub(super) fn run(&self, out: OutPtr<T>, cx: &Context<'_>) {
        if cx.interrupted() {
            return;
        }
        let mut state = self.start(cx);
        let end = self.last_key();
        // Chunks begin at whole panels.
        let step = self.keys_at_once.next_multiple_of(NR);
        for first in (0..end).step_by(step) {
            if cx.interrupted() {
                return;
            }
            self.key_chunk(cx.isa(), &mut state, first, step.min(end - first));
        }
        let empty = end == 0;
        cx.isa().run(WriteOut { chunk: self, state: &state, out, empty });
    }

    fn start(&self, cx: &Context<'_>) -> State {
        let (dim, count) = (self.x.shape.dim, self.count);
        let depth = dim.next_multiple_of(LINE);
        let keys = self.keys_at_once.min(self.x.shape.tokens_kv).next_multiple_of(NR);
        let mut queries = cx.workspace().take::<f32>(count * depth);
        let q = &self.x.q;
        let data = &q.data[self.sequence * q.batch_stride + self.head * dim + self.first * q.row_stride..];
        let rows = Matrix { data, stride: q.row_stride, out_stride: 0 };
        for group in Groups::new(cx.isa(), count).iter() {
            cx.isa().run(PackQueries {
                rows: &rows,
                first: group.start,
                count: group.len(),
                dim,
                packed: &mut queries[group.start * depth..group.end * depth],
            });
        }
        State {
            queries,
            scores: cx.workspace().take(count * keys),
            weights: cx.workspace().take(count * keys),
            sums: cx.workspace().take(dim.div_ceil(NR) * count * NR),
            top: vec![f32::NEG_INFINITY; count],
            total: vec![0.0; count],
        }
    }

    /// Keys that any query of the chunk sees.
    fn last_key(&self) -> usize {
        let shape = &self.x.shape;
        match self.x.mask {
            AttentionMask::Causal => {
                (self.first + self.count + shape.tokens_kv).saturating_sub(shape.tokens_q).min(shape.tokens_kv)
            }
            AttentionMask::KeyLengths(lengths) => lengths[self.sequence],
            _ => shape.tokens_kv,
        }
    }

    /// Keys that query `r` of the chunk sees.
    #[inline(always)]
    fn visible(&self, r: usize) -> usize {
        match self.x.mask {
            AttentionMask::Causal => (self.first + r + 1 + self.x.shape.tokens_kv)
                .saturating_sub(self.x.shape.tokens_q)
                .min(self.x.shape.tokens_kv),
            AttentionMask::KeyLengths(lengths) => lengths[self.sequence],
            _ => self.x.shape.tokens_kv,
        }
    }

    /// The additive mask of query `r` from key `first` on.
    #[inline(always)]
    fn summands(&self, r: usize, first: usize) -> Option<&[f32]> {
        let AttentionMask::Additive { data, batch_stride, head_stride } = self.x.mask else {
            return None;
        };
        let row = self.sequence * batch_stride + self.head * head_stride + (self.first + r) * self.x.shape.tokens_kv;
        Some(&data[row + first..row + self.x.shape.tokens_kv])
    }

    /// Groups of queries, and how many of the keys `first..first + keys` the last query of each sees: neighbours that see equally many
    /// are one. With a causal mask half of the work on the diagonal is spared.
    fn seen(&self, groups: Groups, first: usize, keys: usize) -> Vec<(Range<usize>, usize)> {
        let mut parts: Vec<(Range<usize>, usize)> = Vec::new();
        for (i, group) in groups.iter().enumerate() {
            let seen = self.visible(group.end - 1).saturating_sub(first).min(keys);
            match parts.last_mut() {
                Some((part, same)) if *same == seen => part.end = i + 1,
                _ => parts.push((i..i + 1, seen)),
            }
        }
        parts
    }

    /// Scores, weights and weighted values of keys `first..first + keys`.
    fn key_chunk(&self, isa: Isa, state: &mut State, first: usize, keys: usize) {
        let (dim, tokens, groups) = (self.x.shape.dim, self.x.shape.tokens_kv, Groups::new(isa, self.count));
        let depth = dim.next_multiple_of(LINE);
        let (key_panels, value_panels) = (keys.div_ceil(NR), dim.div_ceil(NR));
        let key_panel = |p: usize| self.keys.get((first / NR + p) * dim * NR..).map_or(&[][..], |rest| head(rest, dim));
        let value_panel = |p: usize| &self.values[(p * tokens + first) * NR..][..keys * NR];
        let parts = self.seen(groups, first, keys);
        for p in 0..key_panels {
            // With a causal mask the first queries see nothing of it, and all after them do.
            let Some((part, _)) = parts.iter().find(|(_, seen)| *seen > p * NR) else { break };
            let (row, groups) = groups.some(part.start..groups.count());
            isa.run(Multiply {
                a: &state.queries[row * depth..],
                depth,
                k0: 0,
                b: key_panel(p),
                k: dim,
                c: &mut state.scores[(p * self.count + row) * NR..][..groups.rows() * NR],
                groups,
                columns: NR.min(keys - p * NR),
                accumulate: false,
                ahead: as_bytes(if p + 1 < key_panels { key_panel(p + 1) } else { value_panel(0) }),
            });
        }
        isa.run(Weigh { chunk: self, state: &mut *state, groups, first, keys });
        let depth = keys.next_multiple_of(LINE);
        for p in 0..value_panels {
            // After the last come the next keys, if any.
            let mut ahead = as_bytes(if p + 1 < value_panels { value_panel(p + 1) } else { key_panel(key_panels) });
            for (part, seen) in &parts {
                let (row, groups) = groups.some(part.clone());
                isa.run(Multiply {
                    a: &state.weights[row * depth..],
                    depth,
                    k0: 0,
                    b: value_panel(p),
                    k: *seen,
                    c: &mut state.sums[(p * self.count + row) * NR..][..groups.rows() * NR],
                    groups,
                    columns: NR.min(dim - p * NR),
                    accumulate: first > 0,
                    ahead: std::mem::take(&mut ahead),
                });
            }
        }
    }
}

/// The first panel of depth `k`, or what there is of it.
fn head(panels: &[f32], k: usize) -> &[f32] {
    &panels[..panels.len().min(k * NR)]
}

struct PackQueries<'a, T> {
    rows: &'a Matrix<'a, T>,
    first: usize,
    count: usize,
    dim: usize,
    packed: &'a mut [f32],
}

impl<T: Scalar> Kernel for PackQueries<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.rows.pack(s, self.first, self.count, self.dim, self.packed);
    }
}

/// Turns a chunk's scores into packed weights and keeps the running softmax.
struct Weigh<'a, T> {
    chunk: &'a QueryChunk<'a, T>,
    state: &'a mut State,
    groups: Groups,
    first: usize,
    keys: usize,
}

impl<T: Scalar> Kernel for Weigh<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let depth = self.keys.next_multiple_of(LINE);
        let Self { chunk, state, keys, first, .. } = self;
        for group in self.groups.iter() {
            let packed = &mut state.weights[group.start * depth..group.end * depth];
            for r in group.clone() {
                let row = ScoreRow { scores: &mut state.scores[r * NR..], step: chunk.count * NR, keys };
                let seen = chunk.visible(r).saturating_sub(first).min(keys);
                let chunk_top = row_top(s, &row, chunk.x.scale, chunk.summands(r, first), seen);
                let top = state.top[r].max(chunk_top);
                // While no key has been seen the reference is arbitrary, and it must be finite.
                let reference = if top == f32::NEG_INFINITY { 0.0 } else { top };
                let target = &mut packed[(r - group.start) * LINE..];
                let sum = row_weights(s, row, reference, seen, target, group.len() * LINE);
                let shrink = if state.top[r] == f32::NEG_INFINITY { 0.0 } else { (state.top[r] - reference).exp() };
                state.total[r] = state.total[r] * shrink + sum;
                state.top[r] = top;
                if first > 0 && shrink != 1.0 {
                    for sums in state.sums.chunks_exact_mut(chunk.count * NR) {
                        sums[r * NR..][..NR].iter_mut().for_each(|sum| *sum *= shrink);
                    }
                }
            }
        }
    }
}

/// One query's scores: 32 side by side, then `step` to the next 32.
struct ScoreRow<'a> {
    scores: &'a mut [f32],
    step: usize,
    keys: usize,
}

/// Scales the scores, adds the mask, writes them back, and finds the greatest of those seen.
#[inline(always)]
fn row_top<S: Simd>(s: S, row: &ScoreRow<'_>, scale: f32, summands: Option<&[f32]>, seen: usize) -> f32 {
    let mut top = s.splat(f32::NEG_INFINITY);
    let mut last = f32::NEG_INFINITY;
    let scores = row.scores.as_ptr().cast_mut();
    let mut j = 0;
    while j < seen {
        let lanes = S::LANES.min(seen - j);
        // SAFETY: `row.scores` is a unique borrow that holds 32 values every `step`; mask rows hold `keys` values.
        unsafe {
            let at = scores.add(j / NR * row.step + j % NR);
            let mut v = s.mul(s.load(at), s.splat(scale));
            if let Some(summands) = summands {
                v = s.add(v, s.load_head(summands.as_ptr().add(j), lanes));
            }
            s.store(at, v);
            if lanes == S::LANES {
                top = s.max(top, v);
            } else {
                for i in 0..lanes {
                    last = last.max(*at.add(i));
                }
            }
        }
        j += S::LANES;
    }
    s.top(top).max(last)
}

/// Vectors of scores that are turned into weights side by side.
const ABREAST: usize = 4;

/// Writes `exp(score - reference)` as packed weights, zeros for unseen keys, and gives their sum.
#[inline(always)]
fn row_weights<S: Simd>(s: S, row: ScoreRow<'_>, reference: f32, seen: usize, target: &mut [f32], step: usize) -> f32 {
    let reference = s.splat(reference);
    let mut totals = [s.zero(); ABREAST];
    let (from, to) = (row.scores.as_ptr(), target.as_mut_ptr());
    let mut j = 0;
    while j + ABREAST * S::LANES <= seen {
        let mut v = [s.zero(); ABREAST];
        for (i, v) in v.iter_mut().enumerate() {
            let j = j + i * S::LANES;
            // SAFETY: the score row holds 32 values every `step`.
            *v = s.sub(unsafe { s.load(from.add(j / NR * row.step + j % NR)) }, reference);
        }
        let v = exps(s, v);
        for (i, (v, total)) in v.into_iter().zip(&mut totals).enumerate() {
            let j = j + i * S::LANES;
            // SAFETY: the packed row holds 16 values every `step` of its own.
            unsafe { s.store(to.add(j / LINE * step + j % LINE), v) };
            *total = s.add(*total, v);
        }
        j += ABREAST * S::LANES;
    }
    while j < row.keys.next_multiple_of(LINE) {
        let lanes = seen.saturating_sub(j).min(S::LANES);
        // SAFETY: as above.
        unsafe {
            let mut v = s.zero();
            if lanes > 0 {
                v = exp(s, s.sub(s.load(from.add(j / NR * row.step + j % NR)), reference));
                if lanes < S::LANES {
                    let mut keep = [0.0f32; LINE];
                    s.store(keep.as_mut_ptr(), v);
                    v = s.load_head(keep.as_ptr(), lanes);
                }
            }
            s.store(to.add(j / LINE * step + j % LINE), v);
            totals[0] = s.add(totals[0], v);
        }
        j += S::LANES;
    }
    let [a, b, c, d] = totals;
    s.sum(s.add(s.add(a, b), s.add(c, d)))
}

/// Divides by the total weight and writes the rows of the output.
struct WriteOut<'a, T> {
    chunk: &'a QueryChunk<'a, T>,
    state: &'a State,
    out: OutPtr<T>,
    empty: bool,
}

impl<T: Scalar> Kernel for WriteOut<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let chunk = self.chunk;
        let shape = &chunk.x.shape;
        for r in 0..chunk.count {
            let token = chunk.sequence * shape.tokens_q + chunk.first + r;
            let start = (token * shape.heads + chunk.head) * shape.dim;
            let factor = if self.empty || self.state.total[r] == 0.0 { 0.0 } else { 1.0 / self.state.total[r] };
            let mut j = 0;
            while j < shape.dim {
                let lanes = S::LANES.min(shape.dim - j);
                // SAFETY: this task alone writes this head of this token; the sums hold 32 values per query and panel.
                unsafe {
                    let out = self.out.at(start + j, lanes);
                    let sum = s.load(self.state.sums.as_ptr().add(j / NR * chunk.count * NR + r * NR + j % NR));
                    // Sums that were never written (no key was seen) may hold anything.
                    let v = if factor == 0.0 { s.zero() } else { s.mul(sum, s.splat(factor)) };
                    if lanes == S::LANES { T::store(s, out, v) } else { T::store_head(s, out, v, lanes) }
                }
                j += S::LANES;
            }
        }
    }
}
