//! Attention of a single query, as a language model asks for with each token.
//!
//! Enters: queries, keys and values as they lie in memory. Leaves: the output row. Each key and value is read once and packed nowhere: with
//! one query that would cost more than the arithmetic.

use super::{AttentionInput, AttentionMask, Tokens};
use crate::gemm::epilogue::{OutPtr, read};
use crate::isa::{Context, Kernel};
use crate::scalar::Scalar;
use crate::simd::Simd;
use crate::simd::math::exp;
use rayon::prelude::*;

/// Query heads that go over the keys together.
const TOGETHER: usize = 4;
/// Terms of the products of queries with keys that are worth waking another thread.
const WORTH_WAKING: usize = 1 << 18;
/// Lanes of the widest vector.
const LINE: usize = 16;

/// Whether [`run`] serves this input.
pub(super) fn serves<T>(x: &AttentionInput<'_, T>) -> bool {
    x.shape.tokens_q == 1 && !matches!(x.mask, AttentionMask::Additive { .. })
}

/// Computes it on the ambient threads, a task for each few heads that share keys.
pub(super) fn run<T: Scalar>(x: &AttentionInput<'_, T>, out: OutPtr<T>, cx: &Context<'_>) {
    let shape = x.shape;
    let group = shape.heads / shape.kv_heads;
    let parts = group.div_ceil(TOGETHER);
    let tasks = shape.b * shape.kv_heads * parts;
    let work = shape.b * shape.heads * shape.tokens_kv * shape.dim;
    // A few keys are seen before another thread has woken.
    let alone = if work < WORTH_WAKING { tasks } else { 1 };
    (0..tasks).into_par_iter().with_min_len(alone).with_max_len(alone).for_each(|task| {
        if cx.interrupted() {
            return;
        }
        let (sequence, kv_head, part) = (task / parts / shape.kv_heads, task / parts % shape.kv_heads, task % parts);
        let seen = match x.mask {
            AttentionMask::KeyLengths(lengths) => lengths[sequence],
            _ => shape.tokens_kv,
        };
        let count = TOGETHER.min(group - part * TOGETHER);
        let row = seen.next_multiple_of(LINE);
        let mut scores = cx.workspace().take::<f32>(count * row);
        let heads = Heads { x, sequence, kv_head, first: kv_head * group + part * TOGETHER, seen, row, out };
        match count {
            1 => cx.isa().run(Counted::<T, 1> { heads, scores: &mut scores }),
            2 => cx.isa().run(Counted::<T, 2> { heads, scores: &mut scores }),
            3 => cx.isa().run(Counted::<T, 3> { heads, scores: &mut scores }),
            _ => cx.isa().run(Counted::<T, TOGETHER> { heads, scores: &mut scores }),
        }
    });
}

/// Query heads that share a head of keys and values.
#[derive(Clone, Copy)]
struct Heads<'a, T> {
    x: &'a AttentionInput<'a, T>,
    sequence: usize,
    kv_head: usize,
    /// The first of the query heads.
    first: usize,
    /// Keys that count.
    seen: usize,
    /// Scores of one query head, with padding.
    row: usize,
    out: OutPtr<T>,
}

/// `COUNT` of them.
struct Counted<'a, T, const COUNT: usize> {
    heads: Heads<'a, T>,
    /// `[COUNT][row]`.
    scores: &'a mut [f32],
}

impl<T: Scalar> Heads<'_, T> {
    /// Element `(token, 0)` of this head of keys or values.
    #[inline(always)]
    fn of<'b>(&self, tokens: &Tokens<'b, T>) -> &'b [T] {
        &tokens.data[self.sequence * tokens.batch_stride + self.kv_head * self.x.shape.dim..]
    }
}

impl<T: Scalar, const COUNT: usize> Kernel for Counted<'_, T, COUNT> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { heads, scores } = self;
        assert_eq!(scores.len(), COUNT * heads.row);
        multiply_keys::<S, T, COUNT>(s, &heads, scores);
        let mut factors = [0.0; COUNT];
        for (scores, factor) in scores.chunks_exact_mut(heads.row.max(1)).zip(&mut factors) {
            let total = weigh(s, scores, heads.seen);
            *factor = if total > 0.0 { 1.0 / total } else { 0.0 };
        }
        let dim = heads.x.shape.dim;
        let mut j = 0;
        while j < dim {
            let whole = dim - j >= 2 * S::LANES;
            if whole {
                sum_values::<S, T, COUNT, 2>(s, &heads, scores, &factors, j, S::LANES);
                j += 2 * S::LANES;
            } else {
                sum_values::<S, T, COUNT, 1>(s, &heads, scores, &factors, j, S::LANES.min(dim - j));
                j += S::LANES;
            }
        }
    }
}

