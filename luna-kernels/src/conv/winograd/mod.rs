//! 3×3 convolutions by Winograd's minimal filtering.
//!
//! Enters: an image and packed weights. Leaves: the output through its epilogue. The image is cut into tiles; for a block of tiles the
//! transformed inputs of all positions are packed once, then each panel of 32 output channels is transformed, multiplied and transformed
//! back before the next, so that only the transformed inputs of one block exist at a time.
//!
//! Weights are transformed for each block and panel instead of once at load: it costs about one part in thirty of the products of a block
//! and saves the fourfold memory that transformed weights would take, for all weight types alike.

mod grid;
mod input;
mod output;
mod tile;
mod weights;

use super::{ConvInput, ConvShape};
use crate::gemm::epilogue::{Epilogue, OutPtr};
use crate::gemm::micro::{Groups, Multiply};
use crate::gemm::rows::LINE;
use crate::isa::Context;
use crate::panel::{NR, Panels, as_bytes};
use crate::scalar::Scalar;
use crate::weight::WeightType;
use crate::workspace::Buffer;
use grid::Grid;
use input::InputGroup;
use output::OutputTiles;
use rayon::prelude::*;
use std::marker::PhantomData;
use std::ops::Range;
use tile::{Doubled, Large, Same, Tile};
use weights::WeightRows;

/// Channels whose transformed weights exist at a time.
const CHANNELS: usize = 256;
/// Most tiles multiplied together: their sums of all positions, 384 KiB, stay in the second-level cache.
const CHUNK: usize = 84;
/// The same where the weights are kept: fewer, as transforms of weights are not to be spread over many tiles, so that what a chunk
/// touches comes nearer to fitting the second-level cache, and that each thread has several chunks.
const KEPT_CHUNK: Range<usize> = 24..48;
/// Transformed inputs (in f32 elements) that stay in the second-level cache, 384 KiB: where the fewest tiles have no more, a chunk is those.
const NEAR_ELEMENTS: usize = 96 << 10;
/// Transformed weights (in f32 elements) up to which they are kept: 24 MiB, which the last-level cache can hold.
const KEPT_ELEMENTS: usize = 6 << 20;
/// Channels whose taps are widened at a time, where they are not f32.
const WIDENED: usize = 32;
/// Transformed inputs (in f32 elements) up to which each task keeps its own: 6 MiB.
const OWN_ELEMENTS: usize = 3 << 19;
/// Transformed inputs (in f32 elements) that all tasks share: 16 MiB.
const SHARED_ELEMENTS: usize = 4 << 20;

/// A convolution in this form.
pub(super) struct Winograd<'a, T> {
    pub(super) x: &'a ConvInput<'a, T>,
    pub(super) shape: ConvShape,
    pub(super) panels: Panels<'a>,
    pub(super) out: OutPtr<T>,
    pub(super) epilogue: Epilogue<'a, T>,
    /// The first output row that is computed.
    pub(super) first: usize,
    /// Height and width of what is computed.
    pub(super) size: (usize, usize),
    /// In tiles of 6×6 outputs instead of 4×4.
    pub(super) large: bool,
}

impl<T: Scalar> Winograd<'_, T> {
    /// Whether the form exists for this convolution.
    pub(super) fn applies(x: &ConvInput<'_, T>, shape: ConvShape, dtype: WeightType) -> bool {
        let ConvShape { cin, kh, kw, stride, padding, .. } = shape;
        // Pairs of bf16 must not straddle two taps; the tiles of a doubled image are those of padding 1.
        (kh, kw, stride) == (3, 3, 1)
            && (dtype != WeightType::BF16 || cin % 2 == 0)
            && (!x.upsample || padding == [1; 4])
    }

    /// Whether large tiles exist for it as well.
    pub(super) fn has_large(x: &ConvInput<'_, T>) -> bool {
        !x.upsample
    }

    /// Computes the convolution on the ambient threads.
    pub(super) fn run(&self, cx: &Context<'_>) {
        let Self { x, first, size, .. } = *self;
        if x.upsample {
            let grid = Grid::doubled(x, first, size, 6);
            Pass::<T, Doubled, 4, 7, 6> { job: self, grid, tile: PhantomData }.run(cx);
        } else if self.large {
            let grid = Grid::same(x, self.shape.padding, first, size, 6);
            Pass::<T, Large, 8, 8, 6> { job: self, grid, tile: PhantomData }.run(cx);
        } else {
            let grid = Grid::same(x, self.shape.padding, first, size, 4);
            Pass::<T, Same, 6, 6, 4> { job: self, grid, tile: PhantomData }.run(cx);
        }
    }
}

/// Whether the transformed weights of a whole convolution are kept, of so many positions, for so many tiles.
pub(super) fn keeps_weights(shape: ConvShape, positions: usize, tiles: usize) -> bool {
    let elements = positions * shape.cin.next_multiple_of(LINE) * shape.cout.next_multiple_of(NR);
    elements <= KEPT_ELEMENTS && tiles >= 4 * KEPT_CHUNK.start
}

