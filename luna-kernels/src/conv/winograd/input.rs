//! From image to transformed tiles.
//!
//! Enters: a group of tiles of the image. Leaves: for each of the `A²` positions a packed group of rows, ready for the register tile.
//! Norm and activation are applied here, once per pixel that a run of neighbouring tiles shares.

use super::{grid::Grid, tile::Tile};
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
pub(super) struct InputGroup<'a, T, P, const A: usize, const Q: usize, const M: usize> {
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

impl<T: Scalar, P: Tile<A, Q, M>, const A: usize, const Q: usize, const M: usize> Kernel
    for InputGroup<'_, T, P, A, Q, M>
{
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

impl<T: Scalar, P: Tile<A, Q, M>, const A: usize, const Q: usize, const M: usize> InputGroup<'_, T, P, A, Q, M> {
    /// Tiles `first..first + run` of one tile row, a cache line of channels after the other.
    #[inline(always)]
    fn channels<S: Simd, R: Prologue<S>>(&self, s: S, first: usize, run: usize) {
        let place = self.grid.place(first);
        let y = place.ty as isize * P::STEP as isize + self.grid.origin.0;
        let x = place.tx as isize * P::STEP as isize + self.grid.origin.1;
        // Rows of the image that the tiles cover; the others are padding.
        let rows = (-y).clamp(0, A as isize) as usize..(self.x.h as isize - y).clamp(0, A as isize) as usize;
        let top = place.image as isize * self.x.h as isize + y;
        // Vertical transforms of the `A` columns of a tile, for each vector of a line; neighbouring tiles share `A - STEP` of them.
        let mut transformed = [[[s.zero(); A]; A]; MOST_PARTS];
        for line in (0..self.cin).step_by(LINE) {
            // What is wanted next: the following channels of these pixels, or the first channels of the following tiles.
            let last = line + LINE >= self.cin;
            let next = if last { (run * P::STEP * self.cin) as isize - line as isize } else { LINE as isize };
            let parts: [Column<'_, T, R>; MOST_PARTS] = std::array::from_fn(|i| {
                let c = (line + i * S::LANES).min(self.cin);
                let lanes = S::LANES.min(self.cin - c);
                let prologue = R::new(s, self.x, place.image, c, lanes);
                Column { next, x: self.x, cin: self.cin, c, lanes, top, rows: rows.clone(), prologue }
            });
            let parts = &parts[..LINE.min(self.cin - line).div_ceil(S::LANES)];
            for (part, transformed) in parts.iter().zip(&mut transformed) {
                for (i, at) in transformed.iter_mut().take(A - P::STEP).enumerate() {
                    *at = P::input(s, part.read::<S, A>(s, x + i as isize));
                }
            }
            for t in 0..run {
                let at = line * self.tiles.len() + (first + t - self.tiles.start) * LINE;
                for (i, (part, transformed)) in parts.iter().zip(&mut transformed).enumerate() {
                    self.tile(s, part, transformed, x + (t * P::STEP + A - P::STEP) as isize, at + i * S::LANES);
                }
            }
        }
    }

    /// One tile, whose columns from `x` on have not been read yet, to `at` of this group in each position.
    #[inline(always)]
    fn tile<S: Simd, R: Prologue<S>>(
        &self,
        s: S,
        part: &Column<'_, T, R>,
        transformed: &mut [[S::V; A]; A],
        x: isize,
        at: usize,
    ) {
        for (i, column) in transformed.iter_mut().skip(A - P::STEP).enumerate() {
            *column = P::input(s, part.read::<S, A>(s, x + i as isize));
        }
        // SAFETY: this task alone writes this group's rows, and a row holds a vector at every multiple of `LANES` below its depth.
        let to = unsafe { self.packed.at(self.offset + at, (A * A - 1) * self.stride + S::LANES) };
        for i in 0..A {
            let mut line = [s.zero(); A];
            for (value, column) in line.iter_mut().zip(&*transformed) {
                *value = column[i];
            }
            for (j, value) in P::input(s, line).into_iter().enumerate() {
                // SAFETY: within what was asked for above.
                unsafe { s.store(to.add((i * A + j) * self.stride), value) };
            }
        }
        for j in 0..A - P::STEP {
            transformed[j] = transformed[P::STEP + j];
        }
    }
}

/// Vectors of a cache line, at most: 4 lanes each.
const MOST_PARTS: usize = LINE / 4;

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
                let at = self.x.data.as_ptr().wrapping_add(pixel(i) * self.cin + self.c);
                if self.c.is_multiple_of(LINE) {
                    s.prefetch(at.wrapping_offset(self.next).cast());
                }
                // SAFETY: see above.
                *d = unsafe { T::load(s, at) };
            }
            d = self.prologue.apply(s, d);
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
