//! The gated activation of Stable Diffusion's feed-forward layers.

use super::{
    Pass, Tensor,
    cpu::{View, dispatch},
};
use crate::Result;
use candle_core::D;

/// `[…, 2n]` → `[…, n]`: `first half · gelu(second half)`.
pub(crate) fn geglu(x: &Tensor, pass: &Pass) -> Result<Tensor> {
    let n = x.dim(D::Minus1)? / 2;
    if !x.device().is_cpu() {
        let gate = x.narrow(D::Minus1, n, n)?.contiguous()?.gelu_erf()?;
        return Ok((x.narrow(D::Minus1, 0, n)? * gate)?);
    }
    let mut shape = x.dims().to_vec();
    *shape.last_mut().expect("a tensor with channels") = n;
    let y = dispatch!(x, T => {
        let data = View::<T>::of(x)?;
        let mut y = pass.buffers().take::<T>(data.len() / 2);
        luna_kernels::geglu(&data, &mut y, n, &pass.cx());
        y.into_tensor(shape)
    });
    pass.check()?;
    y
}
