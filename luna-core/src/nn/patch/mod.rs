//! What a request adds to a model. Enters: for some layers, differences of their weights and biases. Leaves: for each
//! call of such a layer, what it computes with. It must not know files or whose names they bear.
//!
//! The frozen weight is never written. A layer whose differences all have a low-rank form runs them as a branch,
//! `y = W·x + B·(A·x)`, or builds `W + B·A` just before use and drops it just after, whichever is cheaper for the number
//! of rows at hand. Other differences are always built.

mod layer;
mod runs;

pub(super) use layer::{Branch, Patch, PatchedWeight};
pub(super) use runs::PatchedRun;
pub use runs::{LayerRuns, PatchedRuns};

use super::{
    Pass, StoredTensor, Tensor,
    frozen::{FrozenLayer, FrozenWeight, FrozenWeights, Identity},
};
use crate::{Error, ErrorKind, Result};
use luna_kernels::{Context, Home, MatmulShape, Operand};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// A difference of one layer's weight, strength included.
pub(crate) trait Delta: Send + Sync {
    /// Its low-rank form, where it has one.
    fn low_rank(&self) -> Option<&dyn LowRank>;

    /// Whether [`Delta::add_to`] looks at the frozen weight.
    fn reads_base(&self) -> bool;

    /// Adds the difference to `sum`. Both are row-major of the layer's shape, `base` empty unless it is read.
    fn add_to(&self, sum: &mut [f32], base: &[f32], cx: &Context) -> Result<()>;

    /// Bytes it holds.
    fn bytes(&self) -> u64;
}

/// `ΔW = strength · up · down`.
pub(crate) trait LowRank {
    fn rank(&self) -> usize;

    /// `[rank, inputs · taps]`.
    fn down(&self) -> StoredTensor<'_>;

    /// `[outputs, rank]`.
    fn up(&self) -> StoredTensor<'_>;

    fn strength(&self) -> f32;
}

/// What is added to one layer.
#[derive(Default)]
pub(crate) struct LayerPatch {
    pub(crate) deltas: Vec<Arc<dyn Delta>>,
    /// Added to the bias, `[outputs]`.
    pub(crate) bias: Option<Vec<f32>>,
    /// What comes of all that, where it was built once for many calls.
    pub(super) merged: Option<MergedLayer>,
}

/// A layer's weight and bias with everything added.
pub(super) struct MergedLayer {
    /// None where the frozen one stays.
    pub(super) weight: Option<FrozenWeight>,
    pub(super) bias: Option<Tensor>,
}

/// How low-rank differences run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum BranchRule {
    /// Layer by layer and call by call, what is cheaper.
    #[default]
    Cheaper,
    /// Always as a branch.
    #[cfg(test)]
    Branch,
    /// Always built.
    #[cfg(test)]
    Build,
}

/// What a request adds to a model: a stack of LoRAs, resolved for the layers of one model. Made by
/// [`crate::lora::LoraStack`], given to a model's calls, and shared by any number of them.
pub struct Patches {
    layers: BTreeMap<usize, LayerPatch>,
    /// Of the model these are for.
    layout: blake3::Hash,
    digest: blake3::Hash,
    rule: BranchRule,
    /// The one model whose weights were merged, and what is to be dropped after them.
    merged: Option<(Identity, Box<dyn Send + Sync>)>,
}

impl Patches {
    /// For the layers with these numbers in `model`. `digest` is over all that shapes the differences.
    pub(crate) fn new(layers: BTreeMap<usize, LayerPatch>, model: &FrozenWeights, digest: blake3::Hash) -> Self {
        Self { layers, layout: model.layout(), digest, rule: BranchRule::default(), merged: None }
    }

    #[cfg(test)]
    pub(crate) fn with_rule(self, rule: BranchRule) -> Self {
        Self { rule, ..self }
    }

