//! The CLIP text encoder: a causal transformer with learned positions. Enters: a checkpoint, then token embeddings.
//! Leaves: encodings and the text projection. It must not know prompts or which diffusion model listens.
//!
//! Source: openai/CLIP, open_clip.

use super::wish::{Batch, Hidden, Pooling, Wish};
use crate::{
    Error, ErrorKind, Result,
    nn::{
        Activation, Embedding, EncoderBlock, EncoderBlockCall, EncoderBlockSpec, Linear, Pass, RowNorm, Tensor,
        Weights, tokens_at,
    },
};
use luna_kernels::AttentionMask;
use serde_json::Value;

/// The width of a head in every CLIP text encoder known.
const HEAD: usize = 64;
const EPS: f32 = 1e-5;
/// Tokens of a chunk.
pub(super) const CHUNK: usize = 77;

/// The activation between the two layers of a CLIP's feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClipActivation {
    /// `x · sigmoid(1.702 x)`: OpenAI's models.
    QuickGelu,
    /// The exact GELU: OpenCLIP's models.
    Gelu,
}

impl ClipActivation {
    /// What a `config.json` calls `hidden_act`.
    fn named(name: &str) -> Option<Self> {
        match name {
            "quick_gelu" => Some(Self::QuickGelu),
            "gelu" => Some(Self::Gelu),
            _ => None,
        }
    }

    /// What a `config.json` states.
    pub(super) fn stated(config: &Value) -> Result<Option<Self>> {
        let Some(name) = config["hidden_act"].as_str() else { return Ok(None) };
        Self::named(name).map(Some).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "config.json names an activation that no CLIP is known to have")
                .expected("quick_gelu or gelu")
                .found(name)
        })
    }
}

/// Layers of a CLIP text encoder.
pub(super) struct Clip {
    pub(super) table: Embedding,
    positions: Embedding,
    blocks: Vec<EncoderBlock>,
    final_norm: RowNorm,
    pub(super) projection: Option<Linear>,
}

impl Clip {
    /// Loads it from transformers' names, with sizes from the weights: heads of 64 unless `config` states their number.
    pub(super) fn load(weights: &Weights, config: Option<&Value>, activation: ClipActivation) -> Result<Self> {
        let model = weights.at("text_model");
        let table = Embedding::load(&model.at("embeddings.token_embedding"))?;
        let positions = Embedding::load(&model.at("embeddings.position_embedding"))?;
        let width = table.channels();
        check_positions(&positions, width)?;
        let heads = heads(width, config)?;
        let activation = match activation {
            ClipActivation::QuickGelu => Activation::QuickGelu,
            ClipActivation::Gelu => Activation::Gelu,
        };
        let spec = EncoderBlockSpec { width, heads, eps: EPS, activation };
        let layers = model.at("encoder.layers");
        let blocks = (0..layers.count("layer_norm1.weight"))
            .map(|layer| EncoderBlock::load(&layers.at(layer), spec))
            .collect::<Result<_>>()?;
        let final_norm = RowNorm::layer_norm(&model.at("final_layer_norm"), width, EPS)?;
        let projection = weights.at("text_projection");
        let projection = if projection.has("weight") {
            let outputs = projection.shape("weight")?[0];
            Some(Linear::load(&projection, width, outputs)?)
        } else {
            None
        };
        Ok(Self { table, positions, blocks, final_norm, projection })
    }

    pub(super) fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// The position embeddings of the first `tokens` places, `[tokens, channels]` in f32.
    pub(super) fn positions(&self, tokens: usize, pass: &Pass) -> Result<Tensor> {
        if tokens > self.positions.entries() {
            return Err(Error::new(ErrorKind::InvalidInput, "a sequence is too long for CLIP")
                .expected(format!("at most {} tokens", self.positions.entries()))
                .found(tokens.to_string())
                .remedy("cut it into chunks of 77 tokens"));
        }
        let places: Vec<u32> = (0..tokens as u32).collect();
        self.positions.forward(&places, crate::Precision::F32, pass)
    }

    /// `batch` is causal, so padding at its end changes nothing before it.
    pub(super) fn forward(&self, batch: Batch, wish: Wish, pass: &Pass) -> Result<Hidden> {
        let (run, inner) = wish.layers(self.blocks.len());
        let kept = inner.unwrap_or(run);
        let call = EncoderBlockCall { mask: AttentionMask::Causal, rotary: None };
        let forward = |x: Tensor, block: &EncoderBlock| block.forward(x, call, pass);
        let x = self.blocks[..kept].iter().try_fold(batch.x, forward)?;
        let norm = |x: &Tensor| self.final_norm.forward(x, pass);
        let pooled = match self.blocks[kept..run].split_last() {
            // Of the last layer only the tokens that stand for their sequences are wanted.
            Some((last, between)) => {
                let y = between.iter().try_fold(x.copy()?, forward)?;
                Some(last.forward_tokens(y, &batch.pooled, pass)?)
            }
            None if wish.pooling == Pooling::None => None,
            None => Some(tokens_at(&x, &batch.pooled)?),
        };
        let pooled = pooled.map(|rows| Ok::<_, Error>(norm(&rows)?.squeeze(1)?)).transpose()?;
        let encoding = if inner.is_none() || wish.norm_inner { norm(&x)? } else { x };
        Ok(Hidden { encoding, pooled })
    }
}

/// One position embedding for each token of a chunk, as long as a token embedding.
fn check_positions(positions: &Embedding, width: usize) -> Result<()> {
    if positions.channels() != width {
        return Err(Error::new(ErrorKind::InvalidFile, "token and position embeddings differ in width")
            .expected(width.to_string())
            .found(positions.channels().to_string()));
    }
    if positions.entries() != CHUNK {
        return Err(Error::new(ErrorKind::Unsupported, "this CLIP takes chunks of another length")
            .expected("77 position embeddings")
            .found(positions.entries().to_string()));
    }
    Ok(())
}

fn heads(width: usize, config: Option<&Value>) -> Result<usize> {
    let stated = config.and_then(|config| config["num_attention_heads"].as_u64());
    let heads = stated.map_or(width / HEAD, |heads| heads as usize);
    if heads == 0 || !width.is_multiple_of(heads) {
        return Err(Error::new(ErrorKind::InvalidFile, "the width of this CLIP is no multiple of its heads")
            .expected(match stated {
                Some(heads) => format!("a multiple of {heads}, as config.json states"),
                None => "a multiple of 64, the width of a head in every known CLIP".into(),
            })
            .found(width.to_string())
            .remedy("put the config.json of the model beside its weights"));
    }
    Ok(heads)
}