/// All tiles of one grid.
struct Pass<'a, T, P, const A: usize, const Q: usize, const M: usize> {
    job: &'a Winograd<'a, T>,
    grid: Grid,
    tile: PhantomData<P>,
}

/// Consecutive tiles that are multiplied together, and the layout of their transformed inputs.
#[derive(Clone)]
struct Chunk {
    tiles: Range<usize>,
    groups: Groups,
    /// Elements from one position to the next; a line more than needed, lest all positions fall into one set of the caches.
    stride: usize,
}

impl<T: Scalar, P: Tile<A, Q, M>, const A: usize, const Q: usize, const M: usize> Pass<'_, T, P, A, Q, M> {
    fn run(&self, cx: &Context<'_>) {
        let chunks = self.chunks(cx);
        let packed_len = A * A * chunks[0].stride;
        if self.weights_are_kept() {
            let kept = self.kept_weights(cx);
            let task = |chunk| self.own_chunk(cx, &chunk, packed_len, Some(&kept));
            chunks.into_par_iter().with_max_len(1).for_each(task);
        } else if packed_len <= OWN_ELEMENTS && chunks.len() >= 3 * rayon::current_num_threads() {
            chunks.into_par_iter().with_max_len(1).for_each(|chunk| self.own_chunk(cx, &chunk, packed_len, None));
        } else {
            let blocks = chunks.len().div_ceil((SHARED_ELEMENTS / packed_len).max(1));
            let at_once = chunks.len().div_ceil(blocks);
            chunks.chunks(at_once).for_each(|chunks| self.shared_chunks(cx, chunks, packed_len));
        }
    }

    /// The transformed weights of all panels, `[panel][Q²][channels][32]`.
    fn kept_weights(&self, cx: &Context<'_>) -> Buffer<f32> {
        let (cin, panels) = (self.job.shape.cin, self.job.panels.count());
        let mut kept = cx.workspace().take::<f32>(panels * Q * Q * weights_stride(cin));
        kept.par_chunks_exact_mut(Q * Q * weights_stride(cin)).enumerate().for_each(|(p, weights)| {
            let mut taps = taps(cx, self.job.panels.dtype());
            self.transform_weights(cx, p, 0..cin, weights, &mut taps);
        });
        kept
    }

    /// All tiles in chunks of nearly equal size.
    fn chunks(&self, cx: &Context<'_>) -> Vec<Chunk> {
        let tiles = self.grid.tiles();
        let most = self.chunk_tiles();
        let each = tiles.div_ceil(tiles.div_ceil(most));
        let chunk = |first: usize| {
            let tiles = first..tiles.min(first + each);
            let groups = Groups::new(cx.isa(), tiles.len());
            Chunk { groups, stride: tiles.len() * self.depth() + LINE, tiles }
        };
        (0..tiles).step_by(each).map(chunk).collect()
    }

    /// Tiles multiplied together.
    fn chunk_tiles(&self) -> usize {
        let Range { start: fewest, end: most } = KEPT_CHUNK;
        if !self.weights_are_kept() {
            CHUNK
        } else if fewest * A * A * self.depth() <= NEAR_ELEMENTS {
            fewest
        } else {
            (self.grid.tiles() / (8 * rayon::current_num_threads())).clamp(fewest, most)
        }
    }

    /// Whether the transformed weights of all panels are kept for the whole pass.
    fn weights_are_kept(&self) -> bool {
        keeps_weights(self.job.shape, Q * Q, self.grid.tiles())
    }

    fn depth(&self) -> usize {
        self.job.shape.cin.next_multiple_of(LINE)
    }

    /// One task does all of a chunk.
    fn own_chunk(&self, cx: &Context<'_>, chunk: &Chunk, packed_len: usize, kept: Option<&[f32]>) {
        let mut packed = cx.workspace().take::<f32>(packed_len);
        let target = OutPtr::new(&mut packed);
        chunk.groups.iter().for_each(|group| self.transform_group(cx, chunk, target, group));
        let mut scratch = self.scratch(cx, chunk.tiles.len(), kept.is_some());
        for p in 0..self.job.panels.count() {
            self.panel(cx, chunk, &packed, p, kept, &mut scratch);
        }
    }

    /// All tasks transform the inputs of some chunks, then share out (panels × chunks).
    fn shared_chunks(&self, cx: &Context<'_>, chunks: &[Chunk], packed_len: usize) {
        let mut packed = cx.workspace().take::<f32>(packed_len * chunks.len());
        packed.par_chunks_mut(packed_len).zip(chunks).for_each(|(packed, chunk)| {
            let target = OutPtr::new(packed);
            let groups: Vec<Range<usize>> = chunk.groups.iter().collect();
            groups.into_par_iter().for_each(|group| self.transform_group(cx, chunk, target, group));
        });
        let scratch = || self.scratch(cx, chunks[0].tiles.len(), false);
        let tasks = self.job.panels.count() * chunks.len();
        (0..tasks).into_par_iter().with_max_len(1).for_each_init(scratch, |scratch, task| {
            let (p, c) = (task / chunks.len(), task % chunks.len());
            self.panel(cx, &chunks[c], &packed[c * packed_len..], p, None, scratch);
        });
    }

    fn transform_group(&self, cx: &Context<'_>, chunk: &Chunk, packed: OutPtr<f32>, group: Range<usize>) {
        if cx.interrupted() {
            return;
        }
        cx.isa().run(InputGroup::<T, P, A, Q, M> {
            x: self.job.x,
            cin: self.job.shape.cin,
            grid: &self.grid,
            tiles: chunk.tiles.start + group.start..chunk.tiles.start + group.end,
            packed,
            offset: group.start * self.depth(),
            stride: chunk.stride,
            tile: PhantomData,
        });
    }

    /// 32 output channels of a chunk: weights (unless they are kept), products, output pixels.
    fn panel(
        &self,
        cx: &Context<'_>,
        chunk: &Chunk,
        packed: &[f32],
        p: usize,
        kept: Option<&[f32]>,
        scratch: &mut Scratch,
    ) {
        if cx.interrupted() {
            return;
        }
        let (rows, columns, cin) = (chunk.tiles.len(), self.job.panels.columns(p), self.job.shape.cin);
        let sums_stride = rows * NR + LINE;
        let pass = if kept.is_some() { cin } else { CHANNELS };
        for k0 in (0..cin).step_by(pass) {
            let k = pass.min(cin - k0);
            let stride = weights_stride(pass);
            let weights = match kept {
                Some(kept) => &kept[p * Q * Q * stride..],
                None => {
                    self.transform_weights(cx, p, k0..k0 + k, &mut scratch.weights, &mut scratch.taps);
                    &*scratch.weights
                }
            };
            for position in 0..Q * Q {
                let factor = P::factor(position / Q) * A + P::factor(position % Q);
                // Beyond the last position come, for kept weights, those of the next panel.
                let next =
                    weights.get((position + 1) * stride..).map_or(&[][..], |rest| &rest[..rest.len().min(k * NR)]);
                cx.isa().run(Multiply {
                    a: &packed[factor * chunk.stride..],
                    depth: self.depth(),
                    k0,
                    b: &weights[position * stride..],
                    k,
                    c: &mut scratch.sums[position * sums_stride..],
                    groups: chunk.groups,
                    columns,
                    accumulate: k0 > 0,
                    ahead: as_bytes(next),
                });
            }
        }
        cx.isa().run(OutputTiles::<T, P, A, Q, M> {
            sums: &scratch.sums,
            stride: sums_stride,
            grid: &self.grid,
            tiles: chunk.tiles.clone(),
            column: p * NR,
            columns,
            cout: self.job.shape.cout,
            out: self.job.out,
            epilogue: &self.job.epilogue,
            tile: PhantomData,
        });
    }

    /// The transformed weights of some channels of panel `p`.
    fn transform_weights(
        &self,
        cx: &Context<'_>,
        p: usize,
        channels: Range<usize>,
        weights: &mut [f32],
        taps: &mut [f32],
    ) {
        let stride = weights.len() / (Q * Q);
        for c in channels.clone().step_by(WIDENED) {
            let count = WIDENED.min(channels.end - c);
            let mut parts = taps.chunks_mut(WIDENED * NR);
            let wide = std::array::from_fn(|tap| {
                let scratch = parts.next().unwrap_or_default();
                self.job.panels.widened(cx.isa(), p, tap * self.job.shape.cin + c, count, scratch)
            });
            cx.isa().run(WeightRows::<P, A, Q, M> {
                taps: wide,
                channels: count,
                out: &mut weights[(c - channels.start) * NR..],
                stride,
                tile: PhantomData,
            });
        }
    }

    fn scratch(&self, cx: &Context<'_>, rows: usize, kept: bool) -> Scratch {
        let weights = if kept { 0 } else { Q * Q * weights_stride(CHANNELS) };
        Scratch {
            weights: cx.workspace().take(weights),
            sums: cx.workspace().take(Q * Q * (rows * NR + LINE)),
            taps: taps(cx, self.job.panels.dtype()),
        }
    }
}

/// Elements from one position's transformed weights to the next.
fn weights_stride(channels: usize) -> usize {
    channels * NR + LINE
}

/// Room for widened taps, `[9][channels][32]`; empty for f32 weights.
fn taps(cx: &Context<'_>, dtype: WeightType) -> Buffer<f32> {
    cx.workspace().take(if dtype == WeightType::F32 { 0 } else { 9 * WIDENED * NR })
}

/// What one task needs for itself.
struct Scratch {
    /// `[Q²][channels][32]`; empty where the weights are kept.
    weights: Buffer<f32>,
    /// `[Q²][tiles][32]`.
    sums: Buffer<f32>,
    /// Widened taps.
    taps: Buffer<f32>,
}
