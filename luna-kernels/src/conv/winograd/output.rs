//! From products to pixels.
//!
//! Enters: the sums of all positions for one panel of channels. Leaves: output pixels, through the epilogue.

use super::{grid::Grid, tile::Tile};
use crate::gemm::epilogue::{Epilogue, OutPtr};
use crate::isa::Kernel;
use crate::panel::NR;
use crate::scalar::Scalar;
use crate::simd::Simd;
use std::marker::PhantomData;
use std::ops::Range;

/// Transforms the tiles `tiles` of one panel.
pub(super) struct OutputTiles<'a, T, P, const A: usize, const Q: usize, const M: usize> {
    /// `[Q²][tiles][32]`.
    pub(super) sums: &'a [f32],
    /// Elements from one position to the next.
    pub(super) stride: usize,
    pub(super) grid: &'a Grid,
    pub(super) tiles: Range<usize>,
    pub(super) column: usize,
    pub(super) columns: usize,
    pub(super) cout: usize,
    pub(super) out: OutPtr<T>,
    pub(super) epilogue: &'a Epilogue<'a, T>,
    pub(super) tile: PhantomData<P>,
}

impl<T: Scalar, P: Tile<A, Q, M>, const A: usize, const Q: usize, const M: usize> Kernel
    for OutputTiles<'_, T, P, A, Q, M>
{
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        assert!(self.sums.len() >= (Q * Q - 1) * self.stride + self.tiles.len() * NR);
        // By way of memory, so that a pixel's channels are written together.
        let (mut columns, mut pixels) = ([[s.zero(); M]; Q], [[[0.0; NR]; M]; M]);
        for (row, tile) in self.tiles.clone().enumerate() {
            let mut j = 0;
            while j < self.columns {
                self.transform(s, row * NR + j, &mut columns, &mut pixels, j);
                j += S::LANES;
            }
            self.write(s, tile, &pixels);
        }
        s.fence();
    }
}

impl<T: Scalar, P: Tile<A, Q, M>, const A: usize, const Q: usize, const M: usize> OutputTiles<'_, T, P, A, Q, M> {
    /// `LANES` channels from `j` on of one tile, whose sums lie at `at` of each position. `columns` is its scratch memory, which would
    /// be filled with zeros each time if it were its own.
    #[inline(always)]
    fn transform<S: Simd>(
        &self,
        s: S,
        at: usize,
        columns: &mut [[S::V; M]; Q],
        pixels: &mut [[[f32; NR]; M]; M],
        j: usize,
    ) {
        for (x, column) in columns.iter_mut().enumerate() {
            let mut m = [s.zero(); Q];
            for (y, m) in m.iter_mut().enumerate() {
                // SAFETY: each position holds 32 sums for each tile, by the assertion in `run`.
                *m = unsafe { s.load(self.sums.as_ptr().add((y * Q + x) * self.stride + at)) };
            }
            *column = P::output(s, m);
        }
        for (i, pixels) in pixels.iter_mut().enumerate() {
            let mut row = [s.zero(); Q];
            for (value, column) in row.iter_mut().zip(&*columns) {
                *value = column[i];
            }
            for (value, pixel) in P::output(s, row).into_iter().zip(pixels) {
                // SAFETY: `j + LANES <= 32`.
                unsafe { s.store(pixel.as_mut_ptr().add(j), value) };
            }
        }
    }

    /// Those of a tile's pixels that lie in the image.
    #[inline(always)]
    fn write<S: Simd>(&self, s: S, tile: usize, pixels: &[[[f32; NR]; M]; M]) {
        let place = self.grid.place(tile);
        let before = self.grid.before;
        // Of the first tiles' outputs some lie before the image, of the last ones' some behind it.
        let inside = |t: usize, before: usize, end: usize| before.saturating_sub(t * M)..M.min(end + before - t * M);
        let (down, across) = (inside(place.ty, before.0, self.grid.ho), inside(place.tx, before.1, self.grid.wo));
        for i in down {
            for k in across.clone() {
                let (y, x, pixel) = (place.ty * M + i - before.0, place.tx * M + k - before.1, &pixels[i][k]);
                let at = ((place.image * self.grid.ho + y) * self.grid.wo + x) * self.cout + self.column;
                // SAFETY: this task alone writes these channels of this tile's pixels; residual and bias have been checked against the
                // output's shape where the convolution began.
                unsafe { self.epilogue.finish(s, pixel.as_ptr(), (self.column, self.columns), at, self.out) };
            }
        }
    }
}
