//! The register tile of the matrix product.
//!
//! Enters: packed rows and a panel of 32 weight columns. Leaves: sums, 32 a row. It must not know element types or epilogues.
//!
//! Packed rows lie in groups of at most `ROWS`: `[depth/16][rows of the group][16]`, so that a group is one contiguous stream and each of
//! its lines is a cache line. The tile holds `ROWS × (LANES·COLS)` sums in registers and runs over the whole depth.

use super::rows::LINE;
use crate::isa::{Isa, Kernel};
use crate::panel::NR;
use crate::simd::Simd;
use rayon::prelude::*;
use std::ops::Range;

/// Rows divided as evenly as possible into groups that fit the register tile.
#[derive(Clone, Copy)]
pub(crate) struct Groups {
    rows: usize,
    count: usize,
}

impl Groups {
    pub(crate) fn new(isa: Isa, rows: usize) -> Self {
        Self { rows, count: rows.div_ceil(Self::tile(isa)) }
    }

    /// Rows of a group at most.
    pub(crate) fn tile(isa: Isa) -> usize {
        isa.run(TileRows)
    }

    pub(crate) fn rows(self) -> usize {
        self.rows
    }

    pub(crate) fn count(self) -> usize {
        self.count
    }

    /// Rows of group `i`.
    #[inline(always)]
    pub(crate) fn range(self, i: usize) -> Range<usize> {
        let (base, extra) = (self.rows / self.count, self.rows % self.count);
        let start = i * base + i.min(extra);
        start..start + base + usize::from(i < extra)
    }

    /// Some of the groups, as if there were no others, and the row that they begin with.
    pub(crate) fn some(self, groups: Range<usize>) -> (usize, Self) {
        let start = |i: usize| if i < self.count { self.range(i).start } else { self.rows };
        let (first, end) = (start(groups.start), start(groups.end));
        (first, Self { rows: end - first, count: groups.len() })
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.count).map(move |i| self.range(i))
    }

    /// Each group with its part of a packed block.
    pub(crate) fn par_split(
        self,
        mut packed: &mut [f32],
        depth: usize,
    ) -> impl ParallelIterator<Item = (Range<usize>, &mut [f32])> {
        let mut parts = Vec::with_capacity(self.count);
        for group in self.iter() {
            let (part, rest) = packed.split_at_mut(group.len() * depth);
            parts.push((group, part));
            packed = rest;
        }
        parts.into_par_iter()
    }
}

struct TileRows;

impl Kernel for TileRows {
    type Out = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        S::ROWS
    }
}

/// `c = a · b` or `c += a · b` for one panel and all groups of a block.
pub(crate) struct Multiply<'a> {
    /// Packed rows.
    pub(crate) a: &'a [f32],
    /// Depth of the packed rows, a multiple of 16.
    pub(crate) depth: usize,
    /// Depth at which this pass begins, a multiple of 16.
    pub(crate) k0: usize,
    /// `[k][32]` weights.
    pub(crate) b: &'a [f32],
    /// Depth of this pass.
    pub(crate) k: usize,
    /// `[rows][32]` sums.
    pub(crate) c: &'a mut [f32],
    pub(crate) groups: Groups,
    /// Columns wanted; those beyond may be left unwritten.
    pub(crate) columns: usize,
    pub(crate) accumulate: bool,
    /// What the next product reads first: asked for while this one is computed.
    pub(crate) ahead: &'a [u8],
}

/// Bytes of a cache line.
const CACHE_LINE: usize = 64;

impl Multiply<'_> {
    #[inline(always)]
    fn all_groups<S: Simd, O: Accumulate>(self, s: S) {
        let Self { groups, k, .. } = self;
        assert!(self.k0.is_multiple_of(LINE) && self.k0 + k <= self.depth);
        assert!(self.a.len() >= groups.rows * self.depth && self.b.len() >= k * NR && self.c.len() >= groups.rows * NR);
        let (lines, count) = (self.ahead.len() / CACHE_LINE, groups.count);
        for (i, group) in groups.iter().enumerate() {
            let rows = group.len();
            let ahead = &self.ahead[i * lines / count * CACHE_LINE..(i + 1) * lines / count * CACHE_LINE];
            // SAFETY: the group lies within the packed rows and within the sums, by the assertions above.
            unsafe {
                let a = self.a.as_ptr().add(group.start * self.depth + self.k0 * rows);
                let c = self.c.as_mut_ptr().add(group.start * NR);
                let tile = Tile { k, a, b: self.b.as_ptr(), c, accumulate: self.accumulate, ahead };
                tile.dispatch::<S, O>(s, rows, self.columns);
            }
        }
    }
}

impl Kernel for Multiply<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.all_groups::<S, Floats>(s);
    }
}

/// The same over words that hold pairs of bf16.
pub(crate) struct MultiplyPairs<'a>(pub(crate) Multiply<'a>);

impl Kernel for MultiplyPairs<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.0.all_groups::<S, Pairs>(s);
    }
}

/// What one lane holds, and so how a product is added.
trait Accumulate {
    fn add<S: Simd>(s: S, x: S::V, w: S::V, sum: S::V) -> S::V;
}

