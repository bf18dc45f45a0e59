//! A branch of low rank beside a product: what a LoRA adds, without a pass of its own over the output.
//!
//! Enters: rows that a first factor has narrowed, and panels of the second factor. Leaves: sums, added to those of the product's panels.

use super::micro::{Groups, Multiply};
use super::rows::Matrix;
use super::{Pack, lines};
use crate::isa::Isa;
use crate::panel::{NR, Panels};
use crate::scalar::Scalar;

/// `factor · hidden · upᵀ`, to be added to a product's sums.
pub(crate) struct Branch<'a, T> {
    /// `[m, rank]`.
    pub(crate) hidden: &'a [T],
    /// `[n, rank]`.
    pub(crate) up: Panels<'a>,
    pub(crate) factor: f32,
}

impl<T: Scalar> Branch<'_, T> {
    /// f32 elements of `rows` packed rows.
    pub(crate) fn packed_len(&self, rows: usize) -> usize {
        rows * lines(self.up.k)
    }

    /// f32 elements of a widened panel.
    pub(crate) fn widened_len(&self) -> usize {
        self.up.k * NR
    }

    /// Packs rows from `first` on, times the factor.
    pub(crate) fn pack(&self, isa: Isa, first: usize, groups: Groups, packed: &mut [f32]) {
        let (rank, depth) = (self.up.k, lines(self.up.k));
        let rows = &Matrix { data: self.hidden, stride: rank, out_stride: 0 };
        for group in groups.iter() {
            let packed = &mut packed[group.start * depth..group.end * depth];
            isa.run(Pack { rows, first: first + group.start, count: group.len(), depth: rank, packed });
        }
        packed.iter_mut().for_each(|value| *value *= self.factor);
    }

    /// Adds what the packed rows make with panel `p` to `sums`.
    pub(crate) fn add(&self, isa: Isa, p: usize, packed: (&[f32], Groups), sums: &mut [f32], scratch: &mut [f32]) {
        let rank = self.up.k;
        isa.run(Multiply {
            a: packed.0,
            depth: lines(rank),
            k0: 0,
            b: self.up.widened(isa, p, 0, rank, scratch),
            k: rank,
            c: sums,
            groups: packed.1,
            columns: self.up.columns(p),
            accumulate: true,
            ahead: &[],
        });
    }
}
