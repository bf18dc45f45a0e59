//! Timesteps to embeddings: sinusoids of falling frequency, then two linear layers with SiLU between.

use crate::{
    Error, ErrorKind, Result,
    nn::{Activation, Linear, LinearCall, Pass, Tensor, Weights},
};
use candle_core::{DType, Device};

/// The slowest sinusoid turns once in this many steps, times 2π.
const LONGEST_PERIOD: f32 = 10_000.0;

/// `[timesteps, width]`: cosines, then sines; a last zero if the width is odd. f32, as references compute it.
pub(super) fn sinusoids(timesteps: &[f32], width: usize) -> Vec<f32> {
    let half = width / 2;
    let frequency = |index: usize| (-LONGEST_PERIOD.ln() * index as f32 / half as f32).exp();
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    let mut values = Vec::with_capacity(timesteps.len() * width);
    for timestep in timesteps {
        values.extend(frequencies.iter().map(|frequency| (timestep * frequency).cos()));
        values.extend(frequencies.iter().map(|frequency| (timestep * frequency).sin()));
        values.resize(values.len() + width % 2, 0.0);
    }
    values
}

/// `linear_2(silu(linear_1(x)))`.
pub(super) struct Embedder {
    linear_1: Linear,
    linear_2: Linear,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl Embedder {
    /// Sizes are read from the two layers' shapes; they are called `names`.
    pub(super) fn load(weights: &Weights, names: [&str; 2]) -> Result<Self> {
        let [first, second] = names.map(|name| weights.at(name));
        let (hidden, inputs) = matrix(&first)?;
        let (outputs, _) = matrix(&second)?;
        Ok(Self {
            linear_1: Linear::load(&first, inputs, hidden)?,
            linear_2: Linear::load(&second, hidden, outputs)?,
            inputs,
            outputs,
        })
    }

    /// diffusers' names.
    pub(super) fn named(weights: &Weights) -> Result<Self> {
        Self::load(weights, ["linear_1", "linear_2"])
    }

    /// `[batch, inputs]` → `[batch, outputs]`, activated at the end if asked for.
    pub(super) fn forward(&self, values: Vec<f32>, after: Activation, place: &Place, pass: &Pass) -> Result<Tensor> {
        let x = place.tensor(values, self.inputs)?;
        let silu = LinearCall { activation: Activation::Silu, ..LinearCall::default() };
        let hidden = self.linear_1.forward_with(&x, silu, pass)?;
        self.linear_2.forward_with(&hidden, LinearCall { activation: after, ..LinearCall::default() }, pass)
    }
}

/// Outputs and inputs of the linear layer, or 1×1 convolution, at a place.
pub(super) fn matrix(weights: &Weights) -> Result<(usize, usize)> {
    match *weights.shape("weight")? {
        [outputs, inputs, 1, 1] | [outputs, inputs] if outputs > 0 && inputs > 0 => Ok((outputs, inputs)),
        ref other => Err(Error::new(ErrorKind::InvalidFile, format!("`{}.weight` is no matrix", weights.path()))
            .expected("[outputs, inputs], no side 0")
            .found(format!("{other:?}"))),
    }
}

/// Where embeddings live: f32 on the CPU, whatever the activations' precision; the weights' precision elsewhere.
pub(super) struct Place {
    pub(super) device: Device,
    pub(super) dtype: DType,
}

impl Place {
    /// Rows of this width.
    pub(super) fn tensor(&self, values: Vec<f32>, width: usize) -> Result<Tensor> {
        let rows = values.len() / width.max(1);
        Ok(Tensor::from_vec(values, (rows, width), &Device::Cpu)?.to_dtype(self.dtype)?.to_device(&self.device)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinusoids_begin_with_the_fastest() {
        let values = sinusoids(&[0.0, 1.0], 5);
        assert_eq!(values[..5], [1.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(values[5..7], [1f32.cos(), 0.01f32.cos()]);
        assert_eq!(values[7..], [1f32.sin(), 0.01f32.sin(), 0.0]);
    }
}
