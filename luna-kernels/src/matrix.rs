//! Linear layers: activations times a frozen weight matrix.
//!
//! Enters: a weight `[n, k]` (PyTorch's `Linear` layout) packed once, activations `[m, k]`. Leaves: `[m, n]`.

use crate::gemm::epilogue::OutPtr;
use crate::gemm::rows::{Matrix, PairMatrix};
use crate::gemm::vector::VectorProduct;
use crate::gemm::{Branch, Epilogue, Product};
use crate::isa::Context;
use crate::panel::{PackedPanels, Storage};
use crate::scalar::Scalar;
use crate::weight::{WeightType, WeightView};
use crate::workspace::Buffer;
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
        Self { panels: PackedPanels::pack_rows(w, n, k, Storage::own) }
    }

    /// The same in memory of the workspace, for a weight that serves one call.
    ///
    /// # Panics
    /// As [`PackedMatrix::pack`].
    pub fn pack_for_call(w: WeightView<'_>, n: usize, k: usize, cx: &Context<'_>) -> Self {
        if w.dtype.is_quantised() {
            return Self::pack(w, n, k);
        }
        Self { panels: PackedPanels::pack_rows(w, n, k, |bytes| Storage::lent(bytes, cx)) }
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
    T::linear(a, m, w, None, out, e, cx);
}

/// `strength · hidden · upᵀ`, to be added to a product before its epilogue: a LoRA beside a frozen weight.
#[derive(Clone, Copy)]
pub struct LowRankBranch<'a, T> {
    /// `[m, rank]`: the product's input times the down factor.
    pub hidden: &'a [T],
    /// `[n, rank]`.
    pub up: &'a PackedMatrix,
    /// Factor on the branch, whatever that on the product is.
    pub strength: f32,
}

/// As [`linear`], with a branch of low rank beside the weight: `out = epilogue(a · Wᵀ + strength · hidden · upᵀ)`, where the
/// epilogue's scale is of the weight alone.
///
/// ```
/// use luna_kernels::{Context, Epilogue, LowRankBranch, PackedMatrix, Workspace, linear_with_branch};
///
/// let w = PackedMatrix::from_f32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3);
/// let up = PackedMatrix::from_f32(&[1.0, 10.0], 2, 1); // rank 1
/// let branch = LowRankBranch { hidden: &[2.0], up: &up, strength: 0.5 };
/// let (workspace, mut out) = (Workspace::new(), [0.0; 2]);
/// linear_with_branch(&[1.0, 0.0, -1.0], 1, &w, &branch, &mut out, &Epilogue::default(), &Context::new(&workspace));
/// assert_eq!(out, [-1.0, 8.0]);
/// ```
///
/// # Panics
/// If a slice does not have the size its shape says, or the epilogue's scale is 0.
pub fn linear_with_branch<T: Scalar>(
    a: &[T],
    m: usize,
    w: &PackedMatrix,
    branch: &LowRankBranch<'_, T>,
    out: &mut [T],
    e: &Epilogue<'_, T>,
    cx: &Context<'_>,
) {
    assert!(e.scale != 0.0, "a weight that counts nothing has no branch beside it");
    T::linear(a, m, w, Some(branch), out, e, cx);
}

/// [`linear`], compiled once for each element type.
pub(crate) fn linear_of<T: Scalar>(
    a: &[T],
    m: usize,
    w: &PackedMatrix,
    branch: Option<&LowRankBranch<'_, T>>,
    out: &mut [T],
    e: &Epilogue<'_, T>,
    cx: &Context<'_>,
) {
    let (n, k) = (w.n(), w.k());
    assert_eq!(a.len(), m * k, "input must be [m, k] = [{m}, {k}]");
    assert_eq!(out.len(), m * n, "output must be [m, n] = [{m}, {n}]");
    e.check(n, out.len());
    if let Some(LowRankBranch { hidden, up, .. }) = branch {
        let rank = up.k();
        assert!(hidden.len() == m * rank && up.n() == n, "a branch must be [{m}, {rank}] and [{n}, {rank}]");
    }
    let (panels, out) = (w.panels.view(), OutPtr::new(out));
    if m == 1 && !w.dtype().is_quantised() {
        // Of one row, what the branch adds is a bias.
        let bias = branch.map(|branch| one_row_of(branch, e.bias, cx));
        let epilogue = Epilogue { bias: bias.as_deref().or(e.bias), ..*e };
        return VectorProduct { row: &widened(a, cx), panels, out, epilogue }.run(cx);
    }
    let branch = branch.map(|LowRankBranch { hidden, up, strength }| Branch {
        hidden,
        up: up.panels.view(),
        factor: strength / e.scale,
    });
    if let Some(panels) = panels.as_pairs().filter(|_| T::IS_BF16 && cx.isa().has_dot_bf16()) {
        let rows = PairMatrix { data: a, stride: k, out_stride: n };
        return Product { rows: &rows, m, panels, pairs: true, branch, out, epilogue: *e }.run(cx);
    }
    let rows = Matrix { data: a, stride: k, out_stride: n };
    Product { rows: &rows, m, panels, pairs: false, branch, out, epilogue: *e }.run(cx);
}

fn widened<T: Scalar>(row: &[T], cx: &Context<'_>) -> Buffer<f32> {
    let mut wide = cx.workspace().take::<f32>(row.len());
    wide.iter_mut().zip(row).for_each(|(wide, value)| *wide = value.to_f32());
    wide
}

/// `bias + strength · hidden · upᵀ` of one row.
fn one_row_of<T: Scalar>(branch: &LowRankBranch<'_, T>, bias: Option<&[f32]>, cx: &Context<'_>) -> Vec<f32> {
    let LowRankBranch { hidden, up, strength } = *branch;
    let mut sum = bias.map_or_else(|| vec![0.0; up.n()], <[f32]>::to_vec);
    let epilogue = Epilogue { scale: strength, accumulate: true, ..Epilogue::default() };
    let (panels, out) = (up.panels.view(), OutPtr::new(&mut sum));
    VectorProduct { row: &widened(hidden, cx), panels, out, epilogue }.run(cx);
    sum
}
