//! Weights in panels of 32 columns, in the element type they are stored in.
//!
//! Enters: weight bytes as files store them. Leaves: panels that the matrix product streams through, and the exact
//! weights back. It must not know what the weights belong to.
//!
//! Panel `p` holds output columns `32p..32p+32`: for each depth `k` the 32 values side by side, missing columns zero. bf16 keeps two
//! depths together, `[k/2][32][2]`, which is what the dot-product instruction reads and what widens in two operations. Quantised types keep
//! their blocks, `[k/block][32]` of them.

mod pack;

use crate::block::Block;
use crate::isa::{Context, Isa, Kernel};
use crate::quantised::{RUN, widen_blocks, widen_run};
use crate::simd::Simd;
use crate::weight::{WeightType, WeightView};
use crate::workspace::Buffer;
use pack::{AcrossWords, across, by_tap};
use rayon::prelude::*;

/// Columns of a panel.
pub(crate) const NR: usize = 32;

/// Owned panels.
pub(crate) struct PackedPanels {
    dtype: WeightType,
    n: usize,
    k: usize,
    data: Storage,
}

/// What panels lie in.
pub(crate) enum Storage {
    Own(Block),
    Lent(Buffer<f32>),
}

impl Storage {
    /// Pages of their own, for weights that are kept.
    pub(crate) fn own(bytes: usize) -> Self {
        Self::Own(Block::zeroed_for_weights(bytes))
    }

    /// Memory of the workspace, for weights that serve one call.
    pub(crate) fn lent(bytes: usize, cx: &Context<'_>) -> Self {
        Self::Lent(cx.workspace().take(bytes.div_ceil(size_of::<f32>())))
    }

    fn as_mut_bytes(&mut self, bytes: usize) -> &mut [u8] {
        match self {
            Self::Own(block) => block.as_mut_slice(bytes),
            Self::Lent(buffer) => &mut as_bytes_mut(buffer)[..bytes],
        }
    }
}

/// Where weights that are computed lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// In memory of their own: they are kept.
    Own,
    /// In memory of the workspace, which has it again when they are dropped: they serve one call.
    Workspace,
}

/// Borrowed panels, 64-byte aligned.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    dtype: WeightType,
    pub(crate) n: usize,
    pub(crate) k: usize,
    data: &'a [u8],
}

/// Bytes of one panel of depth `k`.
fn panel_bytes(dtype: WeightType, k: usize) -> usize {
    match dtype {
        WeightType::BF16 => k.div_ceil(2) * 2 * NR * 2,
        other => k / other.block() * NR * other.block_bytes(),
    }
}

/// Where in a panel (in elements) depth `k`, column `j` lies.
fn position(dtype: WeightType, k: usize, j: usize) -> usize {
    match dtype {
        WeightType::BF16 => (k / 2 * NR + j) * 2 + k % 2,
        _ => k * NR + j,
    }
}

impl PackedPanels {
    /// Packs `n` columns that are stored as `[channels][taps]`, one after the other: their depth runs over taps, then channels.
    pub(crate) fn pack_taps(w: WeightView<'_>, n: usize, channels: usize, taps: usize) -> Self {
        let (dtype, k) = (w.dtype, channels * taps);
        check_bytes(w, n, k);
        let stride = panel_bytes(dtype, k);
        let bytes = stride * n.div_ceil(NR);
        let mut data = Storage::own(bytes);
        if bytes > 0 {
            let panels = data.as_mut_bytes(bytes).par_chunks_mut(stride).zip(w.bytes.par_chunks(NR * k * dtype.size()));
            match dtype.size() {
                4 => panels.for_each(|(panel, columns)| by_tap::<4>(dtype, columns, (channels, taps), panel)),
                2 => panels.for_each(|(panel, columns)| by_tap::<2>(dtype, columns, (channels, taps), panel)),
                _ => panels.for_each(|(panel, columns)| by_tap::<1>(dtype, columns, (channels, taps), panel)),
            }
        }
        Self { dtype, n, k, data }
    }

