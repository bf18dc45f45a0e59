//! The vision transformer of CLIP and SigLIP. Enters: patches of pictures. Leaves: hidden states, pooled and projected.
//! It must not know pictures or files.
//!
//! Patches become tokens by a linear layer and learned positions; CLIP puts a class token before them and norms them
//! first; SigLIP pools with a probe that attends to all. Source: transformers' `CLIPVisionModelWithProjection` and
//! `SiglipVisionModel`.

use super::{
    VisionKind,
    encoded::{Features, States},
    size::Size,
};
use crate::{
    Error, Precision, Result,
    nn::{
        AttentionCall, Embedding, EncoderBlock, EncoderBlockCall, EncoderBlockSpec, Linear, LinearCall, Parameter,
        Pass, PlainMlp, RowNorm, Tensor, Weights, attention,
    },
};
use candle_core::DType;
use luna_kernels::AttentionMask;

/// Layers of a vision transformer.
pub(crate) struct VisionTransformer {
    pub(crate) size: Size,
    patches: Linear,
    positions: Embedding,
    class: Option<Parameter>,
    pre_norm: Option<RowNorm>,
    blocks: Vec<EncoderBlock>,
    /// Not there in files that keep only the layers that a vision-language model looks at.
    post_norm: Option<RowNorm>,
    head: Option<ProbeHead>,
    projection: Option<Linear>,
}

impl VisionTransformer {
    /// Loads it from transformers' names below `vision_model`.
    pub(crate) fn load(weights: &Weights, size: Size) -> Result<Self> {
        let Size { width, heads, patch, eps, .. } = size;
        let spec = EncoderBlockSpec { width, heads, eps, activation: size.activation.layer() };
        let embeddings = weights.at("embeddings");
        let norm = |name| RowNorm::layer_norm(&weights.at(name), width, eps);
        let is_clip = size.kind == VisionKind::Clip;
        let layers = weights.at("encoder.layers");
        let positions = Embedding::load(&embeddings.at("position_embedding"))?;
        if positions.channels() != width {
            return Err(Error::new(crate::ErrorKind::InvalidFile, "patches and positions differ in width")
                .expected(width.to_string())
                .found(positions.channels().to_string()));
        }
        let projection = weights.at("visual_projection");
        Ok(Self {
            size,
            patches: Linear::load_stored(&embeddings.at("patch_embedding"), &[width, 3, patch, patch])?,
            positions,
            class: is_clip.then(|| Parameter::load(&embeddings, "class_embedding", width)).transpose()?,
            pre_norm: is_clip.then(|| norm("pre_layrnorm")).transpose()?,
            blocks: (0..size.layers).map(|layer| EncoderBlock::load(&layers.at(layer), spec)).collect::<Result<_>>()?,
            post_norm: weights.has("post_layernorm.weight").then(|| norm("post_layernorm")).transpose()?,
            head: weights.has("head.probe").then(|| ProbeHead::load(&weights.at("head"), spec)).transpose()?,
            projection: match projection.has("weight") {
                true => Some(Linear::load(&projection, width, projection.shape("weight")?[0])?),
                false => None,
            },
        })
    }

    /// Refuses one that lacks what comes behind its layers.
    pub(super) fn check_whole(&self, weights: &Weights) -> Result<()> {
        if self.post_norm.is_none() { weights.shape("post_layernorm.weight").map(drop) } else { Ok(()) }
    }

    /// Whether it projects to where texts are embedded too, and to how many channels.
    pub(super) fn projection(&self) -> Option<usize> {
        self.projection.as_ref().map(Linear::outputs)
    }

    /// Whether it pools.
    pub(super) fn pools(&self) -> bool {
        self.class.is_some() || self.head.is_some()
    }