/// One f32.
struct Floats;

/// Two bf16.
struct Pairs;

impl Accumulate for Floats {
    #[inline(always)]
    fn add<S: Simd>(s: S, x: S::V, w: S::V, sum: S::V) -> S::V {
        s.fma(x, w, sum)
    }
}

impl Accumulate for Pairs {
    #[inline(always)]
    fn add<S: Simd>(s: S, x: S::V, w: S::V, sum: S::V) -> S::V {
        s.dot_bf16(x, w, sum)
    }
}

/// One register tile after another across the 32 columns.
#[derive(Clone, Copy)]
struct Tile<'a> {
    k: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    accumulate: bool,
    ahead: &'a [u8],
}

impl Tile<'_> {
    /// # Safety
    /// `a` holds `rows` packed rows of depth `k`, `b` `k` rows of 32, `c` `rows` rows of 32.
    #[inline(always)]
    unsafe fn dispatch<S: Simd, O: Accumulate>(self, s: S, rows: usize, columns: usize) {
        macro_rules! by_rows {
            ($($r:literal)*) => {
                match rows {
                    // SAFETY: the row count of the tile is that of the group.
                    $($r if $r <= S::ROWS => unsafe { self.across::<S, O, $r>(s, columns) },)*
                    _ => unreachable!("groups hold at most {} rows", S::ROWS),
                }
            };
        }
        by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    }

    #[inline(always)]
    unsafe fn across<S: Simd, O: Accumulate, const R: usize>(self, s: S, columns: usize) {
        let mut j = 0;
        while j < columns {
            // SAFETY: `j` and what a tile spans stay within the 32 columns of the panel.
            unsafe {
                let ahead = if j == 0 { self.ahead } else { &[] };
                let part = Self { b: self.b.add(j), c: self.c.add(j), ahead, ..self };
                if columns - j <= S::LANES {
                    part.run::<S, O, R, 1>(s);
                    j += S::LANES;
                } else if S::COLS == 4 {
                    part.run::<S, O, R, 4>(s);
                    j += 4 * S::LANES;
                } else {
                    part.run::<S, O, R, 2>(s);
                    j += 2 * S::LANES;
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn run<S: Simd, O: Accumulate, const R: usize, const C: usize>(self, s: S) {
        // SAFETY: see `dispatch`; all offsets below stay within its sizes.
        unsafe {
            let mut sums = [[s.zero(); C]; R];
            if self.accumulate {
                for (r, row) in sums.iter_mut().enumerate() {
                    for (j, sum) in row.iter_mut().enumerate() {
                        *sum = s.load(self.c.add(r * NR + j * S::LANES));
                    }
                }
            }
            let (mut a, mut b) = (self.a, self.b);
            let mut ahead = self.ahead.as_ptr();
            let asked = (self.ahead.len() / CACHE_LINE).div_ceil((self.k / LINE).max(1));
            for _ in 0..self.k / LINE {
                for _ in 0..asked {
                    s.prefetch_far(ahead);
                    ahead = ahead.wrapping_add(CACHE_LINE);
                }
                let mut kk = 0;
                while kk < LINE {
                    step::<S, O, R, C>(s, &mut sums, a.add(kk), b.add(kk * NR));
                    step::<S, O, R, C>(s, &mut sums, a.add(kk + 1), b.add((kk + 1) * NR));
                    step::<S, O, R, C>(s, &mut sums, a.add(kk + 2), b.add((kk + 2) * NR));
                    step::<S, O, R, C>(s, &mut sums, a.add(kk + 3), b.add((kk + 3) * NR));
                    kk += 4;
                }
                a = a.add(R * LINE);
                b = b.add(LINE * NR);
            }
            for kk in 0..self.k % LINE {
                step::<S, O, R, C>(s, &mut sums, a.add(kk), b.add(kk * NR));
            }
            for (r, row) in sums.iter().enumerate() {
                for (j, sum) in row.iter().enumerate() {
                    s.store(self.c.add(r * NR + j * S::LANES), *sum);
                }
            }
        }
    }
}

/// One depth: a row of weights times one value of each row.
#[inline(always)]
unsafe fn step<S: Simd, O: Accumulate, const R: usize, const C: usize>(
    s: S,
    sums: &mut [[S::V; C]; R],
    a: *const f32,
    b: *const f32,
) {
    // SAFETY: the caller is within `dispatch`'s sizes.
    unsafe {
        let mut w = [s.zero(); C];
        for (j, w) in w.iter_mut().enumerate() {
            *w = s.load(b.add(j * S::LANES));
        }
        if S::ASKS_AHEAD {
            s.prefetch(b.add(12 * NR).cast());
            if C * S::LANES > 16 {
                s.prefetch(b.add(12 * NR + 16).cast());
            }
        }
        for (r, row) in sums.iter_mut().enumerate() {
            let x = s.splat(*a.add(r * LINE));
            for (sum, w) in row.iter_mut().zip(w) {
                *sum = O::add(s, x, w, *sum);
            }
        }
    }
}
