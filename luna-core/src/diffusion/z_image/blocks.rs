//! The block of a Z-Image transformer: attention and a gated feed-forward, each normed before and after.

use super::{
    super::transformer::{Projections, parts, rotated_attention},
    EPS,
};
use crate::{
    Result,
    nn::{Activation, GatedMlp, Linear, ModulatedNorm, Pass, RotaryTable, RowNorm, Tensor, Weights, add},
};

/// Blocks of the text refiner have no modulation.
pub(super) struct Block {
    modulation: Option<Linear>,
    /// Before and after each part.
    attention_norms: [RowNorm; 2],
    feed_forward_norms: [RowNorm; 2],
    projections: Projections,
    out: Linear,
    feed_forward: GatedMlp,
}

/// Gains around a part of the block, `[b, width]` each.
struct Gains {
    before: Tensor,
    after: Tensor,
}

impl Block {
    /// `widths`: of tokens and of the time embedding.
    pub(super) fn load(weights: &Weights, [width, time]: [usize; 2], head: usize) -> Result<Self> {
        let modulation = weights.at("adaLN_modulation.0");
        let norm = |name: &str| RowNorm::rms_norm(&weights.at(name), width, EPS);
        let feed_forward = ["w1", "w3", "w2"];
        let names = ["to_q", "to_k", "to_v", "norm_q", "norm_k"];
        Ok(Self {
            modulation: modulation.has("weight").then(|| Linear::load(&modulation, time, 4 * width)).transpose()?,
            attention_norms: [norm("attention_norm1")?, norm("attention_norm2")?],
            feed_forward_norms: [norm("ffn_norm1")?, norm("ffn_norm2")?],
            projections: Projections::load(&weights.at("attention"), names, width, head, EPS)?,
            out: Linear::load(&weights.at("attention.to_out.0"), width, width)?,
            feed_forward: GatedMlp::load(&weights.at("feed_forward"), feed_forward, width, Activation::Silu)?,
        })
    }

    /// `x` `[b, tokens, width]`, `seen` the time embedding `[b, time]` → as `x`.
    pub(super) fn forward(&self, x: Tensor, seen: Option<&Tensor>, table: &RotaryTable, pass: &Pass) -> Result<Tensor> {
        let [attention, feed_forward] = self.gains(x.dim(0)?, seen, pass)?;
        let x = attention.around(x, pass, |x| {
            let mixed = rotated_attention(self.projections.forward(x, pass)?, table, pass)?;
            let y = self.out.forward(&mixed, pass)?;
            pass.recycle(mixed);
            Ok(y)
        })?;
        let x = feed_forward.around(x, pass, |x| self.feed_forward.forward(x, None, pass))?;
        pass.step()?;
        Ok(x)
    }

    /// The norms' gains with the time's scales and gates in them.
    fn gains(&self, batch: usize, seen: Option<&Tensor>, pass: &Pass) -> Result<[Gains; 2]> {
        let gain = |norm: &RowNorm| -> Result<Tensor> { Ok(norm.gamma(pass)?.reshape((1, ()))?) };
        let norms = [&self.attention_norms, &self.feed_forward_norms];
        let Some((modulation, seen)) = self.modulation.as_ref().zip(seen) else {
            let spread = |norm: &RowNorm| -> Result<Tensor> {
                let gain = gain(norm)?;
                Ok(gain.broadcast_as((batch, gain.dim(1)?))?.contiguous()?)
            };
            let [a, b] = norms.map(|[before, after]| -> Result<Gains> {
                Ok(Gains { before: spread(before)?, after: spread(after)? })
            });
            return Ok([a?, b?]);
        };
        let [scale_1, gate_1, scale_2, gate_2] = parts(&modulation.forward(seen, pass)?)?;
        let gains = |[before, after]: &[RowNorm; 2], scale: Tensor, gate: Tensor| -> Result<Gains> {
            let before = (scale + 1.0)?.broadcast_mul(&gain(before)?)?;
            Ok(Gains { before, after: gate.tanh()?.broadcast_mul(&gain(after)?)? })
        };
        Ok([gains(norms[0], scale_1, gate_1)?, gains(norms[1], scale_2, gate_2)?])
    }
}

impl Gains {
    /// `x + norm(part(norm(x)))`.
    fn around(&self, x: Tensor, pass: &Pass, part: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let norm = |gain, x: &Tensor| ModulatedNorm { eps: EPS, centred: false, gain, offset: None }.forward(x, pass);
        let normed = norm(&self.before, &x)?;
        let y = part(&normed)?;
        pass.recycle(normed);
        let normed = norm(&self.after, &y)?;
        pass.recycle(y);
        let sum = add(x, &normed, pass)?;
        pass.recycle(normed);
        Ok(sum)
    }
}
