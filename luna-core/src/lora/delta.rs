//! An adapter at one layer of a model. Enters: a typed adapter, a strength, and which of its rows are the layer's.
//! Leaves: what `nn` adds to that layer's weight. It must not know names.
//!
//! Every kind is a difference from the frozen weight, times its strength: differences add, whatever their order.

use super::adapter::{Dora, DoraConvention, Kind, KroneckerSide, WeightChange};
use super::{factor::Factor, pair::Pair};
use crate::{
    Result,
    nn::{Delta, LowRank, StoredTensor, add_product},
};
use luna_kernels::Context;
use rayon::prelude::*;
use std::{ops::Range, sync::Arc};

/// What is added to a norm before it divides, as ComfyUI does.
const EPS: f32 = f32::EPSILON;
/// Values of intermediate products that are held at a time.
const CHUNK: usize = 1 << 18;

/// What DoRA's magnitudes are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Norms {
    /// Each output of the changed weight.
    Outputs,
    /// Each output of the frozen weight.
    FrozenOutputs,
    /// Each input of the changed weight.
    Inputs,
}

impl Norms {
    /// What a convention and the magnitudes' first side come to.
    pub(super) fn of(dora: &Dora, convention: DoraConvention, outputs: usize) -> Self {
        match convention {
            DoraConvention::Peft => Self::Outputs,
            DoraConvention::ComfyUi if dora.magnitude.shape.first() == Some(&outputs) => Self::FrozenOutputs,
            DoraConvention::ComfyUi => Self::Inputs,
        }
    }
}

/// An adapter's difference at one layer.
pub(super) struct LayerDelta {
    pub(super) change: Arc<WeightChange>,
    /// Which norms DoRA's magnitudes divide by.
    pub(super) norms: Norms,
    pub(super) strength: f32,
    /// The rows of the adapter that are the layer's outputs.
    pub(super) rows: Range<usize>,
    /// Outputs, and inputs times taps.
    pub(super) matrix: (usize, usize),
    /// Weights of one input and one output: the area of a convolution's kernel.
    pub(super) taps: usize,
}

impl Delta for LayerDelta {
    fn low_rank(&self) -> Option<&dyn LowRank> {
        match (&self.change.kind, &self.change.dora) {
            (Kind::LowRank(_), None) => Some(self),
            _ => None,
        }
    }

    fn reads_base(&self) -> bool {
        self.change.dora.is_some() || matches!(self.change.kind, Kind::Rotation(_) | Kind::Generalised { .. })
    }

    fn add_to(&self, sum: &mut [f32], base: &[f32], cx: &Context) -> Result<()> {
        let Some(dora) = &self.change.dora else {
            return self.add_plain(sum, base, self.strength * self.change.scale, cx);
        };
        let mut changed = base.to_vec();
        self.add_plain(&mut changed, base, self.change.scale, cx)?;
        self.set_magnitudes(&mut changed, base, dora);
        let differences = sum.par_iter_mut().zip(changed.par_iter().zip(base));
        differences.for_each(|(sum, (changed, base))| *sum += self.strength * (changed - base));
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.change.bytes()
    }
}

impl LowRank for LayerDelta {
    fn rank(&self) -> usize {
        self.pair().rank
    }

    fn down(&self) -> StoredTensor<'_> {
        self.pair().stored_down()
    }

    fn up(&self) -> StoredTensor<'_> {
        self.pair().stored_up(self.rows.clone())
    }

    fn strength(&self) -> f32 {
        self.strength * self.change.scale
    }
}

impl LayerDelta {
    fn pair(&self) -> &Pair {
        match &self.change.kind {
            Kind::LowRank(pair) => pair,
            _ => unreachable!("asked of low-rank adapters only"),
        }
    }

    /// Adds `factor · ΔW`, without DoRA's magnitudes.
    fn add_plain(&self, sum: &mut [f32], base: &[f32], factor: f32, cx: &Context) -> Result<()> {
        let (outputs, columns) = self.matrix;
        let rows = self.rows.clone();
        match &self.change.kind {
            Kind::LowRank(pair) => add_product(sum, &pair.up(rows), &pair.down(), pair.rank, factor, cx),
            Kind::Hadamard(pairs) => self.add_hadamard(sum, pairs, factor, cx),
            Kind::Kronecker(sides) => self.add_kronecker(sum, sides, factor, cx),
            Kind::Full(values) => {
                let values = values.rows(rows);
                sum.par_iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
            }
            Kind::Rotation(rotation) => rotation.add_to(sum, base, factor)?,
            Kind::Generalised { outer, inner, pair } => {
                self.add_through(sum, base, [outer, inner], factor, cx);
                add_product(sum, &pair.up(0..outputs), &pair.down(), pair.rank, factor, cx);
            }
        }
        debug_assert_eq!(sum.len(), outputs * columns);
        Ok(())
    }

