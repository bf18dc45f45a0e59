//! 3×3 convolutions by Winograd's minimal filtering.
//!
//! Enters: an image and packed weights. Leaves: the output through its epilogue. The image is cut into tiles; for a block of tiles the
//! transformed inputs of all positions are packed once, then each panel of 32 output channels is transformed, multiplied and transformed
//! back before the next, so that only the transformed inputs of one block exist at a time.
//!
//! Weights are transformed for each block and panel instead of once at load: it costs about one part in thirty of the products of a block
//! and saves the fourfold memory that transformed weights would take, for all weight types alike.

mod input;
mod output;
mod tile;
mod weights;

use super::{ConvInput, ConvShape};
use crate::gemm::epilogue::{Epilogue, OutPtr};
use crate::gemm::micro::{Groups, Multiply};
use crate::gemm::rows::LINE;
use crate::isa::Context;
use crate::panel::{NR, Panels};
use crate::scalar::Scalar;
use crate::weight::WeightType;
use crate::workspace::Buffer;
use input::InputGroup;
use output::OutputTiles;
use rayon::prelude::*;
use std::marker::PhantomData;
use std::ops::Range;
use tile::{Doubled, Same, Tile};
use weights::WeightRows;

/// Channels whose transformed weights exist at a time.
const CHANNELS: usize = 128;
/// Elements from one position's transformed weights to the next.
const WEIGHTS_STRIDE: usize = CHANNELS * NR + LINE;
/// Most tiles multiplied together: their sums of all positions, 384 KiB, stay in the second-level cache.
const CHUNK: usize = 84;
/// Channels whose taps are widened at a time, where they are not f32.
const WIDENED: usize = 32;
/// Transformed inputs (in f32 elements) up to which each task keeps its own: 6 MiB.
const OWN_ELEMENTS: usize = 3 << 19;
/// Transformed inputs (in f32 elements) that all tasks share: 16 MiB.
const SHARED_ELEMENTS: usize = 4 << 20;

/// How the output is cut into tiles.
pub(super) struct Grid {
    /// Tiles in a row of the image.
    across: usize,
    /// Tiles in a column of the image.
    down: usize,
    images: usize,
    /// Input pixel (y, x) of the first tile's first input; negative where there is padding.
    origin: (isize, isize),
    /// Output pixels from one output of a tile to the next.
    step: usize,
    /// Output pixel (y, x) of the first tile's first output.
    phase: (usize, usize),
    ho: usize,
    wo: usize,
}

/// Where a tile lies.
pub(super) struct Place {
    image: usize,
    ty: usize,
    tx: usize,
}

impl Grid {
    #[inline(always)]
    fn place(&self, tile: usize) -> Place {
        let row = tile / self.across;
        Place { image: row / self.down, ty: row % self.down, tx: tile % self.across }
    }

    fn tiles(&self) -> usize {
        self.images * self.down * self.across
    }
}

/// A convolution in this form.
pub(super) struct Winograd<'a, T> {
    pub(super) x: &'a ConvInput<'a, T>,
    pub(super) shape: ConvShape,
    pub(super) panels: Panels<'a>,
    pub(super) out: OutPtr<T>,
    pub(super) epilogue: Epilogue<'a, T>,
    /// Output height and width.
    pub(super) size: (usize, usize),
}

impl<T: Scalar> Winograd<'_, T> {
    /// Whether the form exists for this convolution.
    pub(super) fn applies(x: &ConvInput<'_, T>, shape: ConvShape, dtype: WeightType) -> bool {
        let ConvShape { cin, kh, kw, stride, padding, .. } = shape;
        // Pairs of bf16 must not straddle two taps; the phases of a doubled image are those of padding 1.
        (kh, kw, stride) == (3, 3, 1)
            && (dtype != WeightType::BF16 || cin % 2 == 0)
            && (!x.upsample || padding == [1; 4])
    }

    /// Computes the convolution on the ambient threads.
    pub(super) fn run(&self, cx: &Context<'_>) {
        let [top, _, left, _] = self.shape.padding;
        let (ho, wo) = self.size;
        if !self.x.upsample {
            let (down, across, origin) = (ho.div_ceil(4), wo.div_ceil(4), (-(top as isize), -(left as isize)));
            let grid = Grid { across, down, images: self.x.b, origin, step: 1, phase: (0, 0), ho, wo };
            return Pass::<T, Same, 6, 4> { job: self, grid, tile: PhantomData }.run(cx);
        }
        for phase in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let (down, across) = (self.x.h.div_ceil(4), self.x.w.div_ceil(4));
            let origin = (phase.0 as isize - 1, phase.1 as isize - 1);
            let grid = Grid { across, down, images: self.x.b, origin, step: 2, phase, ho, wo };
            Pass::<T, Doubled, 5, 4> { job: self, grid, tile: PhantomData }.run(cx);
        }
    }
}

/// All tiles of one grid.
struct Pass<'a, T, P, const A: usize, const M: usize> {
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

