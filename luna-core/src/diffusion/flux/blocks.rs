//! The blocks of a Flux transformer.

use super::super::timestep::matrix;
use super::{
    super::transformer::{Projections, parts, rotated_attention},
    EPS,
};
use crate::{
    Result,
    nn::{
        Activation, Linear, LinearCall, ModulatedNorm, Pass, RotaryTable, Tensor, Weights, add, join_channels,
        scale_and_shift,
    },
};

/// Tokens of the picture and of the text, `[b, tokens, width]` each.
pub(super) struct Stream {
    pub(super) picture: Tensor,
    pub(super) text: Tensor,
}

/// One stream's part in a double block.
struct Side {
    modulation: Linear,
    projections: Projections,
    out: Linear,
    widen: Linear,
    narrow: Linear,
}

/// How the time modulates one half of a side: before and after what it computes. `[b, width]` each.
struct Modulation {
    gain: Tensor,
    offset: Tensor,
    gate: Tensor,
}

impl Modulation {
    fn new([shift, scale, gate]: [Tensor; 3]) -> Result<Self> {
        Ok(Self { gain: (scale + 1.0)?, offset: shift, gate })
    }

    fn normed(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        ModulatedNorm { eps: EPS, centred: true, gain: &self.gain, offset: Some(&self.offset) }.forward(x, pass)
    }

    /// `x + gate·y`.
    fn add(&self, x: Tensor, y: Tensor, pass: &Pass) -> Result<Tensor> {
        let gated = scale_and_shift(&y, Some(&self.gate), None, pass)?;
        pass.recycle(y);
        let sum = add(x, &gated, pass)?;
        pass.recycle(gated);
        Ok(sum)
    }
}

/// diffusers' names of a side's layers.
struct Names {
    modulation: &'static str,
    projections: [&'static str; 5],
    out: &'static str,
    feed_forward: &'static str,
}

const PICTURE: Names = Names {
    modulation: "norm1.linear",
    projections: ["attn.to_q", "attn.to_k", "attn.to_v", "attn.norm_q", "attn.norm_k"],
    out: "attn.to_out.0",
    feed_forward: "ff.net",
};
const TEXT: Names = Names {
    modulation: "norm1_context.linear",
    projections: ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.norm_added_q", "attn.norm_added_k"],
    out: "attn.to_add_out",
    feed_forward: "ff_context.net",
};

impl Side {
    fn load(weights: &Weights, names: &Names, width: usize, head: usize) -> Result<Self> {
        let (widen, narrow) = (weights.at(names.feed_forward).at("0.proj"), weights.at(names.feed_forward).at(2));
        let (hidden, _) = matrix(&widen)?;
        Ok(Self {
            modulation: Linear::load(&weights.at(names.modulation), width, 6 * width)?,
            projections: Projections::load(weights, names.projections, width, head, EPS)?,
            out: Linear::load(&weights.at(names.out), width, width)?,
            widen: Linear::load(&widen, width, hidden)?,
            narrow: Linear::load(&narrow, hidden, width)?,
        })
    }

    /// For the attention and for the feed-forward.
    fn modulations(&self, seen: &Tensor, pass: &Pass) -> Result<[Modulation; 2]> {
        let [a, b, c, d, e, f] = parts(&self.modulation.forward(seen, pass)?)?;
        Ok([Modulation::new([a, b, c])?, Modulation::new([d, e, f])?])
    }

    fn project(&self, x: &Tensor, modulation: &Modulation, pass: &Pass) -> Result<[Tensor; 3]> {
        let normed = modulation.normed(x, pass)?;
        let projected = self.projections.forward(&normed, pass)?;
        pass.recycle(normed);
        Ok(projected)
    }

