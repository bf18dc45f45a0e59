//! A learned vector that belongs to no layer, such as a padding token.

use super::{
    Pass, Tensor, Weights,
    frozen::{FrozenLayer, FrozenWeight},
};
use crate::Result;
use std::sync::Arc;

/// A frozen vector.
pub(crate) struct Parameter(Arc<FrozenLayer>);

impl Parameter {
    /// Takes the tensor `name` itself, of this many values.
    pub(crate) fn load(weights: &Weights, name: &str, length: usize) -> Result<Self> {
        let values = FrozenWeight::Tensor(weights.vector(name, length)?);
        Ok(Self(weights.at(name).freeze(&[length], values, None)))
    }

    /// `[length]`.
    pub(crate) fn values(&self, pass: &Pass) -> Result<Tensor> {
        self.0.vector(pass)
    }
}
