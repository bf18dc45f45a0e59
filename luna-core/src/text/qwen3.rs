//! Qwen3 as a text encoder: a causal transformer with rotary positions, grouped queries, norms on queries and keys, and
//! SwiGLU. Enters: a checkpoint, then token embeddings. Leaves: encodings. It must not know prompts.
//!
//! Source: transformers' `Qwen3Model`.

use super::wish::{Batch, Hidden, Wish};
use crate::{
    Error, ErrorKind, Result,
    nn::{
        Activation, AttentionCall, Embedding, GatedMlp, Linear, LinearCall, Pass, RotaryLayout, RotaryTable, RowNorm,
        Tensor, Weights, attention,
    },
};
use luna_kernels::AttentionMask;
use serde_json::Value;

const EPS: f32 = 1e-6;
/// Base of the rotary angles of every Qwen3.
const ROTARY_BASE: f32 = 1e6;
/// Bytes of an attention mask that a call may ask for.
const MOST_MASK_BYTES: u64 = 2 << 30;

/// Layers of a Qwen3.
pub(super) struct Qwen3 {
    pub(super) table: Embedding,
    blocks: Vec<Block>,
    final_norm: Option<RowNorm>,
    rotary_base: f32,
    head: usize,
}

struct Block {
    norm1: RowNorm,
    q: TurnedHeads,
    k: TurnedHeads,
    v: Linear,
    out: Linear,
    norm2: RowNorm,
    mlp: GatedMlp,
}

/// Queries or keys: projected, each head normed and turned to its place.
struct TurnedHeads {
    linear: Linear,
    norm: RowNorm,
    heads: usize,
}

/// What all layers of one pass share.
#[derive(Clone, Copy)]
struct Places<'a> {
    rotary: &'a RotaryTable,
    mask: AttentionMask<'a>,
}

impl Qwen3 {
    /// Loads it from transformers' names, with sizes from the weights. The final norm may be missing.
    pub(super) fn load(weights: &Weights, config: Option<&Value>) -> Result<Self> {
        let table = Embedding::load(&weights.at("embed_tokens"))?;
        let width = table.channels();
        let number = |value: &Value| value.as_f64().map(|number| number as f32);
        let eps = config.and_then(|config| number(&config["rms_norm_eps"])).unwrap_or(EPS);
        let rotary_base = config
            .and_then(|config| number(&config["rope_theta"]).or(number(&config["rope_parameters"]["rope_theta"])))
            .unwrap_or(ROTARY_BASE);
        let layers = weights.at("layers");
        let head = layers.at("0.self_attn.q_norm").shape("weight")?.iter().product();
        let blocks = (0..layers.count("input_layernorm.weight"))
            .map(|layer| Block::load(&layers.at(layer), width, head, eps))
            .collect::<Result<_>>()?;
        let norm = weights.at("norm");
        let final_norm = norm.has("weight").then(|| RowNorm::rms_norm(&norm, width, eps)).transpose()?;
        Ok(Self { table, blocks, final_norm, rotary_base, head })
    }

    pub(super) fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// `batch` is causal, so padding at its end changes nothing before it.
    pub(super) fn forward(&self, batch: Batch, wish: Wish, pass: &Pass) -> Result<Hidden> {
        let (run, kept) = wish.layers(self.blocks.len());
        let tokens = batch.x.dim(1)?;
        let layout = RotaryLayout::HalfSplit;
        let rotary = RotaryTable::of_positions(tokens, self.head, self.rotary_base, layout, batch.x.device())?;
        let hidden = batch.visible.map(|visible| causal_and_visible(&visible, tokens)).transpose()?;
        let mask = match &hidden {
            Some(data) => AttentionMask::Additive { data, batch_stride: tokens * tokens, head_stride: 0 },
            None => AttentionMask::Causal,
        };
        let places = Places { rotary: &rotary, mask };
        let mut x = batch.x;
        for block in &self.blocks[..run] {
            x = block.forward(x, places, pass)?;
        }
        let encoding = match &self.final_norm {
            Some(norm) if kept.is_none() || wish.norm_inner => norm.forward(&x, pass)?,
            _ => x,
        };
        Ok(Hidden { encoding, last: None })
    }
}

