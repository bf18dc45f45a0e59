//! What a diffusion model's time step does to features: a scale and shift of channels for each item of the batch.
//! Scales and shifts are f32 on the CPU and of the features' precision elsewhere; `[batch, channels]` each.

use super::{
    Activation, Pass, Tensor,
    cpu::{View, dispatch, into_buffer},
};
use crate::Result;
use candle_core::{D, DType};
use luna_kernels::ChannelAffine;

/// `x·scale + shift`, `[b, …, c]` → the same.
pub(crate) fn scale_and_shift(
    x: &Tensor,
    scale: Option<&Tensor>,
    shift: Option<&Tensor>,
    pass: &Pass,
) -> Result<Tensor> {
    if !x.device().is_cpu() {
        let scaled = scale.map(|scale| x.broadcast_mul(&spread(scale, x)?)).transpose()?;
        let scaled = scaled.unwrap_or_else(|| x.clone());
        return Ok(shift.map_or(Ok(scaled.clone()), |shift| scaled.broadcast_add(&spread(shift, x)?))?);
    }
    let (batch, count) = (x.dim(0)?, x.dim(0)? * x.dim(D::Minus1)?);
    let values = |tensor: Option<&Tensor>, default: f32| -> Result<Vec<f32>> {
        tensor.map_or_else(|| Ok(vec![default; count]), |tensor| Ok(tensor.flatten_all()?.to_vec1()?))
    };
    let affine = ChannelAffine { scale: values(scale, 1.0)?, shift: values(shift, 0.0)? };
    let y = dispatch!(x, T => {
        let data = View::<T>::of(x)?;
        let mut y = pass.buffers().take::<T>(data.len());
        luna_kernels::apply_affine(&data, &mut y, batch, &affine, Activation::None, &pass.cx());
        y.into_tensor(x.shape())
    });
    pass.check()?;
    y
}

/// `x + y` in the memory of `x`, which nothing else may use.
pub(crate) fn add(x: Tensor, y: &Tensor, pass: &Pass) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return Ok((x + y)?);
    }
    let shape = x.shape().clone();
    let sum = dispatch!(x, T => {
        let mut data = into_buffer::<T>(&x)?;
        luna_kernels::add(&mut data, &View::<T>::of(y)?, &pass.cx());
        data.into_tensor(shape)
    });
    pass.check()?;
    sum
}

/// A norm over the channels of each token, whose gain and offset differ from item to item of the batch.
pub(crate) struct ModulatedNorm<'a> {
    pub(crate) eps: f32,
    /// Whether the mean is removed: LayerNorm, else RMSNorm.
    pub(crate) centred: bool,
    pub(crate) gain: &'a Tensor,
    pub(crate) offset: Option<&'a Tensor>,
}

impl ModulatedNorm<'_> {
    /// `norm(x)·gain + offset`, `[b, tokens, c]` → the same.
    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        if !x.device().is_cpu() {
            return self.portable(x);
        }
        let c = x.dim(D::Minus1)?;
        let gain: Vec<f32> = self.gain.flatten_all()?.to_vec1()?;
        let offset: Option<Vec<f32>> = self.offset.map(|offset| offset.flatten_all()?.to_vec1()).transpose()?;
        let y = dispatch!(x, T => {
            let data = View::<T>::of(x)?;
            let mut y = pass.buffers().take::<T>(data.len());
            let item = data.len() / x.dim(0)?;
            for (index, (x, y)) in data.chunks_exact(item).zip(y.chunks_exact_mut(item)).enumerate() {
                let own = index * c..(index + 1) * c;
                let norm = luna_kernels::RowNorm {
                    c,
                    eps: self.eps,
                    gamma: Some(&gain[own.clone()]),
                    beta: offset.as_ref().map(|offset| &offset[own]),
                };
                if self.centred {
                    luna_kernels::layer_norm(x, y, &norm, &pass.cx());
                } else {
                    luna_kernels::rms_norm(x, y, &norm, &pass.cx());
                }
            }
            y.into_tensor(x.shape())
        });
        pass.check()?;
        y
    }

    /// Statistics in f32 whatever the precision.
    fn portable(&self, x: &Tensor) -> Result<Tensor> {
        let wide = x.to_dtype(DType::F32)?;
        let wide = if self.centred { wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)? } else { wide };
        let variance = wide.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = wide.broadcast_div(&(variance + f64::from(self.eps))?.sqrt()?)?.to_dtype(x.dtype())?;
        let scaled = normed.broadcast_mul(&spread(self.gain, x)?)?;
        Ok(match self.offset {
            Some(offset) => scaled.broadcast_add(&spread(offset, x)?)?,
            None => scaled,
        })
    }
}

/// `[b, c]` with as many dimensions as `x` between the two, in its precision.
fn spread(values: &Tensor, x: &Tensor) -> candle_core::Result<Tensor> {
    let mut shape = vec![1; x.rank()];
    (shape[0], shape[x.rank() - 1]) = (values.dim(0)?, values.dim(1)?);
    values.to_dtype(x.dtype())?.reshape(shape)
}