/// Scaled products of all queries with all keys.
#[inline(always)]
fn multiply_keys<S: Simd, T: Scalar, const COUNT: usize>(s: S, heads: &Heads<'_, T>, scores: &mut [f32]) {
    let dim = heads.x.shape.dim;
    let q = &heads.x.q;
    let queries = &q.data[heads.sequence * q.batch_stride + heads.first * dim..][..COUNT * dim];
    let keys = heads.of(&heads.x.k);
    for key in 0..heads.seen {
        let row = &keys[key * heads.x.k.row_stride..][..dim];
        let mut sums = [s.zero(); COUNT];
        let mut j = 0;
        while j < dim {
            let lanes = S::LANES.min(dim - j);
            // SAFETY: `lanes` elements from `j` on are there, in the key and in each query.
            unsafe {
                let k = read(s, row.as_ptr().add(j), lanes);
                for (head, sum) in sums.iter_mut().enumerate() {
                    *sum = s.fma(read(s, queries.as_ptr().add(head * dim + j), lanes), k, *sum);
                }
            }
            j += S::LANES;
        }
        for (head, sum) in sums.into_iter().enumerate() {
            scores[head * heads.row + key] = s.sum(sum) * heads.x.scale;
        }
    }
}

/// Turns scores into weights and gives their sum; what pads them counts nothing.
#[inline(always)]
fn weigh<S: Simd>(s: S, scores: &mut [f32], seen: usize) -> f32 {
    scores[seen..].fill(f32::NEG_INFINITY);
    let mut top = s.splat(f32::NEG_INFINITY);
    for line in scores.chunks_exact(S::LANES) {
        // SAFETY: a chunk holds `LANES` values.
        top = s.max(top, unsafe { s.load(line.as_ptr()) });
    }
    let reference = s.splat(s.top(top));
    let mut total = s.zero();
    for line in scores.chunks_exact_mut(S::LANES) {
        // SAFETY: as above.
        unsafe {
            let weight = exp(s, s.sub(s.load(line.as_ptr()), reference));
            s.store(line.as_mut_ptr(), weight);
            total = s.add(total, weight);
        }
    }
    s.sum(total)
}

/// `VECTORS` vectors of weighed values from element `j` on, of which the last holds `lanes`.
#[inline(always)]
fn sum_values<S: Simd, T: Scalar, const COUNT: usize, const VECTORS: usize>(
    s: S,
    heads: &Heads<'_, T>,
    scores: &[f32],
    factors: &[f32; COUNT],
    j: usize,
    lanes: usize,
) {
    let values = heads.of(&heads.x.v);
    let dim = heads.x.shape.dim;
    let mut sums = [[s.zero(); VECTORS]; COUNT];
    for key in 0..heads.seen {
        let row = &values[key * heads.x.v.row_stride..][..dim];
        let mut vectors = [s.zero(); VECTORS];
        for (vector, v) in vectors.iter_mut().enumerate() {
            // SAFETY: `lanes` elements from here on are there; vectors before the last are whole.
            *v = unsafe { read(s, row.as_ptr().add(j + vector * S::LANES), lanes) };
        }
        for (head, sums) in sums.iter_mut().enumerate() {
            let weight = s.splat(scores[head * heads.row + key]);
            for (sum, v) in sums.iter_mut().zip(vectors) {
                *sum = s.fma(weight, v, *sum);
            }
        }
    }
    for (head, (sums, &factor)) in sums.iter().zip(factors).enumerate() {
        let start = (heads.sequence * heads.x.shape.heads + heads.first + head) * dim + j;
        for (vector, &sum) in sums.iter().enumerate() {
            // SAFETY: this task alone writes this head; `lanes` elements from here on are there.
            unsafe {
                let out = heads.out.at(start + vector * S::LANES, lanes);
                let v = s.mul(sum, s.splat(factor));
                if lanes == S::LANES { T::store(s, out, v) } else { T::store_head(s, out, v, lanes) }
            }
        }
    }
}
