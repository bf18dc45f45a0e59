//! Attention blocks.

use super::{GroupNorm, Linear, LinearCall, Pass, Tensor, Weights, cpu, portable};
use crate::Result;
use candle_core::D;
use luna_kernels::AttentionMask;

/// How queries, keys and values are mixed: `softmax(scale · q·kᵀ + mask)·v`, head by head.
#[derive(Clone, Copy)]
pub(crate) struct AttentionCall<'a> {
    pub(crate) heads: usize,
    /// Heads of keys and values; divides `heads`.
    pub(crate) kv_heads: usize,
    /// `1/√dim` if not given.
    pub(crate) scale: Option<f32>,
    pub(crate) mask: AttentionMask<'a>,
}

impl AttentionCall<'_> {
    /// As many heads of keys and values as of queries, everything visible.
    pub(crate) fn heads(heads: usize) -> Self {
        Self { heads, kv_heads: heads, scale: None, mask: AttentionMask::None }
    }
}

/// `q` `[b, …, heads·dim]`, `k` and `v` `[b, …, kv_heads·dim]` → `[b, …, heads·dim]`.
pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, call: AttentionCall, pass: &Pass) -> Result<Tensor> {
    let (heads, [batch, width]) = (call.heads, [q.dim(0)?, q.dim(D::Minus1)?]);
    let [queries, keys] = [q.elem_count() / (batch * width), k.elem_count() / (batch * width / heads * call.kv_heads)];
    let name = format_args!("attention, {heads} heads of {}, {queries} over {keys} tokens", width / heads);
    // Scores, and sums over values.
    let y = pass.timed_as(name, 4 * batch * queries * keys * width, || match q.device().is_cpu() {
        true => cpu::attention(q, k, v, call, pass),
        false => portable::attention(q, k, v, call, pass),
    })?;
    pass.check()?;
    Ok(y)
}

/// Single-head self-attention over all pixels, as in the middle of a VAE:
/// `y = x + out(softmax(q·kᵀ/√c)·v)` with `q, k, v` from `norm(x)`.
/// Names: `group_norm`, `to_q`, `to_k`, `to_v`, `to_out.0`.
pub(crate) struct SelfAttention {
    norm: GroupNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
}

impl SelfAttention {
    pub(crate) fn load(weights: &Weights, channels: usize, groups: usize, eps: f32) -> Result<Self> {
        let linear = |name| Linear::load(&weights.at(name), channels, channels);
        Ok(Self {
            norm: GroupNorm::load(&weights.at("group_norm"), channels, groups, eps)?,
            q: linear("to_q")?,
            k: linear("to_k")?,
            v: linear("to_v")?,
            out: linear("to_out.0")?,
        })
    }

    /// `[b, h, w, c]` → the same.
    pub(crate) fn forward(&self, x: Tensor, pass: &Pass) -> Result<Tensor> {
        let normed = self.norm.forward(&x, pass)?;
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|linear| linear.forward(&normed, pass));
        let (q, k, v) = (q?, k?, v?);
        pass.recycle(normed);
        let mixed = attention(&q, &k, &v, AttentionCall::heads(1), pass)?;
        [q, k, v].into_iter().for_each(|tensor| pass.recycle(tensor));
        let y = self.out.forward_with(&mixed, LinearCall { residual: Some(&x), ..LinearCall::default() }, pass)?;
        pass.recycle(mixed);
        pass.recycle(x);
        pass.step()?;
        Ok(y)
    }
}