    /// `patches` `[batch, grid², 3·patch²]` in f32.
    pub(super) fn forward(&self, patches: Tensor, precision: Precision, pass: &Pass) -> Result<States> {
        let mut x = self.embed(patches, precision, pass)?;
        let call = EncoderBlockCall { mask: AttentionMask::None, rotary: None };
        let mut penultimate = None;
        for (done, block) in (1..).zip(&self.blocks) {
            x = block.forward(x, call, pass)?;
            if done + 1 == self.blocks.len() {
                penultimate = Some(features(&x)?);
            }
        }
        let norm = |x: &Tensor| self.post_norm.as_ref().map_or_else(|| Ok(x.clone()), |norm| norm.forward(x, pass));
        let (last, pooled) = match &self.class {
            Some(_) => {
                let class = x.narrow(1, 0, 1)?.contiguous()?;
                (x, Some(norm(&class)?.squeeze(1)?))
            }
            None => {
                let last = norm(&x)?;
                let pooled = self.head.as_ref().map(|head| head.forward(&last, pass)).transpose()?;
                (last, pooled)
            }
        };
        let embeds = match (&self.projection, &pooled) {
            (Some(projection), Some(pooled)) => Some(features(&projection.forward(pooled, pass)?)?),
            _ => None,
        };
        Ok(States {
            last: features(&last)?,
            penultimate: penultimate.unwrap_or_default(),
            pooled: pooled.as_ref().map(features).transpose()?,
            embeds,
        })
    }

    /// What comes out of the last block but `skipped`, `[batch, tokens, width]`.
    pub(crate) fn inner(&self, patches: Tensor, skipped: usize, precision: Precision, pass: &Pass) -> Result<Tensor> {
        let call = EncoderBlockCall { mask: AttentionMask::None, rotary: None };
        let run = self.blocks.len().saturating_sub(skipped);
        let x = self.embed(patches, precision, pass)?;
        self.blocks[..run].iter().try_fold(x, |x, block| block.forward(x, call, pass))
    }

    /// `[batch, tokens, width]`: patches as tokens, class token first, positions added, normed for a CLIP.
    fn embed(&self, patches: Tensor, precision: Precision, pass: &Pass) -> Result<Tensor> {
        let (batch, count, _) = patches.dims3()?;
        let width = self.size.width;
        let places: Vec<u32> = (0..self.positions.entries() as u32).collect();
        let positions = self.positions.forward(&places, precision, pass)?;
        let own = positions.narrow(0, positions.dim(0)? - count, count)?;
        let own = own.unsqueeze(0)?.broadcast_as((batch, count, width))?.contiguous()?;
        let patches = patches.to_dtype(precision.dtype())?;
        let call = LinearCall { residual: Some(&own), ..LinearCall::default() };
        let tokens = self.patches.forward_with(&patches, call, pass)?;
        let (Some(class), Some(norm)) = (&self.class, &self.pre_norm) else { return Ok(tokens) };
        let class = class.values(pass)?.to_dtype(precision.dtype())?.reshape((1, width))?;
        let class = (class + positions.narrow(0, 0, 1)?)?.unsqueeze(0)?.broadcast_as((batch, 1, width))?;
        let joined = Tensor::cat(&[class.contiguous()?, tokens], 1)?;
        norm.forward(&joined, pass)
    }
}

/// SigLIP's pooling: a learned probe attends to all tokens, then a feed-forward block.
struct ProbeHead {
    probe: Parameter,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm: RowNorm,
    mlp: PlainMlp,
    heads: usize,
}

impl ProbeHead {
    fn load(weights: &Weights, spec: EncoderBlockSpec) -> Result<Self> {
        let EncoderBlockSpec { width, heads, eps, activation } = spec;
        let attention = weights.at("attention");
        let square = |name| Linear::load(&attention.at(name), width, width);
        Ok(Self {
            probe: Parameter::load(weights, "probe", width)?,
            q: square("q_proj")?,
            k: square("k_proj")?,
            v: square("v_proj")?,
            out: square("out_proj")?,
            norm: RowNorm::layer_norm(&weights.at("layernorm"), width, eps)?,
            mlp: PlainMlp::load(&weights.at("mlp"), width, width, activation)?,
            heads,
        })
    }

    /// `[batch, tokens, width]` → `[batch, width]`.
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (batch, _, width) = x.dims3()?;
        let probe = self.probe.values(pass)?.to_dtype(x.dtype())?.reshape((1, 1, width))?;
        let probe = probe.broadcast_as((batch, 1, width))?.contiguous()?;
        let (q, k, v) = (self.q.forward(&probe, pass)?, self.k.forward(x, pass)?, self.v.forward(x, pass)?);
        let mixed = attention(&q, &k, &v, AttentionCall::heads(self.heads), pass)?;
        let y = self.out.forward(&mixed, pass)?;
        let normed = self.norm.forward(&y, pass)?;
        Ok(self.mlp.forward(&normed, Some(&y), pass)?.squeeze(1)?)
    }
}

fn features(x: &Tensor) -> Result<Features> {
    let data = x.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    Ok(Features::new(x.dims().to_vec(), data))
}
