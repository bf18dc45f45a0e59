//! The gated feed-forward block of T5, Qwen3 and diffusion transformers: `y = down(activation(gate(x)) ⊙ up(x)) + x₀`.

use super::{Activation, Linear, LinearCall, Pass, Tensor, Weights, multiply};
use crate::Result;
use candle_core::D;

/// What the three layers are called, in the order gate, up, down.
pub(crate) type GatedMlpNames = [&'static str; 3];

/// Three linear layers, of which one opens or closes another.
pub(crate) struct GatedMlp {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl GatedMlp {
    /// From `channels` to what `gate`'s weight says and back.
    pub(crate) fn load(
        weights: &Weights,
        names: GatedMlpNames,
        channels: usize,
        activation: Activation,
    ) -> Result<Self> {
        let [gate, up, down] = names.map(|name| weights.at(name));
        let hidden = gate.shape("weight")?[0];
        Ok(Self {
            gate: Linear::load(&gate, channels, hidden)?,
            up: Linear::load(&up, channels, hidden)?,
            down: Linear::load(&down, hidden, channels)?,
            activation,
        })
    }

    /// `[…, channels]` → the same, with `residual` added.
    pub(crate) fn forward(&self, x: &Tensor, residual: Option<&Tensor>, pass: &Pass) -> Result<Tensor> {
        let rows = x.elem_count() / x.dim(D::Minus1)?;
        let call = LinearCall { activation: self.activation, residual: None };
        let gate = || self.gate.forward_with(x, call, pass);
        let (gate, up) = pass.both(rows, gate, || self.up.forward(x, pass))?;
        let gated = multiply(gate, &up, pass)?;
        pass.recycle(up);
        let y = self.down.forward_with(&gated, LinearCall { residual, ..LinearCall::default() }, pass)?;
        pass.recycle(gated);
        Ok(y)
    }
}
