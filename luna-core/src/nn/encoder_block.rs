//! The transformer block of CLIP, SigLIP and Qwen3-VL's vision tower:
//! `x ← x + out(attention(norm₁(x)))`, `x ← x + fc₂(act(fc₁(norm₂(x))))` with layer norms.

use super::{
    Activation, AttentionCall, Linear, LinearCall, Pass, PlainMlp, RotaryTable, RowNorm, Tensor, Weights, attention,
};
use crate::Result;
use luna_kernels::AttentionMask;

/// What the weights of a block do not say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncoderBlockSpec {
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) eps: f32,
    /// Between the two layers of the feed-forward block.
    pub(crate) activation: Activation,
}

/// What the blocks of one pass share.
#[derive(Clone, Copy)]
pub(crate) struct EncoderBlockCall<'a> {
    pub(crate) mask: AttentionMask<'a>,
    /// Turns queries and keys to their places, where places are not learned.
    pub(crate) rotary: Option<&'a RotaryTable>,
}

/// A frozen block. Names: `layer_norm1`, `self_attn.{q,k,v,out}_proj`, `layer_norm2`, `mlp.fc1`, `mlp.fc2`.
pub(crate) struct EncoderBlock {
    norm1: RowNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm2: RowNorm,
    mlp: PlainMlp,
    heads: usize,
}

impl EncoderBlock {
    pub(crate) fn load(weights: &Weights, spec: EncoderBlockSpec) -> Result<Self> {
        let EncoderBlockSpec { width, heads, eps, activation } = spec;
        let attention = weights.at("self_attn");
        let square = |name| Linear::load(&attention.at(name), width, width);
        Ok(Self {
            norm1: RowNorm::layer_norm(&weights.at("layer_norm1"), width, eps)?,
            q: square("q_proj")?,
            k: square("k_proj")?,
            v: square("v_proj")?,
            out: square("out_proj")?,
            norm2: RowNorm::layer_norm(&weights.at("layer_norm2"), width, eps)?,
            mlp: PlainMlp::load(&weights.at("mlp"), width, width, activation)?,
            heads,
        })
    }

    /// `[b, tokens, width]` → the same; counts one step.
    pub(crate) fn forward(&self, x: Tensor, call: EncoderBlockCall, pass: &Pass) -> Result<Tensor> {
        let normed = self.norm1.forward(&x, pass)?;
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|linear| linear.forward(&normed, pass));
        let (mut q, mut k, v) = (q?, k?, v?);
        pass.recycle(normed);
        if let Some(rotary) = call.rotary {
            q = rotary.rotate(q, self.heads)?;
            k = rotary.rotate(k, self.heads)?;
        }
        let how = AttentionCall { mask: call.mask, ..AttentionCall::heads(self.heads) };
        let mixed = attention(&q, &k, &v, how, pass)?;
        [q, k, v].into_iter().for_each(|tensor| pass.recycle(tensor));
        let y = self.out.forward_with(&mixed, LinearCall { residual: Some(&x), ..LinearCall::default() }, pass)?;
        pass.recycle(mixed);
        pass.recycle(x);
        let normed = self.norm2.forward(&y, pass)?;
        let z = self.mlp.forward(&normed, Some(&y), pass)?;
        pass.recycle(normed);
        pass.recycle(y);
        pass.step()?;
        Ok(z)
    }
}
