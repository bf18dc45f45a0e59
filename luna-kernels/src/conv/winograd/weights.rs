//! From stored taps to transformed weights.
//!
//! Enters: the nine taps of some channels of a panel, f32. Leaves: `Q²` weight panels of those channels.

use super::tile::Tile;
use crate::isa::Kernel;
use crate::panel::NR;
use crate::simd::Simd;
use std::marker::PhantomData;

/// Transforms `channels` rows of 32 weights.
pub(super) struct WeightRows<'a, P, const A: usize, const Q: usize, const M: usize> {
    /// `[channels][32]` of each tap.
    pub(super) taps: [&'a [f32]; 9],
    pub(super) channels: usize,
    /// `[Q²][stride]`, the first channel's row of each position at the front.
    pub(super) out: &'a mut [f32],
    /// Elements from one position to the next.
    pub(super) stride: usize,
    pub(super) tile: PhantomData<P>,
}

impl<P: Tile<A, Q, M>, const A: usize, const Q: usize, const M: usize> Kernel for WeightRows<'_, P, A, Q, M> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let len = self.channels * NR;
        assert!(self.taps.iter().all(|tap| tap.len() >= len) && self.out.len() >= (Q * Q - 1) * self.stride + len);
        let mut at = 0;
        while at < len {
            let mut rows = [[s.zero(); 3]; Q];
            for x in 0..3 {
                // SAFETY: each tap holds `len` values, a multiple of `LANES`.
                let g = unsafe { [0, 1, 2].map(|y| self.taps[y * 3 + x].as_ptr().add(at)) };
                // SAFETY: as above.
                let g = unsafe { [s.load(g[0]), s.load(g[1]), s.load(g[2])] };
                for (row, value) in rows.iter_mut().zip(P::weights(s, g)) {
                    row[x] = value;
                }
            }
            for (i, row) in rows.into_iter().enumerate() {
                for (j, value) in P::weights(s, row).into_iter().enumerate() {
                    // SAFETY: position `i * Q + j` holds `len` values from its stride on, by the assertion.
                    unsafe { s.store(self.out.as_mut_ptr().add((i * Q + j) * self.stride + at), value) };
                }
            }
            at += S::LANES;
        }
    }
}
