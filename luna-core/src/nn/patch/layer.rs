//! One layer of a model with what a request adds to it. Enters: the frozen layer, the number of rows at hand. Leaves:
//! the weight, the branch and the bias that this call of it computes with.

use super::{BranchRule, LayerPatch, LowRank, PatchedRun};
use crate::{
    Result,
    nn::{
        Pass, Tensor,
        frozen::{FrozenLayer, FrozenWeight, like},
        linear::Affine,
    },
};
use candle_core::Device;
use luna_kernels::{Context, ConvShape, Home, PackedConv, PackedMatrix, WeightView};

/// What is added to the layer at hand.
#[derive(Clone, Copy)]
pub(in crate::nn) struct Patch<'a> {
    pub(super) patch: &'a LayerPatch,
    pub(super) rule: BranchRule,
}

/// What a patched layer computes with.
pub(in crate::nn) enum PatchedWeight<'a> {
    /// The frozen weight: only the bias differs.
    Frozen,
    /// This weight in place of the frozen one, scale included.
    Built(FrozenWeight),
    /// As `Built`, made before.
    Merged(&'a FrozenWeight),
    /// The frozen weight and a branch beside it.
    Branch(Branch),
}

/// All low-rank differences of a layer side by side.
pub(in crate::nn) struct Branch {
    /// `[rank, inputs]`, or a convolution to `rank` channels.
    pub(in crate::nn) down: FrozenWeight,
    /// `[outputs, rank]`.
    pub(in crate::nn) up: FrozenWeight,
    /// What their product counts.
    pub(in crate::nn) strength: f32,
}

/// Work on one weight that is unpacked and packed again, in multiply-adds that take as long.
const PASS_COST: usize = 48;
/// Columns that the matrix product computes together: a lower rank saves nothing.
const PANEL: usize = 32;

impl<'a> Patch<'a> {
    /// What the layer computes with on `rows` rows: tokens, or pixels of the output.
    pub(in crate::nn) fn weight(&self, layer: &FrozenLayer, rows: usize, pass: &Pass) -> Result<PatchedWeight<'a>> {
        let weight = self.chosen(layer, rows, &pass.cx())?;
        pass.note(
            layer,
            match &weight {
                PatchedWeight::Frozen => PatchedRun::Bias,
                PatchedWeight::Built(_) => PatchedRun::Built,
                PatchedWeight::Merged(_) => PatchedRun::Merged,
                PatchedWeight::Branch(_) => PatchedRun::Branch,
            },
        );
        Ok(weight)
    }

    fn chosen(&self, layer: &FrozenLayer, rows: usize, cx: &Context) -> Result<PatchedWeight<'a>> {
        if let Some(merged) = &self.patch.merged {
            return Ok(merged.weight.as_ref().map_or(PatchedWeight::Frozen, PatchedWeight::Merged));
        }
        if self.patch.deltas.is_empty() {
            return Ok(PatchedWeight::Frozen);
        }
        match self.low_rank() {
            Some(low) if self.branches(layer, low.iter().map(|low| low.rank()).sum(), rows) => {
                Ok(PatchedWeight::Branch(branch(layer, &low, cx)?))
            }
            _ => Ok(PatchedWeight::Built(self.packed(layer, Home::Workspace, cx)?)),
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

    /// The patched weight in the form of the frozen one.
    pub(super) fn packed(&self, layer: &FrozenLayer, home: Home, cx: &Context) -> Result<FrozenWeight> {
        let low = self.low_rank().filter(|_| !matches!(layer.weight, FrozenWeight::Tensor(_)));
        if let Some(Factors { up, down, .. }) = low.map(|low| Factors::of(layer, &low)) {
            match &layer.weight {
                FrozenWeight::Matrix(frozen) => {
                    return Ok(FrozenWeight::Matrix(frozen.plus_low_rank(layer.scale, &up, &down, home, cx)));
                }
                FrozenWeight::Conv(frozen) => {
                    return Ok(FrozenWeight::Conv(frozen.plus_low_rank(layer.scale, &up, &down, home, cx)));
                }
                FrozenWeight::Tensor(_) => {}
            }
        }
        let mut sum = layer.unpacked()?;
        let base = match self.patch.deltas.iter().any(|delta| delta.reads_base()) {
            true => sum.clone(),
            false => Vec::new(),
        };
        self.patch.deltas.iter().try_for_each(|delta| delta.add_to(&mut sum, &base, cx))?;
        layer.packed(&sum)
    }

    /// All differences, if each is of low rank.
    fn low_rank(&self) -> Option<Vec<&'a dyn LowRank>> {
        self.patch.deltas.iter().map(|delta| delta.low_rank()).collect()
    }

    /// The bias with what is added to it.
    pub(in crate::nn) fn bias(&self, layer: &FrozenLayer) -> Result<Option<Tensor>> {
        if let Some(merged) = &self.patch.merged {
            return Ok(merged.bias.clone());
        }
        let Some(added) = &self.patch.bias else { return Ok(layer.bias.clone()) };
        let added = Tensor::from_slice(added, added.len(), &Device::Cpu)?;
        Ok(Some(match &layer.bias {
            Some(bias) => (bias + added.to_dtype(bias.dtype())?.to_device(bias.device())?)?,
            None => added.to_dtype(layer.dtype())?.to_device(&layer.device())?,
        }))
    }
}

