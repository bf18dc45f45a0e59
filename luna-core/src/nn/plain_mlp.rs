//! The feed-forward block of encoders: `y = fc₂(activation(fc₁(x))) + x₀`.

use super::{Activation, Linear, LinearCall, Pass, Tensor, Weights};
use crate::Result;

/// Two linear layers with an activation between them.
pub(crate) struct PlainMlp {
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

impl PlainMlp {
    /// Takes `fc1` and `fc2`; the width between them is what `fc1`'s weight says.
    pub(crate) fn load(weights: &Weights, inputs: usize, outputs: usize, activation: Activation) -> Result<Self> {
        let (fc1, fc2) = (weights.at("fc1"), weights.at("fc2"));
        let hidden = fc1.shape("weight")?[0];
        Ok(Self { fc1: Linear::load(&fc1, inputs, hidden)?, fc2: Linear::load(&fc2, hidden, outputs)?, activation })
    }

    /// `[…, inputs]` → `[…, outputs]`, with `residual` added.
    pub(crate) fn forward(&self, x: &Tensor, residual: Option<&Tensor>, pass: &Pass) -> Result<Tensor> {
        let call = LinearCall { activation: self.activation, residual: None };
        let hidden = self.fc1.forward_with(x, call, pass)?;
        let y = self.fc2.forward_with(&hidden, LinearCall { residual, ..LinearCall::default() }, pass)?;
        pass.recycle(hidden);
        Ok(y)
    }
}
