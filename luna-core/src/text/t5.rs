//! The encoder of T5 v1.1: RMS norms, attention with learned biases by relative position and no scaling, gated GELU.
//! Enters: a checkpoint, then token embeddings. Leaves: encodings. It must not know prompts.
//!
//! Source: google-research/text-to-text-transfer-transformer, transformers' `T5EncoderModel`.

use super::wish::{Batch, Hidden, Wish};
use crate::{
    Error, ErrorKind, Precision, Result,
    nn::{
        Activation, BlockTail, Embedding, EncoderBlock, EncoderBlockCall, FeedForward, GatedMlp, Linear, Pass, RowNorm,
        Weights,
    },
};
use luna_kernels::AttentionMask;
use serde_json::Value;

const EPS: f32 = 1e-6;
/// From this distance on all positions count as equally far.
const FARTHEST: usize = 128;
/// Bytes of attention biases that a call may ask for; 64 heads reach it at 2896 tokens.
const MOST_BIAS_BYTES: u64 = 2 << 30;

/// Layers of a T5 encoder.
pub(super) struct T5 {
    pub(super) table: Embedding,
    /// `[buckets, heads]`.
    distances: Embedding,
    farthest: usize,
    blocks: Vec<EncoderBlock>,
    final_norm: RowNorm,
}

impl T5 {
    /// Loads it from transformers' names, with sizes from the weights.
    pub(super) fn load(weights: &Weights, config: Option<&Value>) -> Result<Self> {
        let table = Embedding::load(&weights.at("shared"))?;
        let blocks = weights.at("encoder.block");
        let attention = |block: usize| blocks.at(block).at("layer.0.SelfAttention");
        if attention(1).has("relative_attention_bias.weight") {
            return Err(unsupported("a UMT5, with position biases in every layer"));
        }
        if blocks.at("0.layer.1.DenseReluDense").has("wi.weight") {
            return Err(unsupported("a T5 v1.0, whose feed-forward blocks are not gated"));
        }
        let distances = Embedding::load(&attention(0).at("relative_attention_bias"))?;
        let width = table.channels();
        let eps = config.and_then(|config| config["layer_norm_epsilon"].as_f64()).map_or(EPS, |eps| eps as f32);
        let stated = config.and_then(|config| config["relative_attention_max_distance"].as_u64());
        let farthest = stated.map_or(FARTHEST, |farthest| farthest as usize);
        // Two directions, half of each for single distances, and at least one for longer ones.
        if distances.entries() < 4 || farthest <= distances.entries() / 4 {
            return Err(Error::new(ErrorKind::InvalidFile, "the relative positions of this T5 make no sense")
                .expected("at least 4 buckets, and a longest distance beyond a quarter of them")
                .found(format!("{} buckets up to distance {farthest}", distances.entries())));
        }
        let heads = distances.channels();
        let blocks = (0..blocks.count("layer.0.layer_norm.weight"))
            .map(|block| block_of(&blocks.at(block), width, heads, eps))
            .collect::<Result<_>>()?;
        let final_norm = RowNorm::rms_norm(&weights.at("encoder.final_layer_norm"), width, eps)?;
        Ok(Self { table, distances, farthest, blocks, final_norm })
    }

