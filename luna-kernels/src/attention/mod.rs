//! Attention: `softmax(scale · Q Kᵀ + mask) V`, head by head.
//!
//! Enters: queries, keys and values as strided rows (so that one buffer may hold all three). Leaves: `[b, tokens_q, heads · dim]`.
//! It must not know positions or projections.

mod chunk;
mod single;

use crate::gemm::epilogue::OutPtr;
use crate::isa::Context;
use crate::matmul::{PackAcross, PackAlong};
use crate::panel::NR;
use crate::scalar::Scalar;
use crate::tasks::in_order;
use crate::workspace::Buffer;
use chunk::QueryChunk;
use rayon::prelude::*;
use std::ops::Range;

/// Sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Sequences.
    pub b: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads` (grouped queries).
    pub kv_heads: usize,
    /// Queries of a sequence.
    pub tokens_q: usize,
    /// Keys of a sequence.
    pub tokens_kv: usize,
    /// Width of a head.
    pub dim: usize,
}

impl AttentionShape {
    /// Self-attention: as many keys as queries, as many key heads as query heads.
    pub fn of_self(b: usize, heads: usize, tokens: usize, dim: usize) -> Self {
        Self { b, heads, kv_heads: heads, tokens_q: tokens, tokens_kv: tokens, dim }
    }
}

/// Rows of tokens within a slice: token `t` of sequence `i` begins at `i · batch_stride + t · row_stride`, its heads side by side.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a, T> {
    /// The elements, from the first token's first head on.
    pub data: &'a [T],
    /// Elements from one token to the next.
    pub row_stride: usize,
    /// Elements from one sequence to the next.
    pub batch_stride: usize,
}

impl<'a, T> Tokens<'a, T> {
    /// Contiguous `[b, tokens, width]`.
    pub fn contiguous(data: &'a [T], tokens: usize, width: usize) -> Self {
        Self { data, row_stride: width, batch_stride: tokens * width }
    }

    fn check(&self, b: usize, tokens: usize, width: usize, name: &str) {
        if b * tokens * width > 0 {
            let end = (b - 1) * self.batch_stride + (tokens - 1) * self.row_stride + width;
            assert!(end <= self.data.len(), "{name} need {end} elements, have {}", self.data.len());
        }
    }
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug)]
pub enum AttentionMask<'a> {
    /// All.
    None,
    /// Query `i` sees keys up to `i + tokens_kv - tokens_q`: the last query sees all, as with a cache of earlier keys.
    Causal,
    /// Adds `data[i · batch_stride + head · head_stride + query · tokens_kv + key]` to the scaled scores; a stride of 0 shares.
    Additive {
        /// The summands, negative infinity hides a key.
        data: &'a [f32],
        /// Elements from one sequence to the next.
        batch_stride: usize,
        /// Elements from one head to the next.
        head_stride: usize,
    },
    /// Sequence `i` sees its first `lengths[i]` keys.
    KeyLengths(&'a [usize]),
}

/// How much of the scores exists at a time. All modes compute the same within rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttentionMode {
    /// The fastest for the shape, which is `Flash`.
    #[default]
    Auto,
    /// Chunks of queries by chunks of keys with a running softmax.
    Flash,
    /// Chunks of queries by all keys: whole score rows.
    Split,
    /// The whole score matrix of a head.
    Plain,
}

/// Queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub struct AttentionInput<'a, T> {
    /// `[b, tokens_q, heads · dim]`.
    pub q: Tokens<'a, T>,
    /// `[b, tokens_kv, kv_heads · dim]`.
    pub k: Tokens<'a, T>,
    /// `[b, tokens_kv, kv_heads · dim]`.
    pub v: Tokens<'a, T>,
    /// Sizes.
    pub shape: AttentionShape,
    /// Factor on the scores, usually `1 / √dim`.
    pub scale: f32,
    /// Which keys count.
    pub mask: AttentionMask<'a>,
    /// How to compute.
    pub mode: AttentionMode,
}

/// Computes attention into `out`, contiguous `[b, tokens_q, heads · dim]`. A query that sees no key gives zeros.
///
/// ```
/// use luna_kernels::{AttentionInput, AttentionMask, AttentionMode, AttentionShape, Context, Tokens, Workspace, attention};
///
/// let x = [1.0f32, 0.0, 0.0, 1.0]; // two tokens of width 2
/// let tokens = Tokens::contiguous(&x, 2, 2);
/// let shape = AttentionShape::of_self(1, 1, 2, 2);
/// let input = AttentionInput { q: tokens, k: tokens, v: tokens, shape, scale: 1.0, mask: AttentionMask::Causal, mode: AttentionMode::Auto };
/// let (workspace, mut out) = (Workspace::new(), [0.0; 4]);
/// attention(&input, &mut out, &Context::new(&workspace));
/// assert_eq!(out[..2], [1.0, 0.0]); // the first token sees itself only
/// ```
///
/// # Panics
/// If a slice does not have the size its shape says.
pub fn attention<T: Scalar>(x: &AttentionInput<'_, T>, out: &mut [T], cx: &Context<'_>) {
    T::attention(x, out, cx);
}

