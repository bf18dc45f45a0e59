//! What follows the attention of every transformer block here: `y = x + out(mixed)`, then `y + mlp(norm(y))`.

use super::{GatedMlp, Linear, LinearCall, Pass, PlainMlp, RowNorm, Tensor};
use crate::Result;

/// A feed-forward block of either kind.
pub(crate) enum FeedForward {
    Plain(PlainMlp),
    Gated(GatedMlp),
}

/// The frozen layers behind the attention.
pub(crate) struct BlockTail {
    pub(crate) out: Linear,
    pub(crate) norm: RowNorm,
    pub(crate) mlp: FeedForward,
}

impl BlockTail {
    /// The block's input `x` and what its attention made of it to the block's output. Takes both for their memory, and
    /// counts one step.
    pub(super) fn forward(&self, x: Tensor, mixed: Tensor, pass: &Pass) -> Result<Tensor> {
        let y = self.out.forward_with(&mixed, LinearCall { residual: Some(&x), ..LinearCall::default() }, pass)?;
        pass.recycle(mixed);
        pass.recycle(x);
        let normed = self.norm.forward(&y, pass)?;
        let z = match &self.mlp {
            FeedForward::Plain(mlp) => mlp.forward(&normed, Some(&y), pass)?,
            FeedForward::Gated(mlp) => mlp.forward(&normed, Some(&y), pass)?,
        };
        pass.recycle(normed);
        pass.recycle(y);
        pass.step()?;
        Ok(z)
    }
}
