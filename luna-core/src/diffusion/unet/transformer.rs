//! Transformers over the pixels of a feature map, which also look at the context.

use super::super::timestep::matrix;
use crate::{
    Error, ErrorKind, Result,
    nn::{AttentionCall, GroupNorm, Linear, LinearCall, Pass, RowNorm, Tensor, Weights, attention, geglu},
};
use serde_json::Value;

/// Variance offset of the norm before a transformer; the layer norms inside it have another.
const EPS: f32 = 1e-6;
const LAYER_EPS: f32 = 1e-5;

/// How channels divide into heads, and the context that all transformers of a UNet share.
pub(super) struct Heads {
    rule: Rule,
    pub(super) context: usize,
}

enum Rule {
    /// As many heads at every level.
    Count(usize),
    /// Heads of one width at every level.
    Width(usize),
    /// As many heads as config.json states for this number of channels.
    Stated(Vec<(usize, usize)>),
}

impl Heads {
    /// Shapes do not show heads. A config.json states them; without one the rule is that of the known models, as ComfyUI
    /// detects them: SD1.x, known by 1×1 convolutions before its transformers and no pooled conditioning, has 8 heads at
    /// every level; SD2.x and SDXL, with linear layers there, have heads of width 64.
    pub(super) fn read(weights: &Weights, config: Option<&Value>) -> Result<Self> {
        let levels = ["down_blocks", "up_blocks"].into_iter().flat_map(|side| {
            let side = weights.at(side);
            (0..side.count("resnets.0.conv1.weight")).map(move |level| side.at(level).at("attentions").at(0))
        });
        let Some(first) =
            levels.chain([weights.at("mid_block.attentions.0")]).find(|place| place.has("proj_in.weight"))
        else {
            return Err(Error::new(ErrorKind::Unsupported, "the UNet has no transformer that looks at a context"));
        };
        let (_, context) = matrix(&first.at("transformer_blocks.0.attn2.to_k"))?;
        let convolutions = first.shape("proj_in.weight")?.len() == 4;
        let rule = match stated(config) {
            Some(rule) => rule,
            None if convolutions && !weights.has("add_embedding.linear_1.weight") => Rule::Count(8),
            None => Rule::Width(64),
        };
        Ok(Self { rule, context })
    }

    /// Heads of a transformer with this many channels.
    fn of(&self, channels: usize, path: &str) -> Result<usize> {
        let heads = match &self.rule {
            Rule::Count(heads) => *heads,
            Rule::Width(width) => channels / width,
            Rule::Stated(levels) => levels.iter().find(|(own, _)| *own == channels).map_or(0, |(_, heads)| *heads),
        };
        if heads == 0 || !channels.is_multiple_of(heads) {
            return Err(Error::new(ErrorKind::InvalidFile, "the transformer's channels do not divide into heads")
                .expected("8 heads (SD1.x), heads of width 64 (SD2.x, SDXL), or what a config.json states")
                .found(format!("{channels} channels at `{path}`"))
                .remedy("put the model's config.json beside the weights"));
        }
        Ok(heads)
    }
}

/// diffusers' `num_attention_heads`, or its `attention_head_dim`, which by an old mistake is the number of heads, too.
fn stated(config: Option<&Value>) -> Option<Rule> {
    let config = config?;
    let value = [&config["num_attention_heads"], &config["attention_head_dim"]].into_iter().find(|v| !v.is_null())?;
    let number = |value: &Value| value.as_u64().map(|number| number as usize);
    if let Some(heads) = number(value) {
        return Some(Rule::Count(heads));
    }
    let channels = config["block_out_channels"].as_array()?.iter().map(number);
    channels
        .zip(value.as_array()?.iter().map(number))
        .map(|(channels, heads)| Some((channels?, heads?)))
        .collect::<Option<Vec<_>>>()
        .map(Rule::Stated)
}

/// GroupNorm, a projection in, transformer blocks, a projection out, and the input added.
pub(super) struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Linear,
    blocks: Vec<Block>,
    proj_out: Linear,
}