/// [`attention`], compiled once for each element type.
pub(crate) fn attention_of<T: Scalar>(x: &AttentionInput<'_, T>, out: &mut [T], cx: &Context<'_>) {
    let AttentionShape { b, heads, kv_heads, tokens_q, tokens_kv, dim } = x.shape;
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "{kv_heads} key heads do not divide {heads} query heads");
    x.q.check(b, tokens_q, heads * dim, "queries");
    x.k.check(b, tokens_kv, kv_heads * dim, "keys");
    x.v.check(b, tokens_kv, kv_heads * dim, "values");
    assert_eq!(out.len(), b * tokens_q * heads * dim, "output must be [b, tokens_q, heads * dim]");
    check_mask(x);
    if out.is_empty() {
        return;
    }
    if tokens_kv == 0 {
        return out.fill(T::default());
    }
    if single::serves(x) {
        return single::run(x, OutPtr::new(out), cx);
    }
    let (queries, keys_at_once) = chunk_sizes(x);
    let (chunks, group) = (tokens_q.div_ceil(queries), heads / kv_heads);
    // Keys that serve one task are packed by it, lest threads wait for each other once more.
    let all = (chunks * group > 1).then(|| PackedHeads::pack(x, 0..b * kv_heads, cx));
    let out = OutPtr::new(out);
    let run = |task: usize| {
        let (sequence, head, first) = (task / chunks / heads, task / chunks % heads, task % chunks * queries);
        let kv_head = sequence * kv_heads + head / group;
        let own = all.is_none().then(|| PackedHeads::pack(x, kv_head..kv_head + 1, cx));
        let packed = all.as_ref().or(own.as_ref()).expect("heads packed before or just now");
        let (keys, values) = packed.head(kv_head);
        let count = queries.min(tokens_q - first);
        QueryChunk { x, sequence, head, first, count, keys_at_once, keys, values }.run(out, cx);
    };
    in_order(b * heads * chunks, || (), |(), task| run(task));
}

fn check_mask<T>(x: &AttentionInput<'_, T>) {
    let AttentionShape { b, heads, tokens_q, tokens_kv, .. } = x.shape;
    match x.mask {
        AttentionMask::Additive { data, batch_stride, head_stride } if b * heads > 0 => {
            let end = (b - 1) * batch_stride + (heads - 1) * head_stride + tokens_q * tokens_kv;
            assert!(data.len() >= end, "mask needs {end} values, has {}", data.len());
        }
        AttentionMask::KeyLengths(lengths) => {
            assert!(
                lengths.len() == b && lengths.iter().all(|&l| l <= tokens_kv),
                "mask needs one length per sequence, at most {tokens_kv}"
            );
        }
        _ => {}
    }
}

/// Queries and keys of a chunk.
fn chunk_sizes<T>(x: &AttentionInput<'_, T>) -> (usize, usize) {
    let AttentionShape { tokens_q, tokens_kv, dim, .. } = x.shape;
    // Wide heads take fewer queries, so that queries, scores and sums stay in the second-level cache together.
    let queries = if dim > 256 { 112 } else { 168 };
    match x.mode {
        AttentionMode::Auto | AttentionMode::Flash => (queries.min(tokens_q), 256.min(tokens_kv)),
        AttentionMode::Split => (queries.min(tokens_q), tokens_kv),
        AttentionMode::Plain => (tokens_q, tokens_kv),
    }
}

/// Some heads' keys as panels of 32 keys (`[dim][32]` each) and values as panels of 32 columns (`[tokens][32]` each).
struct PackedHeads {
    /// Number of the first head, counted over all sequences.
    first: usize,
    keys: Buffer<f32>,
    values: Buffer<f32>,
    key_len: usize,
    value_len: usize,
}

impl PackedHeads {
    fn pack<T: Scalar>(x: &AttentionInput<'_, T>, heads: Range<usize>, cx: &Context<'_>) -> Self {
        let AttentionShape { kv_heads, tokens_kv, dim, .. } = x.shape;
        let (key_panels, value_panels) = (tokens_kv.div_ceil(NR), dim.div_ceil(NR));
        let (key_len, value_len) = (key_panels * dim * NR, value_panels * tokens_kv * NR);
        let mut keys = cx.workspace().take::<f32>(heads.len() * key_len);
        let mut values = cx.workspace().take::<f32>(heads.len() * value_len);
        let start = |tokens: &Tokens<'_, T>, head: usize| head / kv_heads * tokens.batch_stride + head % kv_heads * dim;
        // One head is packed by the task that wants it.
        let least = if heads.len() == 1 { usize::MAX } else { 1 };
        keys.par_chunks_exact_mut(dim * NR).with_min_len(least).enumerate().for_each(|(at, panel)| {
            let (head, first) = (heads.start + at / key_panels, at % key_panels * NR);
            let data = &x.k.data[start(&x.k, head) + first * x.k.row_stride..];
            cx.isa().run(PackAcross { data, stride: x.k.row_stride, columns: NR.min(tokens_kv - first), panel });
        });
        values.par_chunks_exact_mut(tokens_kv * NR).with_min_len(least).enumerate().for_each(|(at, panel)| {
            let (head, first) = (heads.start + at / value_panels, at % value_panels * NR);
            let data = &x.v.data[start(&x.v, head) + first..];
            cx.isa().run(PackAlong { data, stride: x.v.row_stride, columns: NR.min(dim - first), panel });
        });
        Self { first: heads.start, keys, values, key_len, value_len }
    }

    /// Keys and values of one head.
    fn head(&self, head: usize) -> (&[f32], &[f32]) {
        let at = head - self.first;
        (&self.keys[at * self.key_len..][..self.key_len], &self.values[at * self.value_len..][..self.value_len])
    }
}

#[cfg(test)]
mod tests;
