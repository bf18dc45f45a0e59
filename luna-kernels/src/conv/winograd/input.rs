//! From image to transformed tiles.
//!
//! Enters: a group of tiles of the image. Leaves: for each of the `A²` positions a packed group of rows, ready for the register tile.
//! Norm and activation are applied here, once per pixel that a run of neighbouring tiles shares.

use super::{Grid, tile::Tile};
use crate::conv::ConvInput;
use crate::conv::prologue::{NormSilu, Plain, Prologue};
use crate::gemm::epilogue::OutPtr;
use crate::gemm::rows::LINE;
use crate::isa::Kernel;
use crate::scalar::Scalar;
use crate::simd::Simd;
use crate::simd::math::Activation;
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
            if self.x.activation == Activation::Silu {
                self.channels::<S, NormSilu<S>>(s, first, run);
            } else {
                self.channels::<S, Plain<S>>(s, first, run);
            }
            first += run;
        }
    }
}

impl<T: Scalar, P: Tile<A, M>, const A: usize, const M: usize> InputGroup<'_, T, P, A, M> {
    #[inline(always)]
    fn channels<S: Simd, R: Prologue<S>>(&self, s: S, first: usize, run: usize) {
        let image = self.grid.place(first).image;
        let mut c = 0;
        while c < self.cin {
            let lanes = S::LANES.min(self.cin - c);
            let prologue = R::new(s, self.x, image, c, lanes);
            self.run_of_tiles(s, first, run, (c, lanes), prologue);
            c += S::LANES;
        }
    }

    /// Tiles `first..first + run` of one tile row, `lanes` channels from `c` on.
    #[inline(always)]
    fn run_of_tiles<S: Simd, R: Prologue<S>>(
        &self,
        s: S,
        first: usize,
        run: usize,
        (c, lanes): (usize, usize),
        prologue: R,
    ) {
        let place = self.grid.place(first);
        let count = self.tiles.len();
        let y = place.ty as isize * M as isize + self.grid.origin.0;
        // Rows of the image that the tiles cover; the others are padding.
        let rows = (-y).clamp(0, A as isize) as usize..(self.x.h as isize - y).clamp(0, A as isize) as usize;
        let top = place.image as isize * self.x.h as isize + y;
        // What is wanted next: the following channels of these pixels, or the first channels of the following tiles.
        let next = if c + S::LANES < self.cin { S::LANES as isize } else { (run * M * self.cin) as isize - c as isize };
        let column = Column { next, x: self.x, cin: self.cin, c, lanes, top, rows, prologue };
        let mut x = place.tx as isize * M as isize + self.grid.origin.1;
        // Vertical transforms of the `A` columns of a tile; neighbours share `A - M` of them.
        let mut columns = [[s.zero(); A]; A];
        for at in columns.iter_mut().take(A - M) {
            *at = P::input(s, column.read::<S, A>(s, x));
            x += 1;
        }
        for t in 0..run {
            for at in columns.iter_mut().skip(A - M) {
                *at = P::input(s, column.read::<S, A>(s, x));
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

/// A vertical line of pixels, some channels of them.
struct Column<'a, T, R> {
    x: &'a ConvInput<'a, T>,
    cin: usize,
    c: usize,
    lanes: usize,
    /// Number of the topmost row among those of all images; outside the image where `rows` does not begin at 0.
    top: isize,
    /// Which of the column's pixels lie in the image.
    rows: Range<usize>,
    prologue: R,
    /// Elements from what is read to what will be read in the next round.
    next: isize,
}

impl<T: Scalar, R> Column<'_, T, R> {
    /// The prepared pixels at `x`, zeros outside the image.
    #[inline(always)]
    fn read<S: Simd, const A: usize>(&self, s: S, x: isize) -> [S::V; A]
    where
        R: Prologue<S>,
    {
        let mut d = [s.zero(); A];
        if x < 0 || x as usize >= self.x.w {
            return d;
        }
        // SAFETY (both below): row `top + i` lies in the image for `i` in `rows`, `x` does, and a pixel has `cin >= c + lanes` channels.
        let pixel = |i: usize| (self.top + i as isize) as usize * self.x.w + x as usize;
        if self.rows == (0..A) && self.lanes == S::LANES {
            for (i, d) in d.iter_mut().enumerate() {
                s.prefetch(
                    self.x.data.as_ptr().wrapping_add(pixel(i) * self.cin + self.c).wrapping_offset(self.next).cast(),
                );
                // SAFETY: see above.
                *d = unsafe { self.x.prepared(s, self.prologue, pixel(i), self.cin, self.c, S::LANES) };
            }
        } else {
            for (i, d) in d.iter_mut().enumerate() {
                if self.rows.contains(&i) {
                    // SAFETY: see above.
                    *d = unsafe { self.x.prepared(s, self.prologue, pixel(i), self.cin, self.c, self.lanes) };
                }
            }
        }
        d
    }
}
