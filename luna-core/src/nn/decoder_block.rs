//! The block of decoder language models: causal attention with rotary positions and grouped queries, then a gated
//! feed-forward block, both behind RMS norms. Qwen3 norms each head's queries and keys besides, Llama does not.
//!
//! Source: transformers' `Qwen3DecoderLayer` and `LlamaDecoderLayer`.

use super::{
    Activation, AttentionCall, BlockTail, FeedForward, GatedMlp, Linear, Pass, RotaryTable, RowNorm, Tensor, Weights,
    attention, kv_cache::LayerCache,
};
use crate::{Error, ErrorKind, Result};
use luna_kernels::AttentionMask;

/// What the weights of a block do not say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DecoderBlockSpec {
    pub(crate) width: usize,
    /// Width of a head.
    pub(crate) head: usize,
    pub(crate) eps: f32,
}

/// What the blocks of one pass share.
#[derive(Clone, Copy)]
pub(crate) struct DecoderBlockCall<'a> {
    pub(crate) rotary: &'a RotaryTable,
    pub(crate) mask: AttentionMask<'a>,
}

/// A frozen block. Names: `input_layernorm`, `self_attn.{q,k,v,o}_proj`, `self_attn.{q,k}_norm` where there are any,
/// `post_attention_layernorm`, `mlp.{gate,up,down}_proj`.
pub(crate) struct DecoderBlock {
    norm: RowNorm,
    q: TurnedHeads,
    k: TurnedHeads,
    v: Linear,
    tail: BlockTail,
}

/// Queries or keys: projected, each head normed where the model does so, and turned to its place.
struct TurnedHeads {
    linear: Linear,
    norm: Option<RowNorm>,
    heads: usize,
}

impl DecoderBlock {
    pub(crate) fn load(weights: &Weights, spec: DecoderBlockSpec) -> Result<Self> {
        let DecoderBlockSpec { width, head, eps } = spec;
        let attention = weights.at("self_attn");
        let rows = |name| Ok::<_, Error>(attention.at(name).shape("weight")?[0]);
        let (queries, keys) = (rows("q_proj")?, rows("k_proj")?);
        let (heads, kv_heads) = (queries / head.max(1), keys / head.max(1));
        if heads * head != queries || kv_heads * head != keys || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(Error::new(
                ErrorKind::InvalidFile,
                "the attention of this model does not divide into its heads",
            )
            .expected(format!("queries a multiple of keys, both of {head}"))
            .found(format!("{queries} and {keys}")));
        }
        let norm = |name, channels| RowNorm::rms_norm(&weights.at(name), channels, eps);
        let turned = |name: &str, outputs, heads| {
            let own = attention.at(format!("{name}_norm"));
            Ok::<_, Error>(TurnedHeads {
                linear: Linear::load(&attention.at(format!("{name}_proj")), width, outputs)?,
                norm: own.has("weight").then(|| RowNorm::rms_norm(&own, head, eps)).transpose()?,
                heads,
            })
        };
        let names = ["gate_proj", "up_proj", "down_proj"];
        Ok(Self {
            norm: norm("input_layernorm", width)?,
            q: turned("q", queries, heads)?,
            k: turned("k", keys, kv_heads)?,
            v: Linear::load(&attention.at("v_proj"), width, keys)?,
            tail: BlockTail {
                out: Linear::load(&attention.at("o_proj"), queries, width)?,
                norm: norm("post_attention_layernorm", width)?,
                mlp: FeedForward::Gated(GatedMlp::load(&weights.at("mlp"), names, width, Activation::Silu)?),
            },
        })
    }

    /// `[b, tokens, width]` → the same; counts one step. With a cache (one sequence) the tokens follow those in it.
    pub(crate) fn forward(
        &self,
        x: Tensor,
        call: DecoderBlockCall,
        cache: Option<&mut LayerCache>,
        pass: &Pass,
    ) -> Result<Tensor> {
        let normed = self.norm.forward(&x, pass)?;
        let rows = normed.dim(0)? * normed.dim(1)?;
        let [q, k] = [&self.q, &self.k].map(|heads| || heads.turned(&normed, call.rotary, pass));
        let v = || self.v.forward(&normed, pass);
        let (q, (k, v)) = pass.both(rows, q, || pass.both(rows, k, v))?;
        pass.recycle(normed);
        let how = AttentionCall { heads: self.q.heads, kv_heads: self.k.heads, scale: None, mask: call.mask };
        let mixed = match cache {
            Some(cache) => {
                let (keys, values) = cache.extend(&k, &v)?;
                attention(&q, &keys, &values, how, pass)?
            }
            None => attention(&q, &k, &v, how, pass)?,
        };
        [q, k, v].into_iter().for_each(|tensor| pass.recycle(tensor));
        self.tail.forward(x, mixed, pass)
    }
}

impl TurnedHeads {
    /// `[b, tokens, channels]` → `[b, tokens, heads·head]`.
    fn turned(&self, x: &Tensor, rotary: &RotaryTable, pass: &Pass) -> Result<Tensor> {
        let projected = self.linear.forward(x, pass)?;
        let Some(norm) = &self.norm else { return rotary.rotate(projected, self.heads) };
        let (batch, tokens, width) = projected.dims3()?;
        let normed = norm.forward(&projected.reshape((batch, tokens, self.heads, width / self.heads))?, pass)?;
        pass.recycle(projected);
        rotary.rotate(normed.reshape((batch, tokens, width))?, self.heads)
    }
}
