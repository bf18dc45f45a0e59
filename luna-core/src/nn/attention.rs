//! Attention blocks.

use super::{GroupNorm, Linear, Pass, Tensor, Weights, cpu, portable};
use crate::Result;

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
        let normed = if x.device().is_cpu() {
            cpu::group_norm(&x, &self.norm, pass)?
        } else {
            portable::group_norm(&x, &self.norm)?
        };
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|linear| linear.forward(&normed, pass));
        let (q, k, v) = (q?, k?, v?);
        pass.recycle(normed);
        let mixed = if x.device().is_cpu() {
            cpu::attention(&q, &k, &v, 1, pass)?
        } else {
            portable::attention(&q, &k, &v, 1)?
        };
        pass.check()?;
        [q, k, v].into_iter().for_each(|tensor| pass.recycle(tensor));
        let y = self.out.forward_add(&mixed, Some(&x), pass)?;
        pass.recycle(mixed);
        pass.recycle(x);
        pass.step()?;
        Ok(y)
    }
}
