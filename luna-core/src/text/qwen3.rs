//! Qwen3 as a text encoder: a causal transformer with rotary positions, grouped queries, norms on queries and keys, and
//! SwiGLU. Enters: a checkpoint, then token embeddings. Leaves: encodings. It must not know prompts.
//!
//! Source: transformers' `Qwen3Model`.

use super::wish::{Batch, Hidden, Wish};
use crate::{
    Result,
    nn::{
        DecoderBlock, DecoderBlockCall, DecoderBlockSpec, Embedding, Pass, RotaryLayout, RotaryTable, RowNorm, Weights,
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
    blocks: Vec<DecoderBlock>,
    final_norm: Option<RowNorm>,
    rotary_base: f32,
    head: usize,
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
            .map(|layer| DecoderBlock::load(&layers.at(layer), DecoderBlockSpec { width, head, eps }))
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
        let call = DecoderBlockCall { rotary: &rotary, mask };
        let mut x = batch.x;
        for block in &self.blocks[..run] {
            x = block.forward(x, call, None, pass)?;
        }
        let encoding = match &self.final_norm {
            Some(norm) if kept.is_none() || wish.norm_inner => norm.forward(&x, pass)?,
            _ => x,
        };
        Ok(Hidden { encoding, pooled: None })
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