    /// Adds what the attention found, then the feed-forward.
    fn finish(&self, x: Tensor, mixed: &Tensor, modulations: &[Modulation; 2], pass: &Pass) -> Result<Tensor> {
        let [first, second] = modulations;
        let x = first.add(x, self.out.forward(mixed, pass)?, pass)?;
        let normed = second.normed(&x, pass)?;
        let gelu = LinearCall { activation: Activation::GeluTanh, ..LinearCall::default() };
        let wide = self.widen.forward_with(&normed, gelu, pass)?;
        pass.recycle(normed);
        let y = self.narrow.forward(&wide, pass)?;
        pass.recycle(wide);
        second.add(x, y, pass)
    }
}

/// Two streams that attend to each other.
pub(super) struct DoubleBlock {
    picture: Side,
    text: Side,
}

impl DoubleBlock {
    pub(super) fn load(weights: &Weights, width: usize, head: usize) -> Result<Self> {
        Ok(Self {
            picture: Side::load(weights, &PICTURE, width, head)?,
            text: Side::load(weights, &TEXT, width, head)?,
        })
    }

    /// `seen` is the activated embedding `[b, width]`; `table` turns the text's tokens, then the picture's.
    pub(super) fn forward(&self, x: Stream, seen: &Tensor, table: &RotaryTable, pass: &Pass) -> Result<Stream> {
        let texts = x.text.dim(1)?;
        let (picture_mod, text_mod) = (self.picture.modulations(seen, pass)?, self.text.modulations(seen, pass)?);
        let picture = self.picture.project(&x.picture, &picture_mod[0], pass)?;
        let text = self.text.project(&x.text, &text_mod[0], pass)?;
        let joined = |index: usize| Tensor::cat(&[&text[index], &picture[index]], 1);
        let all = [joined(0)?, joined(1)?, joined(2)?];
        text.into_iter().chain(picture).for_each(|tensor| pass.recycle(tensor));
        let mixed = rotated_attention(all, table, pass)?;
        let part = |first: usize, count: usize| mixed.narrow(1, first, count)?.contiguous();
        let (to_text, to_picture) = (part(0, texts)?, part(texts, mixed.dim(1)? - texts)?);
        pass.step()?;
        Ok(Stream {
            picture: self.picture.finish(x.picture, &to_picture, &picture_mod, pass)?,
            text: self.text.finish(x.text, &to_text, &text_mod, pass)?,
        })
    }
}

/// Attention and feed-forward side by side over all tokens.
pub(super) struct SingleBlock {
    modulation: Linear,
    projections: Projections,
    widen: Linear,
    out: Linear,
}

impl SingleBlock {
    pub(super) fn load(weights: &Weights, width: usize, head: usize) -> Result<Self> {
        let (_, joined) = matrix(&weights.at("proj_out"))?;
        let hidden = joined.saturating_sub(width);
        Ok(Self {
            modulation: Linear::load(&weights.at("norm.linear"), width, 3 * width)?,
            projections: Projections::load(weights, PICTURE.projections, width, head, EPS)?,
            widen: Linear::load(&weights.at("proj_mlp"), width, hidden)?,
            out: Linear::load(&weights.at("proj_out"), joined, width)?,
        })
    }

    /// `[b, tokens, width]` → the same.
    pub(super) fn forward(&self, x: Tensor, seen: &Tensor, table: &RotaryTable, pass: &Pass) -> Result<Tensor> {
        let modulation = Modulation::new(parts(&self.modulation.forward(seen, pass)?)?)?;
        let normed = modulation.normed(&x, pass)?;
        let mixed = rotated_attention(self.projections.forward(&normed, pass)?, table, pass)?;
        let gelu = LinearCall { activation: Activation::GeluTanh, ..LinearCall::default() };
        let wide = self.widen.forward_with(&normed, gelu, pass)?;
        pass.recycle(normed);
        let joined = join_channels(&mixed, &wide, pass)?;
        pass.recycle(mixed);
        pass.recycle(wide);
        let y = self.out.forward(&joined, pass)?;
        pass.recycle(joined);
        pass.step()?;
        modulation.add(x, y, pass)
    }
}
