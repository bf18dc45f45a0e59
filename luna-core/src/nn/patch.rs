//! What a request adds to a model. Enters: for some layers, differences of their weights and biases. Leaves: for each
//! call of such a layer, what it computes with. It must not know files or whose names they bear.
//!
//! The frozen weight is never written. A layer whose differences all have a low-rank form runs them as a branch,
//! `y = W·x + B·(A·x)`, or builds `W + B·A` just before use and drops it just after, whichever is cheaper for the number
//! of rows at hand. Other differences are always built.

use super::{
    Pass, Tensor,
    frozen::{FrozenLayer, FrozenWeight, FrozenWeights},
    linear::Affine,
};
use crate::{Error, ErrorKind, Result};
use candle_core::Device;
use luna_kernels::{Context, ConvShape, MatmulShape, Operand, PackedConv, PackedMatrix};
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

/// `ΔW = up · down`.
pub(crate) trait LowRank {
    fn rank(&self) -> usize;

    /// `[rank, inputs · taps]`.
    fn down(&self) -> Vec<f32>;

    /// `[outputs, rank]`, strength included.
    fn up(&self) -> Vec<f32>;
}

/// What is added to one layer.
#[derive(Clone, Default)]
pub(crate) struct LayerPatch {
    pub(crate) deltas: Vec<Arc<dyn Delta>>,
    /// Added to the bias, `[outputs]`.
    pub(crate) bias: Option<Vec<f32>>,
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
#[derive(Clone)]
pub struct Patches {
    layers: BTreeMap<usize, LayerPatch>,
    /// Of the model these are for.
    layout: blake3::Hash,
    digest: blake3::Hash,
    rule: BranchRule,
}

impl Patches {
    /// For the layers with these numbers in `model`. `digest` is over all that shapes the differences.
    pub(crate) fn new(layers: BTreeMap<usize, LayerPatch>, model: &FrozenWeights, digest: blake3::Hash) -> Self {
        Self { layers, layout: model.layout(), digest, rule: BranchRule::default() }
    }

    #[cfg(test)]
    pub(crate) fn with_rule(self, rule: BranchRule) -> Self {
        Self { rule, ..self }
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

    /// Bytes of all differences as they are held; files that are used twice count twice.
    pub fn bytes(&self) -> u64 {
        let layer = |patch: &LayerPatch| {
            let bias = patch.bias.as_ref().map_or(0, |bias| 4 * bias.len() as u64);
            bias + patch.deltas.iter().map(|delta| delta.bytes()).sum::<u64>()
        };
        self.layers.values().map(layer).sum()
    }

    /// Refuses a model that these were not resolved for.
    pub(crate) fn check(&self, model: &FrozenWeights) -> Result<()> {
        if self.is_empty() || self.layout == model.layout() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "the LoRA patches were resolved for another model")
            .expected("patches resolved for the model that is called")
            .remedy("resolve the stack for this model"))
    }

    pub(super) fn of(&self, layer: &FrozenLayer) -> Option<Patch<'_>> {
        self.layers.get(&layer.index).map(|layers| Patch { layers, rule: self.rule })
    }
}

impl fmt::Debug for Patches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Patches({} layers, {})", self.layers(), self.digest.to_hex())
    }
}

/// What is added to the layer at hand.
#[derive(Clone, Copy)]
pub(super) struct Patch<'a> {
    layers: &'a LayerPatch,
    rule: BranchRule,
}

/// What a patched layer computes with.
pub(super) enum PatchedWeight {
    /// The frozen weight: only the bias differs.
    Frozen,
    /// This weight in place of the frozen one, scale included.
    Built(FrozenWeight),
    /// The frozen weight and a branch beside it.
    Branch(Branch),
}

/// All low-rank differences of a layer side by side.
pub(super) struct Branch {
    /// `[rank, inputs]`, or a convolution to `rank` channels.
    pub(super) down: FrozenWeight,
    /// `[outputs, rank]`.
    pub(super) up: FrozenWeight,
}