    /// The same differences merged with the weights of `model`, layer by layer. `lease` is dropped after them.
    ///
    /// # Errors
    /// `Cancelled`, and those of building a layer.
    pub(crate) fn merged(&self, model: &FrozenWeights, pass: &Pass, lease: impl Send + Sync + 'static) -> Result<Self> {
        self.check(model)?;
        let merge = |(index, patch): (&usize, &LayerPatch)| {
            let (layer, patch) = (&model.layers()[*index], Patch { patch, rule: self.rule });
            let weight =
                if patch.patch.deltas.is_empty() { None } else { Some(patch.packed(layer, Home::Own, &pass.cx())?) };
            let merged = MergedLayer { weight, bias: patch.bias(layer)? };
            pass.step()?;
            Ok((*index, LayerPatch { merged: Some(merged), ..LayerPatch::default() }))
        };
        Ok(Self {
            layers: self.layers.iter().map(merge).collect::<Result<_>>()?,
            merged: Some((model.identity(), Box::new(lease))),
            ..*self
        })
    }

    /// Bytes that merging with `model` takes: a copy of every patched weight in f32.
    pub(crate) fn merged_bytes(&self, model: &FrozenWeights) -> u64 {
        let weights = |(index, patch): (&usize, &LayerPatch)| match patch.deltas.is_empty() {
            true => 0,
            false => 4 * model.layers()[*index].shape.iter().product::<usize>() as u64,
        };
        self.layers.iter().map(weights).sum()
    }

    /// Whether every difference has a low-rank form.
    pub(crate) fn is_low_rank(&self) -> bool {
        self.layers.values().flat_map(|patch| &patch.deltas).all(|delta| delta.low_rank().is_some())
    }

    /// Whether the weights were merged once for many calls.
    pub fn is_merged(&self) -> bool {
        self.merged.is_some()
    }

    /// What these patches are known by: equal for equal files at equal strengths in equal order.
    pub fn digest(&self) -> blake3::Hash {
        self.digest
    }

    /// How many layers are patched.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Whether nothing is patched: a call with these is a call without any.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Bytes of all differences, or of the merged weights, as they are held; files that are used twice count twice.
    pub fn bytes(&self) -> u64 {
        let layer = |patch: &LayerPatch| {
            let bias = patch.bias.as_ref().map_or(0, |bias| 4 * bias.len() as u64);
            let merged = patch.merged.as_ref().map_or(0, MergedLayer::bytes);
            bias + merged + patch.deltas.iter().map(|delta| delta.bytes()).sum::<u64>()
        };
        self.layers.values().map(layer).sum()
    }

    /// Refuses a model that these were not resolved for.
    pub(crate) fn check(&self, model: &FrozenWeights) -> Result<()> {
        let same = match &self.merged {
            Some((identity, _)) => *identity == model.identity(),
            None => self.layout == model.layout(),
        };
        if self.is_empty() || same {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "the LoRA patches were resolved for another model")
            .expected("patches resolved for the model that is called")
            .remedy("resolve the stack for this model"))
    }

    pub(super) fn of(&self, layer: &FrozenLayer) -> Option<Patch<'_>> {
        self.layers.get(&layer.index).map(|patch| Patch { patch, rule: self.rule })
    }
}

impl MergedLayer {
    fn bytes(&self) -> u64 {
        let bias = self.bias.as_ref().map_or(0, |bias| bias.elem_count() * bias.dtype().size_in_bytes());
        self.weight.as_ref().map_or(0, FrozenWeight::bytes) + bias as u64
    }
}

impl fmt::Debug for Patches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Patches({} layers, {})", self.layers(), self.digest.to_hex())
    }
}

/// `sum += scale · a·b`, where `a` is `[rows, rank]` and `b` `[rank, columns]`.
pub(crate) fn add_product(sum: &mut [f32], a: &[f32], b: &[f32], rank: usize, scale: f32, cx: &Context) {
    let (rows, columns) = (a.len() / rank, b.len() / rank);
    let shape = MatmulShape { batch: 1, m: rows, n: columns, k: rank };
    let epilogue = luna_kernels::Epilogue { scale, accumulate: true, ..Default::default() };
    let (a, b) = (Operand::contiguous(a, rows, rank), Operand::contiguous(b, rank, columns));
    luna_kernels::matmul(&a, &b, sum, shape, &epilogue, cx);
}
