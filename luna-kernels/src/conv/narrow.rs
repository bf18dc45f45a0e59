//! Convolutions to very few channels, as a decoder's last one to the three of a picture.
//!
//! Enters: an image. Leaves: output pixels, through the epilogue. Of a panel of 32 columns all but these few would be computed for nothing;
//! here lanes hold neighbouring channels of the input, and each output is a dot product. The image is prepared block by block, padding
//! included, and a block is read by all taps.

use super::implicit::Patches;
use super::prologue::{NormSilu, Plain, Prologue};
use super::{ConvInput, ConvShape};
use crate::gemm::epilogue::{Epilogue, OutPtr};
use crate::gemm::rows::LINE;
use crate::isa::{Context, Kernel};
use crate::panel::{NR, Panels};
use crate::scalar::Scalar;
use crate::simd::Simd;
use crate::simd::math::Activation;
use crate::workspace::Buffer;
use rayon::prelude::*;
use std::ops::Range;

/// Output channels, at most.
const MOST: usize = 3;
/// Output pixels computed together: with [`MOST`] channels their sums are as many as AVX2 has registers for.
const ABREAST: usize = 4;
/// Output rows of a block.
const ROWS: usize = 8;
/// Elements of a prepared block, about: 192 KiB, which stay in the second-level cache.
const PREPARED: usize = 48 << 10;

/// A convolution in this form.
pub(super) struct Narrow<'a, T> {
    pub(super) patches: Patches<'a, T>,
    pub(super) panels: Panels<'a>,
    pub(super) out: OutPtr<T>,
    pub(super) epilogue: Epilogue<'a, T>,
}

impl<T: Scalar> Narrow<'_, T> {
    /// Whether the form exists for this convolution.
    pub(super) fn applies(shape: ConvShape) -> bool {
        shape.stride == 1 && shape.cout <= MOST
    }

    /// Computes the convolution on the ambient threads.
    pub(super) fn run(&self, cx: &Context<'_>) {
        let Patches { x, shape, ho, wo, .. } = self.patches;
        let depth = shape.cin.next_multiple_of(LINE);
        let weights = self.weights(cx, depth);
        let width = (PREPARED / (depth * (ROWS + shape.kh - 1))).saturating_sub(shape.kw - 1);
        let width = (width / ABREAST).max(1) * ABREAST;
        let (down, across) = (ho.div_ceil(ROWS), wo.div_ceil(width));
        (0..x.b * down * across).into_par_iter().for_each(|block| {
            if cx.interrupted() {
                return;
            }
            let (image, row, column) = (block / (down * across), block / across % down * ROWS, block % across * width);
            let block = Block {
                narrow: self,
                weights: &weights,
                depth,
                image,
                rows: row..ho.min(row + ROWS),
                columns: column..wo.min(column + width),
                // Whole groups of pixels, the last of which may lie beyond the block.
                line: (width + shape.kw - 1) * depth,
            };
            let mut prepared = cx.workspace().take((block.rows.len() + shape.kh - 1) * block.line);
            cx.isa().run(Computed { block, prepared: &mut prepared });
        });
    }

    /// The weights, `[taps][cout][depth]`.
    fn weights(&self, cx: &Context<'_>, depth: usize) -> Buffer<f32> {
        let ConvShape { cin, cout, kh, kw, .. } = self.patches.shape;
        let mut weights = cx.workspace().take::<f32>(kh * kw * cout * depth);
        for (at, channels) in weights.chunks_exact_mut(depth).enumerate() {
            let (tap, column) = (at / cout, at % cout);
            for (c, value) in channels.iter_mut().enumerate() {
                *value = if c < cin { self.panels.get(column, tap * cin + c) } else { 0.0 };
            }
        }
        weights
    }
}

/// Some output pixels of one image.
struct Block<'a, T> {
    narrow: &'a Narrow<'a, T>,
    weights: &'a [f32],
    depth: usize,
    image: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    /// Elements of a prepared row.
    line: usize,
}

/// Computes a block by way of its prepared pixels, `[rows + kh - 1][width + kw - 1][depth]`.
struct Computed<'a, T> {
    block: Block<'a, T>,
    prepared: &'a mut [f32],
}

