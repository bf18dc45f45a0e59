//! From products to pixels.
//!
//! Enters: the sums of all positions for one panel of channels. Leaves: output pixels, through the epilogue.

use super::{Grid, tile::Tile};
use crate::gemm::epilogue::{Epilogue, OutPtr};
use crate::gemm::rows::LINE;
use crate::isa::Kernel;
use crate::panel::NR;
use crate::scalar::Scalar;
use crate::simd::Simd;
use std::marker::PhantomData;
use std::ops::Range;

/// Transforms the tiles `tiles` of one panel.
pub(super) struct OutputTiles<'a, T, P, const A: usize, const M: usize> {
    /// `[A²][tiles][32]`.
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

impl<T: Scalar, P: Tile<A, M>, const A: usize, const M: usize> Kernel for OutputTiles<'_, T, P, A, M> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        assert!(self.sums.len() >= (A * A - 1) * self.stride + self.tiles.len() * NR);
        for (row, tile) in self.tiles.clone().enumerate() {
            let mut j = 0;
            while j < self.columns {
                self.one(s, row, tile, j);
                j += S::LANES;
            }
        }
        s.fence();
    }
}

impl<T: Scalar, P: Tile<A, M>, const A: usize, const M: usize> OutputTiles<'_, T, P, A, M> {
    /// `LANES` channels from `j` on of one tile.
    #[inline(always)]
    fn one<S: Simd>(&self, s: S, row: usize, tile: usize, j: usize) {
        let mut rows = [[s.zero(); A]; M];
        for x in 0..A {
            let mut m = [s.zero(); A];
            for (y, m) in m.iter_mut().enumerate() {
                // SAFETY: each position holds 32 sums for each tile, by the assertion in `run`.
                *m = unsafe { s.load(self.sums.as_ptr().add((y * A + x) * self.stride + row * NR + j)) };
            }
            for (row, value) in rows.iter_mut().zip(P::output(s, m)) {
                row[x] = value;
            }
        }
        // By way of memory, so that the epilogue's code exists once and not for each pixel.
        let mut pixels = [[[0.0f32; LINE]; M]; M];
        for (row, pixels) in rows.into_iter().zip(&mut pixels) {
            for (value, pixel) in P::output(s, row).into_iter().zip(pixels) {
                // SAFETY: no vector is longer than a line.
                unsafe { s.store(pixel.as_mut_ptr(), value) };
            }
        }
        let place = self.grid.place(tile);
        let (step, phase) = (self.grid.step, self.grid.phase);
        let (y0, x0) = (place.ty * M * step + phase.0, place.tx * M * step + phase.1);
        let (down, across) = ((self.grid.ho - y0).div_ceil(step).min(M), (self.grid.wo - x0).div_ceil(step).min(M));
        let count = S::LANES.min(self.columns - j);
        for pixel in 0..down * across {
            let (i, k) = (pixel / across, pixel % across);
            let (y, x) = (y0 + i * step, x0 + k * step);
            let at = ((place.image * self.grid.ho + y) * self.grid.wo + x) * self.cout + self.column + j;
            // SAFETY: this task alone writes these channels of this tile's pixels; residual and bias have been checked against the
            // output's shape where the convolution began.
            unsafe { self.epilogue.finish(s, s.load(pixels[i][k].as_ptr()), self.column + j, at, self.out, count) };
        }
    }
}