/// Work on one weight that is unpacked and packed again, in multiply-adds that take as long.
const PASS_COST: usize = 48;
/// Columns that the matrix product computes together: a lower rank saves nothing.
const PANEL: usize = 32;

impl Patch<'_> {
    /// What the layer computes with on `rows` rows: tokens, or pixels of the output.
    pub(super) fn weight(&self, layer: &FrozenLayer, rows: usize, cx: &Context) -> Result<PatchedWeight> {
        if self.layers.deltas.is_empty() {
            return Ok(PatchedWeight::Frozen);
        }
        let low: Option<Vec<&dyn LowRank>> = self.layers.deltas.iter().map(|delta| delta.low_rank()).collect();
        match low {
            Some(low) if self.branches(layer, low.iter().map(|low| low.rank()).sum(), rows) => {
                Ok(PatchedWeight::Branch(branch(layer, &low)?))
            }
            _ => Ok(PatchedWeight::Built(layer.packed(&self.built(layer, cx)?)?)),
        }
    }

    /// Whether a branch is cheaper than a built weight.
    fn branches(&self, layer: &FrozenLayer, rank: usize, rows: usize) -> bool {
        match self.rule {
            BranchRule::Cheaper => {}
            #[cfg(test)]
            BranchRule::Branch => return true,
            #[cfg(test)]
            BranchRule::Build => return false,
        }
        let (outputs, inputs) = layer.matrix();
        let (weights, sides) = (outputs * inputs, outputs + inputs);
        let branch = rows * (rank.next_multiple_of(PANEL) * inputs + rank * outputs) + rank * sides * PASS_COST;
        branch <= weights * (rank + PASS_COST)
    }

    /// The patched weight, row-major.
    fn built(&self, layer: &FrozenLayer, cx: &Context) -> Result<Vec<f32>> {
        let mut sum = layer.unpacked()?;
        let base = match self.layers.deltas.iter().any(|delta| delta.reads_base()) {
            true => sum.clone(),
            false => Vec::new(),
        };
        self.layers.deltas.iter().try_for_each(|delta| delta.add_to(&mut sum, &base, cx))?;
        Ok(sum)
    }

    /// The bias with what is added to it.
    pub(super) fn bias(&self, layer: &FrozenLayer) -> Result<Option<Tensor>> {
        let Some(added) = &self.layers.bias else { return Ok(layer.bias.clone()) };
        let added = Tensor::from_slice(added, added.len(), &Device::Cpu)?;
        Ok(Some(match &layer.bias {
            Some(bias) => (bias + added.to_dtype(bias.dtype())?.to_device(bias.device())?)?,
            None => added.to_dtype(layer.dtype())?.to_device(&layer.device())?,
        }))
    }
}

/// All `low` as one pair: `down` below each other, `up` beside each other.
fn branch(layer: &FrozenLayer, low: &[&dyn LowRank]) -> Result<Branch> {
    let (outputs, inputs) = layer.matrix();
    let rank: usize = low.iter().map(|low| low.rank()).sum();
    let down: Vec<f32> = match low {
        [one] => one.down(),
        _ => low.iter().flat_map(|low| low.down()).collect(),
    };
    let up = match low {
        [one] => one.up(),
        _ => {
            let mut up = vec![0.0; outputs * rank];
            let mut column = 0;
            for low in low {
                let own = low.rank();
                for (to, from) in up.chunks_exact_mut(rank).zip(low.up().chunks_exact(own)) {
                    to[column..column + own].copy_from_slice(from);
                }
                column += own;
            }
            up
        }
    };
    let down = match &layer.weight {
        FrozenWeight::Matrix(_) => FrozenWeight::Matrix(PackedMatrix::from_f32(&down, rank, inputs)),
        FrozenWeight::Conv(conv) => {
            FrozenWeight::Conv(PackedConv::from_f32(&down, ConvShape { cout: rank, ..conv.shape() }))
        }
        FrozenWeight::Tensor(weight) => {
            let shape: Vec<usize> = std::iter::once(rank).chain(layer.shape[1..].iter().copied()).collect();
            FrozenWeight::Tensor(like(&down, &shape, weight)?)
        }
    };
    let up = match &layer.weight {
        FrozenWeight::Tensor(weight) => FrozenWeight::Tensor(like(&up, &[outputs, rank], weight)?),
        _ => FrozenWeight::Matrix(PackedMatrix::from_f32(&up, outputs, rank)),
    };
    Ok(Branch { down, up })
}