impl SpatialTransformer {
    pub(super) fn load(weights: &Weights, channels: usize, heads: &Heads) -> Result<Self> {
        let blocks = weights.at("transformer_blocks");
        let (inner, _) = matrix(&weights.at("proj_in"))?;
        let count = heads.of(inner, weights.path())?;
        let block = |index| Block::load(&blocks.at(index), inner, count, heads.context);
        Ok(Self {
            norm: GroupNorm::load(&weights.at("norm"), channels, super::GROUPS, EPS)?,
            proj_in: Linear::load(&weights.at("proj_in"), channels, inner)?,
            blocks: (0..blocks.count("norm1.weight")).map(block).collect::<Result<_>>()?,
            proj_out: Linear::load(&weights.at("proj_out"), inner, channels)?,
        })
    }

    /// `x` `[b, h, w, channels]`, `context` `[b, tokens, width]` → as `x`.
    pub(super) fn forward(&self, x: Tensor, context: &Tensor, pass: &Pass) -> Result<Tensor> {
        let normed = self.norm.forward(&x, pass)?;
        let mut hidden = self.proj_in.forward(&normed, pass)?;
        pass.recycle(normed);
        for block in &self.blocks {
            hidden = block.forward(hidden, context, pass)?;
        }
        let y = self.proj_out.forward_with(&hidden, onto(&x), pass)?;
        pass.recycle(hidden);
        pass.recycle(x);
        pass.step()?;
        Ok(y)
    }
}

/// Self-attention, attention to the context and a gated feed-forward, each normed before and added after.
struct Block {
    norm1: RowNorm,
    attn1: Attention,
    norm2: RowNorm,
    attn2: Attention,
    norm3: RowNorm,
    widen: Linear,
    narrow: Linear,
}

impl Block {
    fn load(weights: &Weights, channels: usize, heads: usize, context: usize) -> Result<Self> {
        let norm = |name| RowNorm::layer_norm(&weights.at(name), channels, LAYER_EPS);
        let (widen, narrow) = (weights.at("ff.net.0.proj"), weights.at("ff.net.2"));
        let (_, hidden) = matrix(&narrow)?;
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: Attention::load(&weights.at("attn1"), channels, channels, heads)?,
            norm2: norm("norm2")?,
            attn2: Attention::load(&weights.at("attn2"), channels, context, heads)?,
            norm3: norm("norm3")?,
            widen: Linear::load(&widen, channels, 2 * hidden)?,
            narrow: Linear::load(&narrow, hidden, channels)?,
        })
    }

    fn forward(&self, x: Tensor, context: &Tensor, pass: &Pass) -> Result<Tensor> {
        let normed = self.norm1.forward(&x, pass)?;
        let x = self.attn1.forward(x, &normed, &normed, pass)?;
        pass.recycle(normed);

        let normed = self.norm2.forward(&x, pass)?;
        let x = self.attn2.forward(x, &normed, context, pass)?;
        pass.recycle(normed);

        let normed = self.norm3.forward(&x, pass)?;
        let wide = self.widen.forward(&normed, pass)?;
        pass.recycle(normed);
        let gated = geglu(&wide, pass)?;
        pass.recycle(wide);
        let y = self.narrow.forward_with(&gated, onto(&x), pass)?;
        pass.recycle(gated);
        pass.recycle(x);
        Ok(y)
    }
}

/// Names: `to_q`, `to_k`, `to_v`, `to_out.0`.
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: usize,
}

impl Attention {
    fn load(weights: &Weights, channels: usize, context: usize, heads: usize) -> Result<Self> {
        Ok(Self {
            q: Linear::load(&weights.at("to_q"), channels, channels)?,
            k: Linear::load(&weights.at("to_k"), context, channels)?,
            v: Linear::load(&weights.at("to_v"), context, channels)?,
            out: Linear::load(&weights.at("to_out.0"), channels, channels)?,
            heads,
        })
    }

    /// `x` plus what `queries` find in `source`.
    fn forward(&self, x: Tensor, queries: &Tensor, source: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (q, k, v) = (self.q.forward(queries, pass)?, self.k.forward(source, pass)?, self.v.forward(source, pass)?);
        let mixed = attention(&q, &k, &v, AttentionCall::heads(self.heads), pass)?;
        [q, k, v].into_iter().for_each(|tensor| pass.recycle(tensor));
        let y = self.out.forward_with(&mixed, onto(&x), pass)?;
        pass.recycle(mixed);
        pass.recycle(x);
        Ok(y)
    }
}

/// Adds the result to `x`.
fn onto(x: &Tensor) -> LinearCall<'_> {
    LinearCall { residual: Some(x), ..LinearCall::default() }
}
