//! The layers as compositions of tensor-library operations, for devices that the CPU kernels do not serve.
//! Same contracts as [`super::cpu`]; a test compares the two on the CPU.

use super::{
    Activation, GroupNorm, Tensor,
    conv::{ConvCall, ConvSpec},
};
use crate::Result;
use candle_core::D;

pub(super) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, residual: Option<&Tensor>) -> Result<Tensor> {
    let (rows, inputs) = (x.elem_count() / x.dim(D::Minus1)?, x.dim(D::Minus1)?);
    let mut shape = x.dims().to_vec();
    *shape.last_mut().expect("a tensor with channels") = weight.dim(0)?;
    let y = x.reshape((rows, inputs))?.matmul(&weight.t()?)?.reshape(shape)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    add(y, residual)
}

pub(super) fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    spec: ConvSpec,
    call: ConvCall,
) -> Result<Tensor> {
    let x = match call.norm {
        Some(norm) => group_norm(x, norm)?,
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
    add(activate(&y, call.after)?, call.residual)
}

fn add(y: Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    Ok(match residual {
        Some(residual) => (y + residual)?,
        None => y,
    })
}

/// `[b, …, c]` → the same. Statistics in f32 whatever the precision.
pub(super) fn group_norm(x: &Tensor, norm: &GroupNorm) -> Result<Tensor> {
    let (batch, channels) = (x.dim(0)?, x.dim(D::Minus1)?);
    let pixels = x.elem_count() / (batch * channels);
    let grouped = (batch, pixels, norm.groups, channels / norm.groups);
    let wide = x.to_dtype(candle_core::DType::F32)?.reshape(grouped)?;
    let mean = wide.mean_keepdim((1, 3))?;
    let centred = wide.broadcast_sub(&mean)?;
    let variance = centred.sqr()?.mean_keepdim((1, 3))?;
    let normed = centred.broadcast_div(&(variance + f64::from(norm.eps))?.sqrt()?)?;
    let normed = normed.reshape(x.shape())?.to_dtype(x.dtype())?;
    let (gamma, beta) = (norm.gamma().to_dtype(x.dtype())?, norm.beta().to_dtype(x.dtype())?);
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

/// `[b, …, heads·dim]` each → the same, by the whole score matrix.
pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, channels) = (q.dim(0)?, q.dim(D::Minus1)?);
    let dim = channels / heads;
    let split = |x: &Tensor| -> Result<Tensor> {
        let tokens = x.elem_count() / (batch * channels);
        Ok(x.reshape((batch, tokens, heads, dim))?.transpose(1, 2)?.contiguous()?)
    };
    let scores = (split(q)?.matmul(&split(k)?.t()?)? * (dim as f64).powf(-0.5))?;
    let mixed = candle_nn::ops::softmax_last_dim(&scores)?.matmul(&split(v)?)?;
    Ok(mixed.transpose(1, 2)?.reshape(q.shape())?)
}
