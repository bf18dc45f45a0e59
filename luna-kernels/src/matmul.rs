//! Products of two activations.
//!
//! Enters: two strided batches of matrices. Leaves: a contiguous batch of products.

use crate::gemm::epilogue::OutPtr;
use crate::gemm::rows::{Matrix, Transposed};
use crate::gemm::{Epilogue, Product};
use crate::isa::{Context, Isa, Kernel};
use crate::panel::{NR, Panels};
use crate::scalar::Scalar;
use crate::simd::Simd;
use rayon::prelude::*;

/// Sizes of a batched product `[batch, m, k] · [batch, k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatmulShape {
    /// Independent products.
    pub batch: usize,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
}

/// One operand: a batch of matrices within a slice.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a, T> {
    /// The elements.
    pub data: &'a [T],
    /// Elements from one row in memory to the next.
    pub row_stride: usize,
    /// Elements from one matrix to the next; 0 shares one matrix among the batch.
    pub batch_stride: usize,
    /// The memory holds the transpose: `[k, m]` for the left operand, `[n, k]` for the right.
    pub transposed: bool,
}

impl<'a, T> Operand<'a, T> {
    /// A contiguous batch of `rows × columns` matrices, as they lie in memory.
    pub fn contiguous(data: &'a [T], rows: usize, columns: usize) -> Self {
        Self { data, row_stride: columns, batch_stride: rows * columns, transposed: false }
    }

    /// The same memory read as its transpose.
    pub fn transpose(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    fn matrix(&self, batch: usize) -> &'a [T] {
        &self.data[batch * self.batch_stride..]
    }

    /// Panics unless a `rows × columns` matrix (seen untransposed) lies within the slice for the whole batch.
    fn check(&self, batch: usize, rows: usize, columns: usize, name: &str) {
        let (lines, width) = if self.transposed { (columns, rows) } else { (rows, columns) };
        if batch * lines * width > 0 {
            let end = (batch - 1) * self.batch_stride + (lines - 1) * self.row_stride + width;
            assert!(end <= self.data.len(), "{name} operand needs {end} elements, has {}", self.data.len());
        }
    }
}

/// `out[i] = epilogue(a[i] · b[i])`, contiguous `[batch, m, n]`; the epilogue's `scale` is the usual alpha.
///
/// ```
/// use luna_kernels::{Context, Epilogue, MatmulShape, Operand, Workspace, matmul};
///
/// let (workspace, mut out) = (Workspace::new(), [0.0f32; 4]);
/// let a = Operand::contiguous(&[1.0, 2.0], 2, 1); // a LoRA's up [2, rank 1]
/// let b = Operand::contiguous(&[3.0, 4.0], 1, 2); // and down [rank 1, 2]
/// let shape = MatmulShape { batch: 1, m: 2, n: 2, k: 1 };
/// matmul(&a, &b, &mut out, shape, &Epilogue { scale: 0.5, ..Epilogue::default() }, &Context::new(&workspace));
/// assert_eq!(out, [1.5, 2.0, 3.0, 4.0]);
/// ```
///
/// # Panics
/// If a slice does not have the size its shape says.
pub fn matmul<T: Scalar>(
    a: &Operand<'_, T>,
    b: &Operand<'_, T>,
    out: &mut [T],
    shape: MatmulShape,
    e: &Epilogue<'_, T>,
    cx: &Context<'_>,
) {
    T::matmul(a, b, out, shape, e, cx);
}

/// [`matmul`], compiled once for each element type.
pub(crate) fn matmul_of<T: Scalar>(
    a: &Operand<'_, T>,
    b: &Operand<'_, T>,
    out: &mut [T],
    shape: MatmulShape,
    e: &Epilogue<'_, T>,
    cx: &Context<'_>,
) {
    let MatmulShape { batch, m, n, k } = shape;
    a.check(batch, m, k, "left");
    b.check(batch, k, n, "right");
    assert_eq!(out.len(), batch * m * n, "output must be [batch, m, n] = [{batch}, {m}, {n}]");
    e.check(n, out.len());
    if out.is_empty() {
        return;
    }
    out.par_chunks_exact_mut(m * n).enumerate().for_each(|(i, out)| {
        if cx.interrupted() {
            return;
        }
        let mut packed = cx.workspace().take::<f32>(n.div_ceil(NR) * k * NR);
        pack_panels(cx.isa(), b, i, shape, &mut packed);
        let epilogue = Epilogue { residual: e.residual.map(|all| &all[i * m * n..][..m * n]), ..*e };
        let (panels, pairs, branch, out) = (Panels::from_f32(&packed, n, k), false, None, OutPtr::new(out));
        let (data, stride, out_stride) = (a.matrix(i), a.row_stride, n);
        if a.transposed {
            Product { rows: &Transposed { data, stride, out_stride }, m, panels, pairs, branch, out, epilogue }.run(cx);
        } else {
            Product { rows: &Matrix { data, stride, out_stride }, m, panels, pairs, branch, out, epilogue }.run(cx);
        }
    });
}

/// Packs matrix `i` of the right operand as panels.
fn pack_panels<T: Scalar>(isa: Isa, b: &Operand<'_, T>, i: usize, shape: MatmulShape, packed: &mut [f32]) {
    let MatmulShape { n, k, .. } = shape;
    if k == 0 {
        return;
    }
    let (data, stride) = (b.matrix(i), b.row_stride);
    packed.par_chunks_exact_mut(k * NR).enumerate().for_each(|(p, panel)| {
        let columns = NR.min(n - p * NR);
        if b.transposed {
            isa.run(PackAcross { data: &data[p * NR * stride..], stride, columns, panel });
        } else {
            isa.run(PackAlong { data: &data[p * NR..], stride, columns, panel });
        }
    });
}

/// Packs one panel whose depths are rows in memory.
pub(crate) struct PackAlong<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) stride: usize,
    pub(crate) columns: usize,
    pub(crate) panel: &'a mut [f32],
}

impl<T: Scalar> Kernel for PackAlong<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (k, line) in self.panel.chunks_exact_mut(NR).enumerate() {
            let row = &self.data[k * self.stride..][..self.columns];
            let mut j = 0;
            while j < NR {
                let count = self.columns.saturating_sub(j).min(S::LANES);
                // SAFETY: `count` elements of the row from `j` on are there, and the line holds 32.
                unsafe {
                    let from = row.as_ptr().add(j.min(self.columns));
                    let v = if count == S::LANES { T::load(s, from) } else { T::load_head(s, from, count) };
                    s.store(line.as_mut_ptr().add(j), v);
                }
                j += S::LANES;
            }
        }
    }
}

/// Packs one panel whose columns are rows in memory.
pub(crate) struct PackAcross<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) stride: usize,
    pub(crate) columns: usize,
    pub(crate) panel: &'a mut [f32],
}

impl<T: Scalar> Kernel for PackAcross<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let depth = self.panel.len() / NR;
        self.panel.chunks_exact_mut(NR).for_each(|line| line[self.columns..].fill(0.0));
        // Blocks of depth keep both sides in the first-level cache.
        for k0 in (0..depth).step_by(64) {
            let k1 = depth.min(k0 + 64);
            let lines = &mut self.panel[k0 * NR..k1 * NR];
            for j in 0..self.columns {
                let column = &self.data[j * self.stride..][k0..k1];
                for (line, value) in lines.chunks_exact_mut(NR).zip(column) {
                    line[j] = value.to_f32();
                }
            }
        }
    }
}
