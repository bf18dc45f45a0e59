//! Rotary position embedding: pairs of a head's elements turn by angles that depend on the token's position.

use super::{
    Pass, Tensor,
    cpu::{dispatch, into_buffer},
};
use crate::Result;
use candle_core::{D, DType, Device};
use luna_kernels::{Rotary, RotaryLayout, RotaryShape};

/// Cosines and sines, `[tokens, rotary/2]`, for the first `rotary` elements of each head.
pub(crate) struct RotaryTable {
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
    pub(crate) rotary: usize,
    pub(crate) layout: RotaryLayout,
}

impl RotaryTable {
    /// From the angles `[tokens, rotary/2]`.
    pub(crate) fn new(angles: impl Iterator<Item = f64>, rotary: usize, layout: RotaryLayout) -> Self {
        let (cos, sin) = angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip();
        Self { cos, sin, rotary, layout }
    }

    fn half(&self) -> usize {
        self.rotary / 2
    }

    /// The angles of `count` tokens from `first` on.
    pub(crate) fn slice(&self, first: usize, count: usize) -> Self {
        let range = first * self.half()..(first + count) * self.half();
        Self { cos: self.cos[range.clone()].to_vec(), sin: self.sin[range].to_vec(), ..*self }
    }
}

/// Rotates `x` `[b, tokens, heads, dim]`; on the CPU in its own memory, which nothing else may use.
pub(crate) fn rotate(x: Tensor, table: &RotaryTable, pass: &Pass) -> Result<Tensor> {
    let (_, tokens, heads, dim) = x.dims4()?;
    let shape = x.shape().clone();
    if !x.device().is_cpu() {
        return portable(&x, table);
    }
    let y = dispatch!(x, T => {
        let mut data = into_buffer::<T>(&x)?;
        let rows = RotaryShape { tokens, heads, dim, stride: heads * dim };
        let rotary = Rotary { cos: &table.cos, sin: &table.sin, rotary: table.rotary, layout: table.layout };
        luna_kernels::rotate(&mut data, rows, &rotary);
        Ok(Tensor::from_vec(data, shape, &Device::Cpu)?)
    });
    pass.check()?;
    y
}

fn portable(x: &Tensor, table: &RotaryTable) -> Result<Tensor> {
    let (batch, tokens, heads, dim) = x.dims4()?;
    let half = table.half();
    let angles = |values: &[f32]| Tensor::from_slice(values, (1, tokens, 1, half), x.device());
    let (cos, sin) = (angles(&table.cos)?, angles(&table.sin)?);
    let wide = x.to_dtype(DType::F32)?;
    let turned = wide.narrow(D::Minus1, 0, table.rotary)?;
    let pair = |a: &Tensor, b: &Tensor| -> Result<[Tensor; 2]> {
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        Ok([first, second])
    };
    let turned = match table.layout {
        RotaryLayout::HalfSplit => {
            let [first, second] = pair(&turned.narrow(3, 0, half)?, &turned.narrow(3, half, half)?)?;
            Tensor::cat(&[first, second], 3)?
        }
        RotaryLayout::Interleaved => {
            let pairs = turned.reshape((batch, tokens, heads, half, 2))?;
            let [first, second] = pair(&pairs.narrow(4, 0, 1)?.squeeze(4)?, &pairs.narrow(4, 1, 1)?.squeeze(4)?)?;
            Tensor::stack(&[first, second], 4)?.reshape((batch, tokens, heads, table.rotary))?
        }
    };
    let y = if table.rotary == dim {
        turned
    } else {
        Tensor::cat(&[turned, wide.narrow(3, table.rotary, dim - table.rotary)?], 3)?
    };
    Ok(y.to_dtype(x.dtype())?)
}