/// Values as a tensor of the precision and on the device of another.
fn like(values: &[f32], shape: &[usize], other: &Tensor) -> Result<Tensor> {
    Ok(Tensor::from_slice(values, shape, &Device::Cpu)?.to_dtype(other.dtype())?.to_device(other.device())?)
}

impl FrozenLayer {
    /// Outputs, and inputs times taps. A vector has one input.
    pub(crate) fn matrix(&self) -> (usize, usize) {
        let (outputs, rest) = self.shape.split_first().map_or((1, &[][..]), |(outputs, rest)| (*outputs, rest));
        (outputs, rest.iter().product())
    }

    /// The weight as the layer counts it, row-major.
    fn unpacked(&self) -> Result<Vec<f32>> {
        let mut values = match &self.weight {
            FrozenWeight::Tensor(tensor) => {
                return Ok(tensor.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?);
            }
            _ => vec![0.0; self.shape.iter().product()],
        };
        match &self.weight {
            FrozenWeight::Matrix(matrix) => matrix.unpack_f32(&mut values),
            FrozenWeight::Conv(conv) => conv.unpack_f32(&mut values),
            FrozenWeight::Tensor(_) => unreachable!("returned above"),
        }
        if self.scale != 1.0 {
            values.iter_mut().for_each(|value| *value *= self.scale);
        }
        Ok(values)
    }

    /// Values in the form this layer's weight is held in.
    fn packed(&self, values: &[f32]) -> Result<FrozenWeight> {
        Ok(match &self.weight {
            FrozenWeight::Matrix(matrix) => {
                FrozenWeight::Matrix(PackedMatrix::from_f32(values, matrix.n(), matrix.k()))
            }
            FrozenWeight::Conv(conv) => FrozenWeight::Conv(PackedConv::from_f32(values, conv.shape())),
            FrozenWeight::Tensor(tensor) => FrozenWeight::Tensor(like(values, &self.shape, tensor)?),
        })
    }

    fn dtype(&self) -> candle_core::DType {
        match &self.weight {
            FrozenWeight::Tensor(tensor) => tensor.dtype(),
            _ => candle_core::DType::F32,
        }
    }

    fn device(&self) -> Device {
        match &self.weight {
            FrozenWeight::Tensor(tensor) => tensor.device().clone(),
            _ => Device::Cpu,
        }
    }

    /// The vector of a norm or parameter, patched.
    pub(super) fn vector(&self, pass: &Pass) -> Result<Tensor> {
        let FrozenWeight::Tensor(frozen) = &self.weight else { unreachable!("a vector is never packed") };
        match pass.patch(self).map(|patch| patch.weight(self, 1, &pass.cx())).transpose()? {
            Some(PatchedWeight::Built(FrozenWeight::Tensor(built))) => Ok(built),
            _ => Ok(frozen.clone()),
        }
    }

    /// The bias, patched.
    pub(super) fn patched_bias(&self, pass: &Pass) -> Result<Option<Tensor>> {
        pass.patch(self).map_or_else(|| Ok(self.bias.clone()), |patch| patch.bias(self))
    }

    /// What the frozen weight's products are scaled by and what is added to them.
    pub(super) fn affine<'a>(&'a self, bias: Option<&'a Tensor>) -> Affine<'a> {
        Affine { scale: self.scale, bias }
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
