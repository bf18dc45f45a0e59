//! An adapter against a layer. Enters: sizes of both. Leaves: the layer's share of the adapter, or what does not fit.

use super::{
    adapter::{Adapter, BiasChange, DoraConvention, Kind, WeightChange},
    delta::{LayerDelta, Norms},
    target::Target,
};
use crate::nn::{FrozenLayer, LayerRole};
use std::{ops::Range, sync::Arc};

/// Why an adapter cannot be applied to a layer.
pub(super) enum Misfit {
    Shape { expected: String, found: String },
    Unsupported(String),
}

/// The share of one layer in an adapter.
pub(super) struct Share<'a> {
    pub(super) adapter: &'a Adapter,
    pub(super) layer: &'a FrozenLayer,
    pub(super) rows: Range<usize>,
    /// Rows of all layers that the adapter is for.
    pub(super) total: usize,
}

impl<'a> Share<'a> {
    pub(super) fn new(adapter: &'a Adapter, layer: &'a FrozenLayer, target: &Target, total: usize) -> Self {
        let rows = target.rows.clone().unwrap_or(0..layer.matrix().0);
        Self { adapter, layer, rows, total }
    }

    /// The difference of the weight.
    pub(super) fn delta(
        &self,
        strength: f32,
        convention: Option<DoraConvention>,
    ) -> Result<Option<LayerDelta>, Misfit> {
        let Some(change) = &self.adapter.weight else { return Ok(None) };
        if self.layer.role == LayerRole::Table {
            return Err(Misfit::Unsupported(format!("{} on an embedding table", change.name())));
        }
        self.check(change)?;
        let norms = self.norms(change, convention)?;
        Ok(Some(LayerDelta {
            change: change.clone(),
            strength,
            norms,
            rows: self.rows.clone(),
            matrix: self.layer.matrix(),
            taps: self.taps(),
        }))
    }

    fn check(&self, change: &Arc<WeightChange>) -> Result<(), Misfit> {
        let (outputs, columns) = change.kind.matrix();
        let own = self.layer.matrix().1;
        if outputs != self.total || columns.is_some_and(|columns| columns != own) {
            let expected = if self.total == self.layer.matrix().0 {
                format!("{:?}", self.layer.shape)
            } else {
                format!("[{}, {own}], several layers' rows together", self.total)
            };
            let found = match columns {
                Some(columns) => format!("[{outputs}, {columns}]"),
                None => format!("{outputs} outputs"),
            };
            return Err(Misfit::Shape { expected, found });
        }
        let whole = self.total == self.layer.matrix().0;
        match &change.kind {
            Kind::Rotation(_) | Kind::Generalised { .. } if !whole => {
                Err(Misfit::Unsupported(format!("{} over layers that the model holds apart", change.name())))
            }
            Kind::Generalised { outer, .. } if outer.matrix().0 * self.taps() != own => Err(Misfit::Shape {
                expected: format!("{} inputs", own / self.taps()),
                found: format!("{} inputs", outer.matrix().0),
            }),
            _ => Ok(()),
        }
    }

    fn taps(&self) -> usize {
        self.layer.shape.iter().skip(2).product::<usize>().max(1)
    }

    /// What DoRA's magnitudes are of; they must be as many.
    fn norms(&self, change: &WeightChange, convention: Option<DoraConvention>) -> Result<Norms, Misfit> {
        let Some(dora) = &change.dora else { return Ok(Norms::Outputs) };
        let norms = Norms::of(dora, convention.unwrap_or(dora.convention), self.total);
        let count = dora.magnitude.count();
        let inputs = self.layer.matrix().1 / self.taps();
        let expected = if norms == Norms::Inputs { inputs } else { self.total };
        if count != expected {
            return Err(Misfit::Shape {
                expected: format!("{} magnitudes of outputs or {inputs} of inputs", self.total),
                found: format!("{:?}", dora.magnitude.shape),
            });
        }
        if norms == Norms::Inputs && self.total != self.layer.matrix().0 {
            return Err(Misfit::Unsupported("DoRA over the inputs of layers that the model holds apart".into()));
        }
        Ok(norms)
    }

    /// What is added to the bias.
    pub(super) fn bias(&self, strength: f32) -> Result<Option<Vec<f32>>, Misfit> {
        let Some(BiasChange { values, scale }) = &self.adapter.bias else { return Ok(None) };
        if self.layer.role == LayerRole::Table || (self.layer.role == LayerRole::Vector && self.layer.bias.is_none()) {
            return Err(Misfit::Unsupported("a bias on a layer that has none".into()));
        }
        if values.count() != self.total {
            return Err(Misfit::Shape {
                expected: format!("a bias of {}", self.total),
                found: format!("{:?}", values.shape),
            });
        }
        let values = values.values();
        Ok(Some(values[self.rows.clone()].iter().map(|value| value * scale * strength).collect()))
    }
}