impl<T: Scalar, P: Tile<A, M>, const A: usize, const M: usize> Pass<'_, T, P, A, M> {
    fn run(&self, cx: &Context<'_>) {
        let chunks = self.chunks(cx);
        let packed_len = A * A * chunks[0].stride;
        if packed_len <= OWN_ELEMENTS && chunks.len() >= 3 * rayon::current_num_threads() {
            chunks.into_par_iter().with_max_len(1).for_each(|chunk| self.own_chunk(cx, &chunk, packed_len));
        } else {
            let at_once = (SHARED_ELEMENTS / packed_len).max(1);
            chunks.chunks(at_once).for_each(|chunks| self.shared_chunks(cx, chunks, packed_len));
        }
    }

    /// All tiles in chunks of nearly equal size.
    fn chunks(&self, cx: &Context<'_>) -> Vec<Chunk> {
        let tiles = self.grid.tiles();
        let each = tiles.div_ceil(tiles.div_ceil(CHUNK));
        let chunk = |first: usize| {
            let tiles = first..tiles.min(first + each);
            let groups = Groups::new(cx.isa(), tiles.len());
            Chunk { groups, stride: tiles.len() * self.depth() + LINE, tiles }
        };
        (0..tiles).step_by(each).map(chunk).collect()
    }

    fn depth(&self) -> usize {
        self.job.shape.cin.next_multiple_of(LINE)
    }

    /// One task does all of a chunk.
    fn own_chunk(&self, cx: &Context<'_>, chunk: &Chunk, packed_len: usize) {
        let mut packed = cx.workspace().take::<f32>(packed_len);
        let target = OutPtr::new(&mut packed);
        chunk.groups.iter().for_each(|group| self.transform_group(cx, chunk, target, group));
        let mut scratch = Scratch::new(cx, A * A, chunk.tiles.len(), self.job.panels.dtype());
        for p in 0..self.job.panels.count() {
            self.panel(cx, chunk, &packed, p, &mut scratch);
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
        let scratch = || Scratch::new(cx, A * A, chunks[0].tiles.len(), self.job.panels.dtype());
        let tasks = self.job.panels.count() * chunks.len();
        (0..tasks).into_par_iter().with_max_len(1).for_each_init(scratch, |scratch, task| {
            let (p, c) = (task / chunks.len(), task % chunks.len());
            self.panel(cx, &chunks[c], &packed[c * packed_len..], p, scratch);
        });
    }

    fn transform_group(&self, cx: &Context<'_>, chunk: &Chunk, packed: OutPtr<f32>, group: Range<usize>) {
        if cx.interrupted() {
            return;
        }
        cx.isa().run(InputGroup::<T, P, A, M> {
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

    /// 32 output channels of a chunk: weights, products, output pixels.
    fn panel(&self, cx: &Context<'_>, chunk: &Chunk, packed: &[f32], p: usize, scratch: &mut Scratch) {
        if cx.interrupted() {
            return;
        }
        let (rows, columns) = (chunk.tiles.len(), self.job.panels.columns(p));
        let sums_stride = rows * NR + LINE;
        for k0 in (0..self.job.shape.cin).step_by(CHANNELS) {
            let k = CHANNELS.min(self.job.shape.cin - k0);
            self.transform_weights(cx, p, k0..k0 + k, scratch);
            for position in 0..A * A {
                cx.isa().run(Multiply {
                    a: &packed[position * chunk.stride..],
                    depth: self.depth(),
                    k0,
                    b: &scratch.weights[position * WEIGHTS_STRIDE..],
                    k,
                    c: &mut scratch.sums[position * sums_stride..],
                    groups: chunk.groups,
                    columns,
                    accumulate: k0 > 0,
                });
            }
        }
        cx.isa().run(OutputTiles::<T, P, A, M> {
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
    fn transform_weights(&self, cx: &Context<'_>, p: usize, channels: Range<usize>, scratch: &mut Scratch) {
        let Scratch { weights, taps, .. } = scratch;
        for c in channels.clone().step_by(WIDENED) {
            let count = WIDENED.min(channels.end - c);
            let mut parts = taps.chunks_mut(WIDENED * NR);
            let wide = std::array::from_fn(|tap| {
                let scratch = parts.next().unwrap_or_default();
                self.job.panels.widened(cx.isa(), p, tap * self.job.shape.cin + c, count, scratch)
            });
            cx.isa().run(WeightRows::<P, A, M> {
                taps: wide,
                channels: count,
                phase: self.grid.phase,
                out: &mut weights[(c - channels.start) * NR..],
                stride: WEIGHTS_STRIDE,
                tile: PhantomData,
            });
        }
    }
}

/// What one task needs for itself.
struct Scratch {
    /// `[A²][channels][32]`.
    weights: Buffer<f32>,
    /// `[A²][tiles][32]`.
    sums: Buffer<f32>,
    /// Widened taps, `[9][channels][32]`; empty for f32 weights.
    taps: Buffer<f32>,
}

impl Scratch {
    fn new(cx: &Context<'_>, positions: usize, rows: usize, dtype: WeightType) -> Self {
        let taps = if dtype == WeightType::F32 { 0 } else { 9 * WIDENED * NR };
        Self {
            weights: cx.workspace().take(positions * WEIGHTS_STRIDE),
            sums: cx.workspace().take(positions * (rows * NR + LINE)),
            taps: cx.workspace().take(taps),
        }
    }
}