    pub(super) fn layers(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn forward(&self, batch: Batch, wish: Wish, pass: &Pass) -> Result<Hidden> {
        let (run, kept) = wish.layers(self.blocks.len());
        let tokens = batch.x.dim(1)?;
        let biases = self.biases(tokens, &batch, pass)?;
        let square = tokens * tokens;
        let mask = AttentionMask::Additive {
            data: &biases,
            batch_stride: if biases.len() > self.heads() * square { self.heads() * square } else { 0 },
            head_stride: square,
        };
        let mut x = batch.x;
        for block in &self.blocks[..run] {
            x = block.forward(x, EncoderBlockCall { mask, rotary: None }, pass)?;
        }
        let encoding = if kept.is_none() || wish.norm_inner { self.final_norm.forward(&x, pass)? } else { x };
        Ok(Hidden { encoding, pooled: None })
    }

    fn heads(&self) -> usize {
        self.distances.channels()
    }

    /// What is added to the scores: `[heads, tokens, tokens]` for all sequences, or that for each of them where what
    /// may be looked at differs.
    fn biases(&self, tokens: usize, batch: &Batch, pass: &Pass) -> Result<Vec<f32>> {
        let (heads, sequences) = (self.heads(), batch.lengths.len());
        let whole = batch.visible.is_none() && batch.lengths.iter().all(|&length| length == tokens);
        let copies = if whole { 1 } else { sequences };
        let bytes = [copies, heads, tokens, tokens, 4].iter().fold(1u64, |n, &side| n.saturating_mul(side as u64));
        crate::limits::check_at_most("bytes of attention biases", bytes, MOST_BIAS_BYTES)
            .map_err(|error| error.remedy("shorten the prompt; T5 was taught with 512 tokens at most"))?;
        // By distance from query to key, −(tokens − 1) first.
        let span = 2 * tokens - 1;
        let buckets: Vec<u32> = (0..span)
            .map(|at| bucket(at as i64 - (tokens as i64 - 1), self.distances.entries(), self.farthest) as u32)
            .collect();
        let by_distance: Vec<f32> = self.distances.forward(&buckets, Precision::F32, pass)?.flatten_all()?.to_vec1()?;
        let by_head: Vec<Vec<f32>> =
            (0..heads).map(|head| by_distance.iter().skip(head).step_by(heads).copied().collect()).collect();
        let mut biases = Vec::with_capacity(copies * heads * tokens * tokens);
        for sequence in 0..copies {
            let sees = |key: usize| {
                whole
                    || key < batch.lengths[sequence]
                        && batch.visible.as_ref().is_none_or(|visible| visible[sequence * tokens + key])
            };
            let hidden: Vec<usize> = (0..tokens).filter(|&key| !sees(key)).collect();
            for line in &by_head {
                for query in 0..tokens {
                    let row = biases.len();
                    biases.extend_from_slice(&line[tokens - 1 - query..][..tokens]);
                    hidden.iter().for_each(|key| biases[row + key] = f32::NEG_INFINITY);
                }
            }
        }
        Ok(biases)
    }
}

/// The bucket of a distance from query to key: half of them for keys behind the query, of each half the first half for
/// single distances and the rest for ever longer ranges up to `farthest`.
fn bucket(distance: i64, buckets: usize, farthest: usize) -> usize {
    let half = buckets / 2;
    let base = if distance > 0 { half } else { 0 };
    let distance = distance.unsigned_abs() as usize;
    let single = half / 2;
    if distance < single {
        return base + distance;
    }
    // In f32 as the models were trained.
    let log = (distance as f32 / single as f32).ln() / (farthest as f64 / single as f64).ln() as f32;
    base + (single + (log * (half - single) as f32) as usize).min(half - 1)
}

fn block_of(weights: &Weights, width: usize, heads: usize, eps: f32) -> Result<EncoderBlock> {
    let attention = weights.at("layer.0.SelfAttention");
    let inner = attention.at("q").shape("weight")?[0];
    if !inner.is_multiple_of(heads) {
        return Err(Error::new(ErrorKind::InvalidFile, "the attention of this T5 does not divide into its heads")
            .expected(format!("a multiple of {heads}"))
            .found(inner.to_string()));
    }
    let to_inner = |name| Linear::load(&attention.at(name), width, inner);
    let norm = |name| RowNorm::rms_norm(&weights.at(name), width, eps);
    let mlp = weights.at("layer.1.DenseReluDense");
    Ok(EncoderBlock {
        norm: norm("layer.0.layer_norm")?,
        q: to_inner("q")?,
        k: to_inner("k")?,
        v: to_inner("v")?,
        heads,
        scale: Some(1.0),
        tail: BlockTail {
            out: Linear::load(&attention.at("o"), inner, width)?,
            norm: norm("layer.1.layer_norm")?,
            mlp: FeedForward::Gated(GatedMlp::load(&mlp, ["wi_0", "wi_1", "wo"], width, Activation::GeluTanh)?),
        },
    })
}

fn unsupported(found: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "this is not the T5 that Flux and SD3 listen to")
        .expected("a T5 v1.1 encoder")
        .found(found)
}

#[cfg(test)]
mod tests {
    use super::bucket;

    #[test]
    fn buckets_are_those_of_the_paper() {
        let of = |distance| bucket(distance, 32, 128);
        assert_eq!(
            [0, 1, 7, 8, 11, 12, 16, 64, 90, 91, 127, 128, 10_000].map(|d: i64| of(-d)),
            [0, 1, 7, 8, 8, 9, 10, 14, 14, 15, 15, 15, 15]
        );
        assert_eq!([1, 8, 128].map(of), [17, 24, 31]);
    }
}