/// A mask `[sequences, tokens, tokens]` that hides later keys and those that are not visible.
fn causal_and_visible(visible: &[bool], tokens: usize) -> Result<Vec<f32>> {
    let bytes = (visible.len() as u64).saturating_mul(tokens as u64).saturating_mul(4);
    crate::limits::check_at_most("bytes of an attention mask", bytes, MOST_MASK_BYTES)
        .map_err(|error| error.remedy("shorten the prompt"))?;
    let sees = |row: &[bool], query: usize, key: usize| if key <= query && row[key] { 0.0 } else { f32::NEG_INFINITY };
    let rows = visible.chunks_exact(tokens);
    Ok(rows
        .flat_map(|row| (0..tokens).flat_map(move |query| (0..tokens).map(move |key| sees(row, query, key))))
        .collect())
}

impl Block {
    fn load(weights: &Weights, width: usize, head: usize, eps: f32) -> Result<Self> {
        let attention = weights.at("self_attn");
        let rows = |name| Ok::<_, Error>(attention.at(name).shape("weight")?[0]);
        let (queries, keys) = (rows("q_proj")?, rows("k_proj")?);
        let (heads, kv_heads) = (queries / head.max(1), keys / head.max(1));
        if heads * head != queries || kv_heads * head != keys || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(Error::new(
                ErrorKind::InvalidFile,
                "the attention of this Qwen3 does not divide into its heads",
            )
            .expected(format!("queries a multiple of keys, both of {head}"))
            .found(format!("{queries} and {keys}")));
        }
        let norm = |name, channels| RowNorm::rms_norm(&weights.at(name), channels, eps);
        let names = ["gate_proj", "up_proj", "down_proj"];
        Ok(Self {
            norm1: norm("input_layernorm", width)?,
            q: TurnedHeads {
                linear: Linear::load(&attention.at("q_proj"), width, queries)?,
                norm: norm("self_attn.q_norm", head)?,
                heads,
            },
            k: TurnedHeads {
                linear: Linear::load(&attention.at("k_proj"), width, keys)?,
                norm: norm("self_attn.k_norm", head)?,
                heads: kv_heads,
            },
            v: Linear::load(&attention.at("v_proj"), width, keys)?,
            out: Linear::load(&attention.at("o_proj"), queries, width)?,
            norm2: norm("post_attention_layernorm", width)?,
            mlp: GatedMlp::load(&weights.at("mlp"), names, width, Activation::Silu)?,
        })
    }

    fn forward(&self, x: Tensor, places: Places, pass: &Pass) -> Result<Tensor> {
        let normed = self.norm1.forward(&x, pass)?;
        let q = self.q.turned(&normed, places, pass)?;
        let k = self.k.turned(&normed, places, pass)?;
        let v = self.v.forward(&normed, pass)?;
        pass.recycle(normed);
        let call = AttentionCall { heads: self.q.heads, kv_heads: self.k.heads, scale: None, mask: places.mask };
        let mixed = attention(&q, &k, &v, call, pass)?;
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

impl TurnedHeads {
    /// `[b, tokens, channels]` → `[b, tokens, heads·head]`.
    fn turned(&self, x: &Tensor, places: Places, pass: &Pass) -> Result<Tensor> {
        let projected = self.linear.forward(x, pass)?;
        let (batch, tokens, width) = projected.dims3()?;
        let normed = self.norm.forward(&projected.reshape((batch, tokens, self.heads, width / self.heads))?, pass)?;
        pass.recycle(projected);
        places.rotary.rotate(normed.reshape((batch, tokens, width))?, self.heads)
    }
}
