//! Embedding table: ids to rows.

use super::{
    Pass, Tensor, Weights,
    frozen::{FrozenLayer, FrozenWeight},
};
use crate::{Error, ErrorKind, Precision, Result};
use std::sync::Arc;

/// A frozen table `[entries, channels]`, held in the type the file stores; rows are widened as they are looked up.
pub(crate) struct Embedding(Arc<FrozenLayer>);

impl Embedding {
    /// Takes `weight` `[entries, channels]`.
    pub(crate) fn load(weights: &Weights) -> Result<Self> {
        let shape = weights.shape("weight")?.to_vec();
        let &[entries, channels] = &*shape else {
            return Err(Error::new(ErrorKind::InvalidFile, format!("the embedding `{}` is no table", weights.path()))
                .expected("[entries, channels]")
                .found(format!("{shape:?}")));
        };
        let view = weights.tensor("weight", &shape)?;
        let weight = if weights.runtime().handle().is_cpu() {
            FrozenWeight::Matrix(view.pack_matrix(entries, channels))
        } else {
            FrozenWeight::Tensor(weights.on_device(view, &shape)?)
        };
        Ok(Self(weights.freeze_table(&shape, weight)))
    }

    /// The layer itself, for one that shares its weight.
    pub(super) fn layer(&self) -> &Arc<FrozenLayer> {
        &self.0
    }

    /// Number of rows.
    pub(crate) fn entries(&self) -> usize {
        self.0.shape[0]
    }

    /// Length of a row.
    pub(crate) fn channels(&self) -> usize {
        self.0.shape[1]
    }

    /// The rows of `ids`, one after the other: `[ids, channels]` in `precision`.
    pub(crate) fn forward(&self, ids: &[u32], precision: Precision, pass: &Pass) -> Result<Tensor> {
        if let Some(wrong) = ids.iter().find(|&&id| id as usize >= self.entries()) {
            return Err(Error::new(ErrorKind::InvalidInput, "a token id is not in the vocabulary")
                .expected(format!("ids below {}", self.entries()))
                .found(wrong.to_string())
                .remedy("use the tokenizer that belongs to this model"));
        }
        let rows = match &self.0.weight {
            FrozenWeight::Matrix(table) => {
                let mut rows = vec![0.0; ids.len() * self.channels()];
                for (&id, row) in ids.iter().zip(rows.chunks_exact_mut(self.channels())) {
                    table.unpack_row_f32(id as usize, row);
                }
                Tensor::from_vec(rows, (ids.len(), self.channels()), &candle_core::Device::Cpu)?
            }
            FrozenWeight::Tensor(table) => table.index_select(&Tensor::new(ids, table.device())?, 0)?,
            FrozenWeight::Conv(_) => unreachable!("a table is never packed as a convolution"),
        };
        pass.check()?;
        Ok(rows.to_dtype(precision.dtype())?)
    }
}
