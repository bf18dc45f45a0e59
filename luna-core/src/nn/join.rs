//! Two feature maps side by side.

use super::{
    Pass, Tensor,
    cpu::{View, dispatch},
};
use crate::Result;
use candle_core::D;
use rayon::prelude::*;

/// `[…, m]` and `[…, n]` → `[…, m + n]`.
pub(crate) fn join_channels(x: &Tensor, y: &Tensor, pass: &Pass) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return Ok(Tensor::cat(&[x, y], D::Minus1)?);
    }
    let (m, n) = (x.dim(D::Minus1)?, y.dim(D::Minus1)?);
    let mut shape = x.dims().to_vec();
    *shape.last_mut().expect("a tensor with channels") = m + n;
    dispatch!(x, T => {
        let (x, y) = (View::<T>::of(x)?, View::<T>::of(y)?);
        let mut joined = pass.buffers().take::<T>(x.len() + y.len());
        let (x, y): (&[T], &[T]) = (&x, &y);
        joined.par_chunks_exact_mut(m + n).with_min_len(64).enumerate().for_each(|(row, out)| {
            out[..m].copy_from_slice(&x[row * m..][..m]);
            out[m..].copy_from_slice(&y[row * n..][..n]);
        });
        joined.into_tensor(shape)
    })
}
