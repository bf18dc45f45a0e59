//! The layers as compositions of tensor-library operations, for devices that the CPU kernels do not serve.
//! Same contracts as [`super::cpu`]; a test compares the two on the CPU.

use super::{
    Activation, AttentionCall, GroupNorm, Pass, RowNorm, Tensor,
    conv::{ConvCall, ConvSpec},
    linear::{Affine, LinearCall},
    rotary::RotaryTable,
};
use crate::{AttentionMode, Result};
use candle_core::D;
use luna_kernels::{AttentionMask, RotaryLayout};

pub(super) fn linear(x: &Tensor, weight: &Tensor, affine: Affine, call: LinearCall) -> Result<Tensor> {
    let (rows, inputs) = (x.elem_count() / x.dim(D::Minus1)?, x.dim(D::Minus1)?);
    let mut shape = x.dims().to_vec();
    *shape.last_mut().expect("a tensor with channels") = weight.dim(0)?;
    // Weights may be held in fewer bits than the activations have.
    let weight = weight.to_dtype(x.dtype())?;
    let y = x.reshape((rows, inputs))?.matmul(&weight.t()?)?.reshape(shape)?;
    let y = if affine.scale == 1.0 { y } else { (y * f64::from(affine.scale))? };
    let y = match affine.bias {
        Some(bias) => y.broadcast_add(&bias.to_dtype(x.dtype())?)?,
        None => y,
    };
    add(activate(&y, call.activation)?, call.residual)
}

pub(super) fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    spec: ConvSpec,
    call: ConvCall,
    pass: &Pass,
) -> Result<Tensor> {
    let x = match call.norm {
        Some(norm) => group_norm(x, norm, pass)?,
        None => x.clone(),
    };
    let mut x = activate(&x, call.activation)?.permute((0, 3, 1, 2))?.contiguous()?;
    if call.upsample {
        let (_, _, h, w) = x.dims4()?;
        x = x.upsample_nearest2d(2 * h, 2 * w)?;
    }
    let [top, bottom, left, right] = spec.padding;
    let x = x.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)?;
    let y = x.conv2d(weight, 0, spec.stride, 1, 1)?.permute((0, 2, 3, 1))?.contiguous()?;
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    if call.residual_first {
        return activate(&add(y, call.residual)?, call.after);
    }
    add(activate(&y, call.after)?, call.residual)
}

fn add(y: Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    Ok(match residual {
        Some(residual) => (y + residual)?,
        None => y,
    })
}

/// `[b, …, c]` → the same. Statistics in f32 whatever the precision.
pub(super) fn group_norm(x: &Tensor, norm: &GroupNorm, pass: &Pass) -> Result<Tensor> {
    let (batch, channels) = (x.dim(0)?, x.dim(D::Minus1)?);
    let pixels = x.elem_count() / (batch * channels);
    let grouped = (batch, pixels, norm.groups, channels / norm.groups);
    let wide = x.to_dtype(candle_core::DType::F32)?.reshape(grouped)?;
    let mean = wide.mean_keepdim((1, 3))?;
    let centred = wide.broadcast_sub(&mean)?;
    let variance = centred.sqr()?.mean_keepdim((1, 3))?;
    let normed = centred.broadcast_div(&(variance + f64::from(norm.eps))?.sqrt()?)?;
    let normed = normed.reshape(x.shape())?.to_dtype(x.dtype())?;
    let (gamma, beta) = (norm.gamma(pass)?.to_dtype(x.dtype())?, norm.beta(pass)?.to_dtype(x.dtype())?);
    Ok(normed.broadcast_mul(&gamma)?.broadcast_add(&beta)?)
}

pub(super) fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(match activation {
        Activation::None => x.clone(),
        Activation::Silu => x.silu()?,
        Activation::Gelu => x.gelu_erf()?,
        Activation::GeluTanh => x.gelu()?,
        Activation::QuickGelu => (x * candle_nn::ops::sigmoid(&(x * 1.702)?)?)?,
        Activation::Relu => x.relu()?,
    })
}