    /// Packs `n` columns of depth `k`, stored row-major, column after column, in quantised blocks that no two columns share.
    pub(crate) fn pack_blocks(w: WeightView<'_>, n: usize, k: usize) -> Self {
        assert_eq!(
            Some(w.bytes.len()),
            w.dtype.bytes(k).and_then(|row| row.checked_mul(n)),
            "weight bytes do not match {n}x{k}"
        );
        let (stride, size) = (panel_bytes(w.dtype, k), w.dtype.block_bytes());
        let (bytes, row) = (stride * n.div_ceil(NR), k / w.dtype.block() * size);
        let mut data = Block::zeroed_for_weights(bytes);
        if bytes > 0 {
            let panels = data.as_mut_slice::<u8>(bytes).par_chunks_mut(stride);
            panels.zip(w.bytes.par_chunks(NR * row)).for_each(|(panel, rows)| {
                for (j, row) in rows.chunks_exact(row).enumerate() {
                    for (block, to) in row.chunks_exact(size).zip(panel.chunks_exact_mut(NR * size)) {
                        to[j * size..][..size].copy_from_slice(block);
                    }
                }
            });
        }
        Self { dtype: w.dtype, n, k, data: Storage::Own(data) }
    }

    /// Packs `n` columns of depth `k` that are stored row-major, column after column; into memory that `space` gives for
    /// so many bytes.
    pub(crate) fn pack_rows(w: WeightView<'_>, n: usize, k: usize, space: impl FnOnce(usize) -> Storage) -> Self {
        // bf16 lies in pairs of depths, as words: only an even depth has no half of one.
        let (size, depth) = match w.dtype {
            WeightType::BF16 if k.is_multiple_of(2) => (4, k / 2),
            WeightType::BF16 => return Self::pack_taps(w, n, k, 1),
            other => (other.size(), k),
        };
        check_bytes(w, n, k);
        let (stride, row) = (panel_bytes(w.dtype, k), depth * size);
        let bytes = stride * n.div_ceil(NR);
        let mut data = space(bytes);
        if bytes > 0 {
            let panels = data.as_mut_bytes(bytes).par_chunks_mut(stride).zip(w.bytes.par_chunks(NR * row));
            match size {
                4 => panels.for_each(|(panel, columns)| Isa::detect().run(AcrossWords { columns, depth, panel })),
                2 => panels.for_each(|(panel, rows)| across::<2>(rows, depth, panel)),
                _ => panels.for_each(|(panel, rows)| across::<1>(rows, depth, panel)),
            }
        }
        Self { dtype: w.dtype, n, k, data }
    }

    /// Panels of f32 that `fill` writes, given their numbers.
    pub(crate) fn filled(
        n: usize,
        k: usize,
        home: Home,
        cx: &Context<'_>,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        let (stride, count) = (k * NR, n.div_ceil(NR));
        let len = stride * count;
        let mut data = match home {
            Home::Own => Storage::own(len * size_of::<f32>()),
            Home::Workspace => Storage::lent(len * size_of::<f32>(), cx),
        };
        let all = match &mut data {
            Storage::Own(block) => block.as_mut_slice::<f32>(len),
            Storage::Lent(buffer) => &mut buffer[..],
        };
        if stride > 0 {
            all.par_chunks_mut(stride).enumerate().for_each(|(p, panel)| fill(p, panel));
        }
        Self { dtype: WeightType::F32, n, k, data }
    }

    pub(crate) fn view(&self) -> Panels<'_> {
        let bytes = panel_bytes(self.dtype, self.k) * self.n.div_ceil(NR);
        let data = match &self.data {
            Storage::Own(block) => block.as_slice(bytes),
            Storage::Lent(buffer) => &as_bytes(buffer)[..bytes],
        };
        Panels { dtype: self.dtype, n: self.n, k: self.k, data }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        match &self.data {
            Storage::Own(block) => block.bytes(),
            Storage::Lent(buffer) => size_of_val(&**buffer),
        }
    }
}

