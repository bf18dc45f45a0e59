//! The language model of a VLM: token embeddings through decoder blocks to logits. Enters: embeddings and angles, with
//! the cache of what came before. Leaves: logits. It must not know text or pictures.

use crate::{
    Error, ErrorKind, Precision, Result,
    nn::{
        DecoderBlock, DecoderBlockCall, DecoderBlockSpec, Embedding, KvCache, Linear, Pass, RotaryTable, RowNorm,
        Tensor, Weights, add,
    },
};
use luna_kernels::AttentionMask;
use serde_json::Value;

/// Layers of a decoder.
pub(super) struct Decoder {
    pub(super) table: Embedding,
    blocks: Vec<DecoderBlock>,
    norm: RowNorm,
    logits: Linear,
    /// Width of a head.
    pub(super) head: usize,
    /// Base of the rotary angles.
    pub(super) rotary_base: f32,
    /// Tokens it was trained for.
    pub(super) context: usize,
}

/// What the decoder of a family has where `config.json` does not say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usual {
    pub(super) eps: f32,
    pub(super) rotary_base: f32,
    pub(super) context: usize,
}

impl Decoder {
    /// Loads it from `language_model.*` and `lm_head`; a model without the latter uses its token embeddings.
    pub(super) fn load(weights: &Weights, config: Option<&Value>, usual: Usual) -> Result<Self> {
        let model = weights.at("language_model");
        let table = Embedding::load(&model.at("embed_tokens"))?;
        let width = table.channels();
        let number = |value: &Value| value.as_f64();
        let stated = |name: &str| config.and_then(|config| number(&config[name]));
        let eps = stated("rms_norm_eps").map_or(usual.eps, |eps| eps as f32);
        let nested = config.and_then(|config| number(&config["rope_parameters"]["rope_theta"]));
        let rotary_base = stated("rope_theta").or(nested).map_or(usual.rotary_base, |base| base as f32);
        let context = stated("max_position_embeddings").map_or(usual.context, |tokens| tokens as usize);
        let layers = model.at("layers");
        let count = layers.count("input_layernorm.weight");
        check_stated(config, "hidden_size", width)?;
        check_stated(config, "num_hidden_layers", count)?;
        let head = head_width(&layers, config, width)?;
        let spec = DecoderBlockSpec { width, head, eps };
        let blocks = (0..count).map(|layer| DecoderBlock::load(&layers.at(layer), spec)).collect::<Result<Vec<_>>>()?;
        let own = weights.at("lm_head");
        let logits =
            if own.has("weight") { Linear::load(&own, width, own.shape("weight")?[0])? } else { Linear::tied(&table) };
        let norm = RowNorm::rms_norm(&model.at("norm"), width, eps)?;
        Ok(Self { table, blocks, norm, logits, head, rotary_base, context })
    }

    pub(super) fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// Number of logits.
    pub(super) fn vocabulary(&self) -> usize {
        self.logits.outputs()
    }

    /// The embeddings of ids, `[1, ids, width]`.
    pub(super) fn embed(&self, ids: &[u32], precision: Precision, pass: &Pass) -> Result<Tensor> {
        Ok(self.table.forward(ids, precision, pass)?.unsqueeze(0)?)
    }

    /// `x` `[1, tokens, width]` behind what the cache holds → the last tokens' logits `[rows, vocabulary]` in f32.
    pub(super) fn forward(&self, x: Tensor, step: Step, cache: &mut KvCache, pass: &Pass) -> Result<Tensor> {
        let tokens = x.dim(1)?;
        let call = DecoderBlockCall { rotary: step.rotary, mask: AttentionMask::Causal };
        let mut x = x;
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, call, Some(cache.layer(index)), pass)?;
            if let Some(deep) = step.deep.get(index) {
                x = add(x, deep, pass)?;
            }
        }
        let last = x.narrow(1, tokens - step.rows, step.rows)?.contiguous()?;
        let normed = self.norm.forward(&last, pass)?;
        let logits = self.logits.forward(&normed, pass)?;
        Ok(logits.squeeze(0)?.to_dtype(candle_core::DType::F32)?)
    }
}

/// What besides embeddings goes into one pass.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) rotary: &'a RotaryTable,
    /// Added after the first layers, `[1, tokens, width]` each.
    pub(super) deep: &'a [Tensor],
    /// How many tokens' logits are wanted, counted from the end.
    pub(super) rows: usize,
}

/// What norms of heads say, else what is stated.
fn head_width(layers: &Weights, config: Option<&Value>, width: usize) -> Result<usize> {
    let norm = layers.at("0.self_attn.q_norm");
    if norm.has("weight") {
        return Ok(norm.shape("weight")?.iter().product());
    }
    let number = |name: &str| config.and_then(|config| config[name].as_u64()).map(|number| number as usize);
    match (number("head_dim"), number("num_attention_heads")) {
        (Some(head), _) if head > 0 => Ok(head),
        (_, Some(heads)) if heads > 0 && width.is_multiple_of(heads) => Ok(width / heads),
        // Every Llama from 7B on.
        _ if width >= 4096 => Ok(128),
        _ => Err(Error::new(ErrorKind::InvalidFile, "the width of the attention heads is not known")
            .expected("`head_dim` or `num_attention_heads` in config.json")
            .remedy("put the config.json of the model beside its weights")),
    }
}

/// Refuses weights of another size than `config.json` states.
pub(super) fn check_stated(config: Option<&Value>, name: &str, found: usize) -> Result<()> {
    match config.and_then(|config| config[name].as_u64()) {
        Some(stated) if stated != found as u64 => {
            Err(Error::new(ErrorKind::InvalidFile, format!("config.json and the weights disagree on `{name}`"))
                .expected(format!("{stated}, as config.json states"))
                .found(format!("{found} in the weights"))
                .remedy("put the config.json of this very model beside its weights"))
        }
        _ => Ok(()),
    }
}