impl<T: Scalar> Kernel for Computed<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { block, prepared } = self;
        if block.narrow.patches.x.activation == Activation::Silu {
            block.prepare::<S, NormSilu<S>>(s, prepared);
        } else {
            block.prepare::<S, Plain<S>>(s, prepared);
        }
        match block.narrow.patches.shape.cout {
            1 => block.compute::<S, 1>(s, prepared),
            2 => block.compute::<S, 2>(s, prepared),
            _ => block.compute::<S, MOST>(s, prepared),
        }
    }
}

impl<T: Scalar> Block<'_, T> {
    #[inline(always)]
    fn prepare<S: Simd, R: Prologue<S>>(&self, s: S, prepared: &mut [f32]) {
        let patches = &self.narrow.patches;
        let (x, cin): (&ConvInput<'_, T>, _) = (patches.x, patches.shape.cin);
        for (i, line) in prepared.chunks_exact_mut(self.line).enumerate() {
            for (j, to) in line.chunks_exact_mut(self.depth).enumerate() {
                let Some(pixel) = patches.source(self.image, self.rows.start + i, self.columns.start + j, 0, 0) else {
                    to.fill(0.0);
                    continue;
                };
                let mut c = 0;
                while c < self.depth {
                    let lanes = S::LANES.min(cin.saturating_sub(c));
                    let prologue = R::new(s, x, self.image, c.min(cin), lanes);
                    // SAFETY: the pixel lies in the image and has `c + lanes` channels, if any; `to` has room for whole vectors.
                    unsafe {
                        let v = if lanes > 0 { x.prepared(s, prologue, pixel, cin, c, lanes) } else { s.zero() };
                        s.store(to.as_mut_ptr().add(c), v);
                    }
                    c += S::LANES;
                }
            }
        }
    }

    #[inline(always)]
    fn compute<S: Simd, const N: usize>(&self, s: S, prepared: &[f32]) {
        let Patches { shape, ho, wo, .. } = self.narrow.patches;
        assert!(shape.cout == N && self.weights.len() == shape.kh * shape.kw * N * self.depth);
        assert_eq!(prepared.len(), (self.rows.len() + shape.kh - 1) * self.line);
        assert!((self.columns.len().next_multiple_of(ABREAST) + shape.kw - 1) * self.depth <= self.line);
        for (i, y) in self.rows.clone().enumerate() {
            let mut x = self.columns.start;
            while x < self.columns.end {
                let window = &prepared[i * self.line + (x - self.columns.start) * self.depth..];
                // SAFETY: the windows of `ABREAST` pixels lie within the prepared block, and the weights are whole, by the assertions.
                let sums = unsafe { self.dot::<S, N>(s, window) };
                for (p, sums) in sums.iter().enumerate().take(self.columns.end - x) {
                    let mut values = [0.0; NR];
                    for (value, sum) in values.iter_mut().zip(sums) {
                        *value = s.sum(*sum);
                    }
                    let at = ((self.image * ho + y) * wo + x + p) * N;
                    // SAFETY: this task alone writes this pixel; residual and bias have been checked against the output's shape where the
                    // convolution began.
                    unsafe { self.narrow.epilogue.finish(s, values.as_ptr(), (0, N), at, self.narrow.out) };
                }
                x += ABREAST;
            }
        }
        s.fence();
    }

    /// Products of neighbouring pixels' windows with the weights, still to be summed over lanes.
    ///
    /// # Safety
    /// `window` begins with the first pixel's, in a block that holds the windows of all.
    #[inline(always)]
    unsafe fn dot<S: Simd, const N: usize>(&self, s: S, window: &[f32]) -> [[S::V; N]; ABREAST] {
        let ConvShape { kh, kw, .. } = self.narrow.patches.shape;
        let mut sums = [[s.zero(); N]; ABREAST];
        for tap in 0..kh * kw {
            // SAFETY: the caller's promise; all offsets stay within it.
            unsafe {
                let x = window.as_ptr().add(tap / kw * self.line + tap % kw * self.depth);
                let w = self.weights.as_ptr().add(tap * N * self.depth);
                let mut c = 0;
                while c < self.depth {
                    let mut taps = [s.zero(); N];
                    for (n, tap) in taps.iter_mut().enumerate() {
                        *tap = s.load(w.add(n * self.depth + c));
                    }
                    for (p, sums) in sums.iter_mut().enumerate() {
                        let v = s.load(x.add(p * self.depth + c));
                        for (sum, tap) in sums.iter_mut().zip(taps) {
                            *sum = s.fma(v, tap, *sum);
                        }
                    }
                    c += S::LANES;
                }
            }
        }
        sums
    }
}