/// Low-rank differences as one pair: `down` below each other, `up` beside each other.
struct Factors {
    rank: usize,
    /// `[rank, inputs · taps]`.
    down: Vec<f32>,
    /// `[outputs, rank]`, strengths included.
    up: Vec<f32>,
}

impl Factors {
    fn of(layer: &FrozenLayer, low: &[&dyn LowRank]) -> Self {
        let (outputs, _) = layer.matrix();
        let rank: usize = low.iter().map(|low| low.rank()).sum();
        let mut up = vec![0.0; outputs * rank];
        let mut column = 0;
        for low in low {
            let own = low.rank();
            for (to, from) in up.chunks_exact_mut(rank).zip(low.up().to_f32().chunks_exact(own)) {
                to[column..column + own].iter_mut().zip(from).for_each(|(to, from)| *to = low.strength() * from);
            }
            column += own;
        }
        Self { rank, down: low.iter().map(|low| low.down().to_f32()).collect::<Vec<_>>().concat(), up }
    }
}

/// The factors as layers of their own beside the frozen one: those of one adapter as they are stored.
fn branch(layer: &FrozenLayer, low: &[&dyn LowRank], cx: &Context) -> Result<Branch> {
    if let ([one], FrozenWeight::Matrix(_) | FrozenWeight::Conv(_)) = (low, &layer.weight) {
        let [down, up] = [one.down(), one.up()];
        let [down, up] = [down.kernel_bytes(), up.kernel_bytes()];
        let [down, up] = [&down, &up].map(|(dtype, bytes)| WeightView { dtype: *dtype, bytes });
        return Ok(packed_branch(layer, one.rank(), [down, up], one.strength(), cx));
    }
    let Factors { rank, down, up } = Factors::of(layer, low);
    let FrozenWeight::Tensor(weight) = &layer.weight else {
        return Ok(packed_branch(layer, rank, [&down, &up].map(|side| WeightView::from_f32(side)), 1.0, cx));
    };
    let shape: Vec<usize> = std::iter::once(rank).chain(layer.shape[1..].iter().copied()).collect();
    Ok(Branch {
        down: FrozenWeight::Tensor(like(&down, &shape, weight)?),
        up: FrozenWeight::Tensor(like(&up, &[layer.shape[0], rank], weight)?),
        strength: 1.0,
    })
}

/// `down` and `up` packed for the CPU's kernels.
fn packed_branch(layer: &FrozenLayer, rank: usize, [down, up]: [WeightView; 2], strength: f32, cx: &Context) -> Branch {
    let (outputs, inputs) = layer.matrix();
    let matrix = |view, n, k| FrozenWeight::Matrix(PackedMatrix::pack_for_call(view, n, k, cx));
    let narrowing = || match &layer.weight {
        FrozenWeight::Conv(conv) => {
            FrozenWeight::Conv(PackedConv::pack(down, ConvShape { cout: rank, ..conv.shape() }))
        }
        _ => matrix(down, rank, inputs),
    };
    // Each is little work: no thread shall fall asleep over the other's.
    let (down, up) = rayon::join(narrowing, || matrix(up, outputs, rank));
    Branch { down, up, strength }
}

impl FrozenLayer {
    /// The vector of a norm or parameter, patched.
    pub(in crate::nn) fn vector(&self, pass: &Pass) -> Result<Tensor> {
        let FrozenWeight::Tensor(frozen) = &self.weight else { unreachable!("a vector is never packed") };
        match pass.patch(self).map(|patch| patch.weight(self, 1, pass)).transpose()? {
            Some(PatchedWeight::Built(FrozenWeight::Tensor(built))) => Ok(built),
            Some(PatchedWeight::Merged(FrozenWeight::Tensor(merged))) => Ok(merged.clone()),
            _ => Ok(frozen.clone()),
        }
    }

    /// The bias, patched.
    pub(in crate::nn) fn patched_bias(&self, pass: &Pass) -> Result<Option<Tensor>> {
        pass.patch(self).map_or_else(|| Ok(self.bias.clone()), |patch| patch.bias(self))
    }

    /// What the frozen weight's products are scaled by and what is added to them.
    pub(in crate::nn) fn affine<'a>(&'a self, bias: Option<&'a Tensor>) -> Affine<'a> {
        Affine { scale: self.scale, bias }
    }
}