/// As [`super::attention()`]. Only `AttentionMode::Pytorch` has the whole score matrix; the others go through it in
/// chunks of queries.
pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, call: AttentionCall, pass: &Pass) -> Result<Tensor> {
    let (batch, dim) = (q.dim(0)?, q.dim(D::Minus1)? / call.heads);
    let split = |x: &Tensor, heads: usize| -> Result<Tensor> {
        let tokens = x.elem_count() / (batch * heads * dim);
        let x = x.reshape((batch, tokens, heads, 1, dim))?;
        let x = x.broadcast_as((batch, tokens, heads, call.heads / heads, dim))?;
        Ok(x.reshape((batch, tokens, call.heads, dim))?.transpose(1, 2)?.contiguous()?)
    };
    let scale = call.scale.map_or_else(|| (dim as f64).powf(-0.5), f64::from);
    let (q_heads, k_heads, v_heads) = (split(q, call.heads)?, split(k, call.kv_heads)?.t()?, split(v, call.kv_heads)?);
    let (queries, keys) = (q_heads.dim(2)?, k_heads.dim(3)?);
    let mask = mask(call.mask, [batch, call.heads, queries, keys], q.device())?;
    let rows = match pass.attention_mode() {
        AttentionMode::Pytorch => queries,
        _ => (SCORES / (batch * call.heads * keys).max(1)).clamp(1, queries.max(1)),
    };
    let mixed = (0..queries).step_by(rows.max(1)).map(|first| {
        let count = rows.min(queries - first);
        let scores = (q_heads.narrow(2, first, count)?.contiguous()?.matmul(&k_heads)? * scale)?;
        let scores = match &mask {
            Some(mask) if mask.dim(2)? == 1 => scores.broadcast_add(&mask.to_dtype(scores.dtype())?)?,
            Some(mask) => scores.broadcast_add(&mask.narrow(2, first, count)?.to_dtype(scores.dtype())?)?,
            None => scores,
        };
        Ok(candle_nn::ops::softmax_last_dim(&scores)?.matmul(&v_heads)?)
    });
    let mixed = Tensor::cat(&mixed.collect::<Result<Vec<_>>>()?, 2)?;
    Ok(mixed.transpose(1, 2)?.contiguous()?.reshape(q.shape())?)
}

/// Scores of one chunk of queries, over all heads.
const SCORES: usize = 1 << 26;

/// What is added to scores `[b, heads, queries, keys]`.
fn mask(
    mask: AttentionMask,
    [batch, heads, queries, keys]: [usize; 4],
    device: &candle_core::Device,
) -> Result<Option<Tensor>> {
    let hide = |visible: bool| if visible { 0.0 } else { f32::NEG_INFINITY };
    let (shape, values): (_, Vec<f32>) = match mask {
        AttentionMask::None => return Ok(None),
        AttentionMask::Causal => {
            let sees = move |query: usize, key: usize| hide(key + queries <= query + keys);
            ((1, 1, queries, keys), (0..queries).flat_map(|q| (0..keys).map(move |k| sees(q, k))).collect())
        }
        AttentionMask::KeyLengths(lengths) => {
            let values = lengths.iter().flat_map(|&length| (0..keys).map(move |key| hide(key < length)));
            ((batch, 1, 1, keys), values.collect())
        }
        AttentionMask::Additive { data, batch_stride, head_stride } => {
            let start = |b: usize, h: usize| b * batch_stride + h * head_stride;
            let places = (0..batch).flat_map(|b| (0..heads).map(move |h| start(b, h)));
            ((batch, heads, queries, keys), places.flat_map(|at| data[at..][..queries * keys].to_vec()).collect())
        }
    };
    Ok(Some(Tensor::from_vec(values, shape, device)?))
}

/// `[…, c]` → the same. Statistics in f32 whatever the precision.
pub(super) fn row_norm(x: &Tensor, norm: &RowNorm, pass: &Pass) -> Result<Tensor> {
    let wide = x.to_dtype(candle_core::DType::F32)?;
    let wide = if norm.centred { wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)? } else { wide };
    let variance = wide.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = wide.broadcast_div(&(variance + f64::from(norm.eps))?.sqrt()?)?.to_dtype(x.dtype())?;
    let scaled = normed.broadcast_mul(&norm.gamma(pass)?.to_dtype(x.dtype())?)?;
    Ok(match norm.beta(pass)? {
        Some(beta) => scaled.broadcast_add(&beta.to_dtype(x.dtype())?)?,
        None => scaled,
    })
}

/// Rotates the heads of `[b, t, heads·dim]`.
pub(super) fn rotate(x: &Tensor, heads: usize, table: &RotaryTable) -> Result<Tensor> {
    let (batch, tokens, width) = x.dims3()?;
    let half = width / heads / 2;
    let angles = |angles: &Tensor| Ok::<_, crate::Error>(angles.reshape((1, tokens, 1, half))?.to_dtype(x.dtype())?);
    let (cos, sin) = (angles(&table.cos)?, angles(&table.sin)?);
    let pairs = match table.layout {
        RotaryLayout::HalfSplit => x.reshape((batch, tokens, heads, 2, half))?,
        RotaryLayout::Interleaved => x.reshape((batch, tokens, heads, half, 2))?.transpose(3, 4)?,
    };
    let (a, b) = (pairs.get_on_dim(3, 0)?, pairs.get_on_dim(3, 1)?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    let axis = if table.layout == RotaryLayout::HalfSplit { 3 } else { 4 };
    Ok(Tensor::stack(&[first, second], axis)?.reshape(x.shape())?)
}