    fn add_hadamard(&self, sum: &mut [f32], pairs: &[Pair; 2], factor: f32, cx: &Context) {
        let columns = self.matrix.1;
        let sides = pairs.each_ref().map(|pair| (pair.up(self.rows.clone()), pair.down(), pair.rank));
        let rows = (CHUNK / columns).max(1);
        for (chunk, sum) in sum.chunks_mut(rows * columns).enumerate() {
            let [first, second] = sides.each_ref().map(|(up, down, rank)| {
                let mut product = vec![0.0; sum.len()];
                let start = chunk * rows * rank;
                add_product(&mut product, &up[start..start + sum.len() / columns * rank], down, *rank, 1.0, cx);
                product
            });
            sum.iter_mut().zip(first.iter().zip(&second)).for_each(|(sum, (a, b))| *sum += factor * a * b);
        }
    }

    fn add_kronecker(&self, sum: &mut [f32], sides: &[KroneckerSide; 2], factor: f32, cx: &Context) {
        let [first, second] = sides.each_ref().map(|side| match side {
            KroneckerSide::Whole(factor) => factor.values(),
            KroneckerSide::Pair(pair) => {
                let mut product = vec![0.0; pair.rows * pair.columns];
                add_product(&mut product, &pair.up(0..pair.rows), &pair.down(), pair.rank, 1.0, cx);
                product
            }
        });
        let ((_, first_columns), (second_rows, second_columns)) = (sides[0].matrix(), sides[1].matrix());
        sum.par_chunks_exact_mut(self.matrix.1).zip(self.rows.clone()).for_each(|(sum, row)| {
            let times = &first[row / second_rows * first_columns..][..first_columns];
            let line = &second[row % second_rows * second_columns..][..second_columns];
            for (sum, times) in sum.chunks_exact_mut(second_columns).zip(times) {
                sum.iter_mut().zip(line).for_each(|(sum, value)| *sum += factor * times * value);
            }
        });
    }

    /// Adds `factor · W·outer·inner` over the inputs, tap by tap.
    fn add_through(&self, sum: &mut [f32], base: &[f32], [outer, inner]: [&Factor; 2], factor: f32, cx: &Context) {
        let (inputs, rank) = outer.matrix();
        let (outer, inner, taps) = (outer.values(), inner.values(), self.taps);
        let mut between = vec![0.0; self.matrix.0 * rank];
        for tap in 0..taps {
            let slice: Vec<f32> = base.iter().skip(tap).step_by(taps).copied().collect();
            between.fill(0.0);
            add_product(&mut between, &slice, &outer, inputs, 1.0, cx);
            let mut added = vec![0.0; slice.len()];
            add_product(&mut added, &between, &inner, rank, factor, cx);
            sum.iter_mut().skip(tap).step_by(taps).zip(added).for_each(|(sum, added)| *sum += added);
        }
    }

    /// `changed ← m · changed / ‖·‖`.
    fn set_magnitudes(&self, changed: &mut [f32], base: &[f32], dora: &Dora) {
        let columns = self.matrix.1;
        let norm = |row: &[f32]| row.iter().map(|value| value * value).sum::<f32>().sqrt();
        let magnitudes = dora.magnitude.values();
        if self.norms != Norms::Inputs {
            let magnitudes = &magnitudes[self.rows.clone()];
            let rows = changed.par_chunks_exact_mut(columns).zip(base.par_chunks_exact(columns)).zip(magnitudes);
            rows.for_each(|((changed, base), magnitude)| {
                let norm = if self.norms == Norms::FrozenOutputs { norm(base) + EPS } else { norm(changed) };
                changed.iter_mut().for_each(|value| *value *= magnitude / norm);
            });
            return;
        }
        let taps = self.taps;
        let mut squares = vec![0.0f32; columns / taps];
        for row in changed.chunks_exact(columns) {
            for (square, values) in squares.iter_mut().zip(row.chunks_exact(taps)) {
                *square += values.iter().map(|value| value * value).sum::<f32>();
            }
        }
        let times: Vec<f32> = squares.iter().zip(&magnitudes).map(|(square, m)| m / (square.sqrt() + EPS)).collect();
        changed.par_chunks_exact_mut(columns).for_each(|row| {
            for (values, times) in row.chunks_exact_mut(taps).zip(&times) {
                values.iter_mut().for_each(|value| *value *= times);
            }
        });
    }
}
