//! From image to transformed tiles.
//!
//! Enters: a group of tiles of the image. Leaves: for each of the `A²` positions a packed group of rows, ready for the register tile.
//! Norm and activation are applied here, once per pixel that a run of neighbouring tiles shares.

use super::{Grid, tile::Tile};
use crate::conv::ConvInput;
use crate::gemm::epilogue::OutPtr;
use crate::gemm::rows::LINE;
use crate::isa::Kernel;
use crate::scalar::Scalar;
use crate::simd::Simd;
use std::marker::PhantomData;
use std::ops::Range;

/// Transforms the tiles `tiles`, one group of the product, into `packed`.
pub(super) struct InputGroup<'a, T, P, const A: usize, const M: usize> {
    pub(super) x: &'a ConvInput<'a, T>,
    pub(super) cin: usize,
    pub(super) grid: &'a Grid,
    pub(super) tiles: Range<usize>,
    pub(super) packed: OutPtr<f32>,
    /// Where this group begins within each position.
    pub(super) offset: usize,
    /// Elements from one position to the next.
    pub(super) stride: usize,
    pub(super) tile: PhantomData<P>,
}

impl<T: Scalar, P: Tile<A, M>, const A: usize, const M: usize> Kernel for InputGroup<'_, T, P, A, M> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut first = self.tiles.start;
        while first < self.tiles.end {
            let place = self.grid.place(first);
            let run = (self.grid.across - place.tx).min(self.tiles.end - first);
            let mut c = 0;
            while c < self.cin {
                self.run_of_tiles(s, first, run, c);
                c += S::LANES;
            }
            first += run;
        }
    }
}

impl<T: Scalar, P: Tile<A, M>, const A: usize, const M: usize> InputGroup<'_, T, P, A, M> {
    /// Tiles `first..first + run` of one tile row, `LANES` channels from `c` on.
    #[inline(always)]
    fn run_of_tiles<S: Simd>(&self, s: S, first: usize, run: usize, c: usize) {
        let place = self.grid.place(first);
        let count = self.tiles.len();
        let column = Column {
            x: self.x,
            cin: self.cin,
            image: place.image,
            c,
            y: place.ty as isize * M as isize + self.grid.origin.0,
        };
        let mut x = place.tx as isize * M as isize + self.grid.origin.1;
        // Vertical transforms of the `A` columns of a tile; neighbours share `A - M` of them.
        let mut columns = [[s.zero(); A]; A];
        for at in columns.iter_mut().take(A - M) {
            *at = column.transformed::<S, P, A, M>(s, x);
            x += 1;
        }
        for t in 0..run {
            for at in columns.iter_mut().skip(A - M) {
                *at = column.transformed::<S, P, A, M>(s, x);
                x += 1;
            }
            let row = first + t - self.tiles.start;
            let at = self.offset + (c / LINE * count + row) * LINE + c % LINE;
            for i in 0..A {
                let mut line = [s.zero(); A];
                for (value, column) in line.iter_mut().zip(&columns) {
                    *value = column[i];
                }
                for (j, value) in P::input(s, line).into_iter().enumerate() {
                    // SAFETY: this task alone writes this group's rows, and a row holds a vector at every multiple of `LANES` below its depth.
                    unsafe { s.store(self.packed.at((i * A + j) * self.stride + at, S::LANES), value) };
                }
            }
            for j in 0..A - M {
                columns[j] = columns[M + j];
            }
        }
    }
}

/// A vertical line of pixels, `LANES` channels of them.
struct Column<'a, T> {
    x: &'a ConvInput<'a, T>,
    cin: usize,
    image: usize,
    c: usize,
    /// Topmost pixel; may lie outside the image.
    y: isize,
}

impl<T: Scalar> Column<'_, T> {
    /// The vertical transform of the column at `x`.
    #[inline(always)]
    fn transformed<S: Simd, P: Tile<A, M>, const A: usize, const M: usize>(&self, s: S, x: isize) -> [S::V; A] {
        let mut d = [s.zero(); A];
        if x >= 0 && (x as usize) < self.x.w {
            let lanes = S::LANES.min(self.cin - self.c);
            for (i, d) in d.iter_mut().enumerate() {
                let y = self.y + i as isize;
                if y >= 0 && (y as usize) < self.x.h {
                    let pixel = (self.image * self.x.h + y as usize) * self.x.w + x as usize;
                    // SAFETY: the pixel lies in the image and has `cin >= c + lanes` channels.
                    *d = unsafe {
                        self.x.load(s, self.image, &self.x.data[pixel * self.cin..][..self.cin], self.c, lanes)
                    };
                }
            }
        }
        P::input(s, d)
    }
}