/// Panics unless the view holds `n` columns of depth `k`.
fn check_bytes(w: WeightView<'_>, n: usize, k: usize) {
    let expected = n.checked_mul(k).and_then(|elements| elements.checked_mul(w.dtype.size()));
    assert_eq!(Some(w.bytes.len()), expected, "weight bytes do not match {n}x{k}");
}

/// The bytes of f32 values.
pub(crate) fn as_bytes(data: &[f32]) -> &[u8] {
    // SAFETY: any f32 is four valid bytes, and the borrow is kept.
    unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), size_of_val(data)) }
}

/// The same to be written.
fn as_bytes_mut(data: &mut [f32]) -> &mut [u8] {
    // SAFETY: any four bytes are an f32, and the borrow is kept.
    unsafe { std::slice::from_raw_parts_mut(data.as_mut_ptr().cast(), size_of_val(data)) }
}

impl<'a> Panels<'a> {
    /// f32 panels laid out by a kernel: `data` holds `ceil(n/32)` panels of `k * 32` values.
    pub(crate) fn from_f32(data: &'a [f32], n: usize, k: usize) -> Self {
        assert!(data.len() >= n.div_ceil(NR) * k * NR && data.as_ptr().addr().is_multiple_of(64));
        Self { dtype: WeightType::F32, n, k, data: as_bytes(data) }
    }

    pub(crate) fn dtype(&self) -> WeightType {
        self.dtype
    }

    /// The same bytes as panels of words, each a pair of bf16; `None` for other types and odd depths.
    pub(crate) fn as_pairs(&self) -> Option<Self> {
        let whole = self.dtype == WeightType::BF16 && self.k.is_multiple_of(2);
        whole.then_some(Self { dtype: WeightType::F32, k: self.k / 2, ..*self })
    }

    /// Number of panels.
    pub(crate) fn count(&self) -> usize {
        self.n.div_ceil(NR)
    }

    /// Columns of panel `p` that exist.
    pub(crate) fn columns(&self, p: usize) -> usize {
        NR.min(self.n - p * NR)
    }

    /// The bytes of panel `p` from depth `k0` (even for bf16, the first of a block) on.
    pub(crate) fn rest_of(&self, p: usize, k0: usize) -> &'a [u8] {
        let stride = panel_bytes(self.dtype, self.k);
        &self.data[p * stride + panel_bytes(self.dtype, k0)..(p + 1) * stride]
    }

    /// The bytes of the next `step` depths from `k0` of panel `p` on; where the depth ends, those of panel `then`.
    pub(crate) fn some_of(&self, (p, k0): (usize, usize), step: usize, then: usize) -> &'a [u8] {
        let (p, k0) = if k0 < self.k { (p, k0) } else { (then, 0) };
        if p >= self.count() {
            return &[];
        }
        let rest = self.rest_of(p, k0);
        &rest[..rest.len().min(panel_bytes(self.dtype, step))]
    }

    /// Depths `k0..k0 + rows` of panel `p` as `[rows][32]` f32: the panel itself where it is f32, else widened into `scratch`.
    pub(crate) fn widened<'s>(&self, isa: Isa, p: usize, k0: usize, rows: usize, scratch: &'s mut [f32]) -> &'s [f32]
    where
        'a: 's,
    {
        let source = self.rest_of(p, k0);
        if self.dtype == WeightType::F32 {
            // SAFETY: panels are 64-byte aligned and were written as f32; the slice covers whole elements.
            let all = unsafe { std::slice::from_raw_parts(source.as_ptr().cast::<f32>(), source.len() / 4) };
            return &all[..rows * NR];
        }
        let target = &mut scratch[..rows * NR];
        if self.dtype.is_quantised() {
            isa.run(WidenBlocks { dtype: self.dtype, source, target: &mut *target });
        } else {
            isa.run(Widen { dtype: self.dtype, source, target: &mut *target });
        }
        target
    }

    /// All of a column, widened.
    pub(crate) fn column(&self, column: usize, out: &mut [f32]) {
        let (block, size) = (self.dtype.block(), self.dtype.block_bytes());
        if !self.dtype.is_quantised() {
            out.iter_mut().enumerate().for_each(|(depth, value)| *value = self.get(column, depth));
            return;
        }
        let blocks = self.rest_of(column / NR, 0).chunks_exact(NR * size);
        for (blocks, out) in blocks.zip(out.chunks_exact_mut(block)) {
            widen_blocks(self.dtype, &blocks[column % NR * size..][..size], out);
        }
    }

    /// The stored element (column, depth), widened; not of a quantised type.
    pub(crate) fn get(&self, column: usize, depth: usize) -> f32 {
        let at = column / NR * panel_bytes(self.dtype, self.k)
            + position(self.dtype, depth, column % NR) * self.dtype.size();
        self.dtype.widen(&self.data[at..])
    }
}

