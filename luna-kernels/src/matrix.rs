//! Linear layers: activations times a frozen weight matrix.
//!
//! Enters: a weight `[n, k]` (PyTorch's `Linear` layout) packed once, activations `[m, k]`. Leaves: `[m, n]`.

use crate::gemm::epilogue::OutPtr;
use crate::gemm::rows::{Matrix, PairMatrix};
use crate::gemm::vector::VectorProduct;
use crate::gemm::{Epilogue, Product};
use crate::isa::Context;
use crate::panel::PackedPanels;
use crate::scalar::Scalar;
use crate::weight::{WeightType, WeightView};
use rayon::prelude::*;

/// A frozen weight matrix `[n, k]`, packed for [`linear`] in the element type it is stored in.
pub struct PackedMatrix {
    pub(crate) panels: PackedPanels,
}

impl PackedMatrix {
    /// Packs a row-major `[n, k]` weight. The bytes may have any alignment.
    ///
    /// # Panics
    /// If `w` does not hold `n * k` elements, or `k` is no multiple of a quantised type's block.
    pub fn pack(w: WeightView<'_>, n: usize, k: usize) -> Self {
        if w.dtype.is_quantised() {
            return Self { panels: PackedPanels::pack_blocks(w, n, k) };
        }
        Self { panels: PackedPanels::pack_rows(w, n, k) }
    }

    /// Packs f32 values of this machine, row-major `[n, k]`.
    ///
    /// # Panics
    /// If `w` does not hold `n * k` values.
    pub fn from_f32(w: &[f32], n: usize, k: usize) -> Self {
        Self::pack(WeightView::from_f32(w), n, k)
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.panels.view().n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.panels.view().k
    }

    /// Element type kept.
    pub fn dtype(&self) -> WeightType {
        self.panels.view().dtype()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.panels.bytes()
    }

    /// Writes the weight back as row-major `[n, k]` f32; the values are exactly those packed.
    ///
    /// # Panics
    /// If `out` does not hold `n * k` values.
    pub fn unpack_f32(&self, out: &mut [f32]) {
        assert_eq!(out.len(), self.n() * self.k(), "output must hold n * k values");
        if !out.is_empty() {
            out.par_chunks_exact_mut(self.k()).enumerate().for_each(|(row, out)| self.unpack_row_f32(row, out));
        }
    }

    /// Writes row `row` (the weights of one output feature, or one embedding) as `k` f32 values.
    ///
    /// # Panics
    /// If there is no such row or `out` does not hold `k` values.
    pub fn unpack_row_f32(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.n() && out.len() == self.k(), "row {row} of {} into {} values", self.n(), out.len());
        self.panels.view().column(row, out);
    }
}

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedMatrix")
            .field("n", &self.n())
            .field("k", &self.k())
            .field("dtype", &self.dtype())
            .finish()
    }
}

/// `out = epilogue(a · Wᵀ)`: `a` is `[m, k]`, `out` is `[m, n]`.
///
/// ```
/// use luna_kernels::{Context, Epilogue, PackedMatrix, Workspace, linear};
///
/// let w = PackedMatrix::from_f32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3); // two output features
/// let workspace = Workspace::new();
/// let mut out = [0.0; 2];
/// let e = Epilogue { bias: Some(&[0.5, -0.5]), ..Epilogue::default() };
/// linear(&[1.0, 0.0, -1.0], 1, &w, &mut out, &e, &Context::new(&workspace));
/// assert_eq!(out, [-1.5, -2.5]);
/// ```
///
/// # Panics
/// If a slice does not have the size its shape says.
pub fn linear<T: Scalar>(a: &[T], m: usize, w: &PackedMatrix, out: &mut [T], e: &Epilogue<'_, T>, cx: &Context<'_>) {
    T::linear(a, m, w, out, e, cx);
}

/// [`linear`], compiled once for each element type.
pub(crate) fn linear_of<T: Scalar>(
    a: &[T],
    m: usize,
    w: &PackedMatrix,
    out: &mut [T],
    e: &Epilogue<'_, T>,
    cx: &Context<'_>,
) {
    let (n, k) = (w.n(), w.k());
    assert_eq!(a.len(), m * k, "input must be [m, k] = [{m}, {k}]");
    assert_eq!(out.len(), m * n, "output must be [m, n] = [{m}, {n}]");
    e.check(n, out.len());
    let (panels, out) = (w.panels.view(), OutPtr::new(out));
    if m == 1 && !w.dtype().is_quantised() {
        let mut row = cx.workspace().take::<f32>(k);
        row.iter_mut().zip(a).for_each(|(wide, value)| *wide = value.to_f32());
        return VectorProduct { row: &row, panels, out, epilogue: *e }.run(cx);
    }
    if let Some(panels) = panels.as_pairs().filter(|_| T::IS_BF16 && cx.isa().has_dot_bf16()) {
        let rows = PairMatrix { data: a, stride: k, out_stride: n };
        return Product { rows: &rows, m, panels, pairs: true, out, epilogue: *e }.run(cx);
    }
    let rows = Matrix { data: a, stride: k, out_stride: n };
    Product { rows: &rows, m, panels, pairs: false, out, epilogue: *e }.run(cx);
}
