//! The transformer block of encoders (CLIP, SigLIP, T5, Qwen3-VL's vision tower):
//! `x ← x + out(attention(norm₁(x)))`, `x ← x + mlp(norm₂(x))`.

use super::{
    Activation, AttentionCall, BlockTail, FeedForward, Linear, Pass, PlainMlp, RotaryTable, RowNorm, Tensor, Weights,
    attention,
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

/// A frozen block.
pub(crate) struct EncoderBlock {
    pub(crate) norm: RowNorm,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) heads: usize,
    /// What scores are multiplied with, where it is not the usual `1/√head`.
    pub(crate) scale: Option<f32>,
    pub(crate) tail: BlockTail,
}

impl EncoderBlock {
    /// A block with layer norms. Names: `layer_norm1`, `self_attn.{q,k,v,out}_proj`, `layer_norm2`, `mlp.fc1`, `mlp.fc2`.
    pub(crate) fn load(weights: &Weights, spec: EncoderBlockSpec) -> Result<Self> {
        let EncoderBlockSpec { width, heads, eps, activation } = spec;
        let attention = weights.at("self_attn");
        let square = |name| Linear::load(&attention.at(name), width, width);
        Ok(Self {
            norm: RowNorm::layer_norm(&weights.at("layer_norm1"), width, eps)?,
            q: square("q_proj")?,
            k: square("k_proj")?,
            v: square("v_proj")?,
            heads,
            scale: None,
            tail: BlockTail {
                out: square("out_proj")?,
                norm: RowNorm::layer_norm(&weights.at("layer_norm2"), width, eps)?,
                mlp: FeedForward::Plain(PlainMlp::load(&weights.at("mlp"), width, width, activation)?),
            },
        })
    }

    /// `[b, tokens, width]` → the same; counts one step.
    pub(crate) fn forward(&self, x: Tensor, call: EncoderBlockCall, pass: &Pass) -> Result<Tensor> {
        let normed = self.norm.forward(&x, pass)?;
        let (mut q, mut k, v) = self.queries_keys_values(&normed, &normed, pass)?;
        pass.recycle(normed);
        if let Some(rotary) = call.rotary {
            q = rotary.rotate(q, self.heads)?;
            k = rotary.rotate(k, self.heads)?;
        }
        self.mix(x, [q, k, v], call.mask, pass)
    }

    /// The output of one token of each sequence, which sees those up to itself: `[b, tokens, width]` → `[b, 1, width]`, as the
    /// rows of `places` in [`EncoderBlock::forward`] with a causal mask. Counts one step.
    pub(crate) fn forward_tokens(&self, x: Tensor, places: &[usize], pass: &Pass) -> Result<Tensor> {
        let normed = self.norm.forward(&x, pass)?;
        let (q, k, v) = self.queries_keys_values(&tokens_at(&normed, places)?, &normed, pass)?;
        pass.recycle(normed);
        let own = tokens_at(&x, places)?;
        pass.recycle(x);
        let seen: Vec<usize> = places.iter().map(|place| place + 1).collect();
        self.mix(own, [q, k, v], AttentionMask::KeyLengths(&seen), pass)
    }

    fn queries_keys_values(&self, own: &Tensor, all: &Tensor, pass: &Pass) -> Result<(Tensor, Tensor, Tensor)> {
        let rows = all.dim(0)? * all.dim(1)?;
        let [k, v] = [&self.k, &self.v].map(|linear| || linear.forward(all, pass));
        let (q, (k, v)) = pass.both(rows, || self.q.forward(own, pass), || pass.both(rows, k, v))?;
        Ok((q, k, v))
    }

    fn mix(&self, x: Tensor, [q, k, v]: [Tensor; 3], mask: AttentionMask, pass: &Pass) -> Result<Tensor> {
        let how = AttentionCall { scale: self.scale, mask, ..AttentionCall::heads(self.heads) };
        let mixed = attention(&q, &k, &v, how, pass)?;
        [q, k, v].into_iter().for_each(|tensor| pass.recycle(tensor));
        self.tail.forward(x, mixed, pass)
    }
}

/// One token of each sequence: `[b, tokens, width]` → `[b, 1, width]`, in memory of its own.
pub(crate) fn tokens_at(x: &Tensor, places: &[usize]) -> Result<Tensor> {
    let rows = places.iter().enumerate().map(|(index, &place)| x.narrow(0, index, 1)?.narrow(1, place, 1));
    // A single one would be a view.
    Ok(Tensor::cat(&rows.collect::<candle_core::Result<Vec<_>>>()?, 0)?.copy()?)
}