/// Widens whole rows of 32 values.
struct Widen<'a> {
    dtype: WeightType,
    source: &'a [u8],
    target: &'a mut [f32],
}

impl Kernel for Widen<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (from, to, count) = (self.source.as_ptr(), self.target.as_mut_ptr(), self.target.len());
        assert!(count.is_multiple_of(NR) && self.source.len() >= count * self.dtype.size());
        if self.dtype == WeightType::BF16 {
            return widen_pairs(s, from.cast(), to, count / NR);
        }
        for i in (0..count).step_by(S::LANES) {
            // SAFETY: `i + LANES <= count`, and the source holds `count` elements of the type; see the assertion.
            unsafe {
                let at = from.add(i * self.dtype.size());
                s.prefetch(at.wrapping_add(2048));
                s.store(to.add(i), self.dtype.load(s, at));
            }
        }
    }
}

/// Widens whole blocks of 32 columns.
struct WidenBlocks<'a> {
    dtype: WeightType,
    source: &'a [u8],
    target: &'a mut [f32],
}

impl Kernel for WidenBlocks<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (block, size) = (self.dtype.block(), self.dtype.block_bytes());
        assert!(self.target.len().is_multiple_of(block * NR), "depths begin and end with blocks");
        let mut columns = [[0.0; RUN]; NR];
        for (blocks, target) in self.source.chunks_exact(NR * size).zip(self.target.chunks_exact_mut(block * NR)) {
            for (run, target) in target.as_chunks_mut::<{ RUN * NR }>().0.iter_mut().enumerate() {
                for (block, column) in blocks.chunks_exact(size).zip(&mut columns) {
                    widen_run(self.dtype, block, run, column);
                }
                for (depth, row) in target.as_chunks_mut::<NR>().0.iter_mut().enumerate() {
                    for (value, column) in row.iter_mut().zip(&columns) {
                        *value = column[depth];
                    }
                }
            }
        }
    }
}

/// `[rows/2][32][2]` bf16 to `[rows][32]` f32; the source holds an even number of rows.
#[inline(always)]
fn widen_pairs<S: Simd>(s: S, from: *const u16, to: *mut f32, rows: usize) {
    for pair in 0..rows.div_ceil(2) {
        for j in (0..NR).step_by(S::LANES) {
            // SAFETY: `pair` is a stored pair of rows and `j + LANES <= 32`; the second row is written only where it is wanted.
            unsafe {
                let source = from.add((pair * NR + j) * 2);
                s.prefetch(source.cast::<u8>().wrapping_add(2048));
                let (first, second) = s.split_bf16(s.load(source.cast()));
                s.store(to.add(pair * 2 * NR + j), first);
                if pair * 2 + 1 < rows {
                    s.store(to.add((pair * 2 + 1) * NR + j), second);
                }
            }
        }
    }
}
