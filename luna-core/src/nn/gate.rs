//! Gated activations of feed-forward layers.

use super::{
    Pass, Tensor,
    cpu::{View, dispatch},
};
use crate::Result;
use candle_core::{D, Device};

/// How the two halves of a projection become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// `first · gelu(second)`.
    Geglu,
    /// `silu(first) · second`.
    Swiglu,
}

impl Gate {
    /// `[…, 2n]` → `[…, n]`.
    pub(crate) fn forward(self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let n = x.dim(D::Minus1)? / 2;
        if !x.device().is_cpu() {
            let (first, second) = (x.narrow(D::Minus1, 0, n)?, x.narrow(D::Minus1, n, n)?);
            return Ok(match self {
                Self::Geglu => (first * second.contiguous()?.gelu_erf()?)?,
                Self::Swiglu => (first.contiguous()?.silu()? * second)?,
            });
        }
        let mut shape = x.dims().to_vec();
        *shape.last_mut().expect("a tensor with channels") = n;
        let y = dispatch!(x, T => {
            let data = View::<T>::of(x)?;
            let mut y = pass.buffers().take::<T>(data.len() / 2);
            match self {
                Self::Geglu => luna_kernels::geglu(&data, &mut y, n, &pass.cx()),
                Self::Swiglu => luna_kernels::swiglu(&data, &mut y, n, &pass.cx()),
            }
            Ok(Tensor::from_vec(y, shape, &Device::Cpu)?)
        });
        pass.check()?;
        y
    }
}
