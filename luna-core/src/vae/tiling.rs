//! Which tiles cover a picture, and how they are blended. Sizes are latent pixels; it knows no model.

use crate::{Error, ErrorKind, Result};

/// Overlapping square tiles, in latent pixels (8 picture pixels each for every known VAE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    /// Side of a tile, at most: tiles are no larger than what covers the picture evenly.
    pub tile: usize,
    /// How far neighbours overlap, at least. They are blended linearly over what they share.
    pub overlap: usize,
}

impl Tiling {
    /// The smallest tile that gives a VAE enough surroundings to work with.
    pub const SMALLEST: usize = 16;

    /// The overlap that hides the seams: 64 picture pixels, as others take.
    const LEAST: usize = 8;
    /// The overlap past which the result does not get better to speak of.
    const ENOUGH: usize = 16;

    /// Tiles of this side with an overlap of a quarter, but no more than 16.
    pub fn with_tile(tile: usize) -> Self {
        Self { tile, overlap: (tile / 4).min(Self::ENOUGH) }
    }

    /// As few tiles of this side as hide their seams.
    pub(super) fn fewest(tile: usize) -> Self {
        Self { tile, overlap: (tile / 4).min(Self::LEAST) }
    }

    /// Refuses tiles that cannot be laid out.
    pub(super) fn check(self) -> Result<Self> {
        if self.tile >= Self::SMALLEST && self.overlap <= self.tile / 2 {
            return Ok(self);
        }
        Err(Error::new(ErrorKind::InvalidInput, "the tiling is not possible")
            .expected(format!("tiles of at least {} latent pixels, overlapping by at most half", Self::SMALLEST))
            .found(format!("tiles of {} overlapping by {}", self.tile, self.overlap)))
    }

    /// The tiles that cover `height`×`width`, spread evenly so that all overlap alike.
    pub(super) fn tiles(self, height: usize, width: usize) -> Vec<Tile> {
        let (rows, columns) = (self.spans(height), self.spans(width));
        rows.iter().flat_map(|&rows| columns.iter().map(move |&columns| Tile { rows, columns })).collect()
    }

    fn spans(self, side: usize) -> Vec<Span> {
        if side <= self.tile {
            return vec![Span { start: 0, size: side, before: 0, after: 0 }];
        }
        let count = (side - self.overlap).div_ceil(self.tile - self.overlap);
        // As large as the tile allows, for its surroundings make it exact; but past enough overlap it only costs.
        let overlap = self.overlap.max(Self::ENOUGH);
        let size = (side + (count - 1) * overlap).div_ceil(count).min(self.tile);
        let start = |index: usize| (index * (side - size) + (count - 1) / 2) / (count - 1);
        let shared = |left: usize| start(left) + size - start(left + 1);
        (0..count)
            .map(|index| Span {
                start: start(index),
                size,
                before: if index == 0 { 0 } else { shared(index - 1) },
                after: if index + 1 == count { 0 } else { shared(index) },
            })
            .collect()
    }
}

/// One side of a tile: where it starts and what it shares with its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) size: usize,
    pub(super) before: usize,
    pub(super) after: usize,
}

impl Span {
    /// The same in units `factor` times finer.
    fn scaled(self, factor: usize) -> Self {
        let Self { start, size, before, after } = self;
        Self { start: start * factor, size: size * factor, before: before * factor, after: after * factor }
    }

    /// How much the pixel at `offset` in this span counts; two neighbours' weights add up to 1.
    fn weight(self, offset: usize) -> f32 {
        let ramp = |distance: usize, length: usize| (distance as f32 + 0.5) / length as f32;
        let mut weight = 1.0;
        if offset < self.before {
            weight *= ramp(offset, self.before);
        }
        if self.size - 1 - offset < self.after {
            weight *= ramp(self.size - 1 - offset, self.after);
        }
        weight
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) rows: Span,
    pub(super) columns: Span,
}

/// A picture or latent that tiles are added to, `[height, width, channels]`.
pub(super) struct Mosaic {
    width: usize,
    channels: usize,
    sums: Vec<f32>,
    weights: Vec<f32>,
}

impl Mosaic {
    pub(super) fn new(height: usize, width: usize, channels: usize) -> Self {
        let pixels = height * width;
        Self { width, channels, sums: vec![0.0; pixels * channels], weights: vec![0.0; pixels] }
    }

    /// Adds the values of a tile, whose place is given in units `factor` times coarser than the mosaic's.
    pub(super) fn add(&mut self, tile: Tile, factor: usize, values: &[f32]) {
        let (rows, columns) = (tile.rows.scaled(factor), tile.columns.scaled(factor));
        let column_weights: Vec<_> = (0..columns.size).map(|column| columns.weight(column)).collect();
        for row in 0..rows.size {
            let row_weight = rows.weight(row);
            let pixel = (rows.start + row) * self.width + columns.start;
            let sums = self.sums[pixel * self.channels..].chunks_exact_mut(self.channels);
            let values = values[row * columns.size * self.channels..].chunks_exact(self.channels);
            for (((sum, weight), value), column) in
                sums.zip(&mut self.weights[pixel..]).zip(values).zip(&column_weights)
            {
                *weight += row_weight * column;
                sum.iter_mut().zip(value).for_each(|(sum, value)| *sum += row_weight * column * value);
            }
        }
    }

    /// The weighted mean at each pixel.
    pub(super) fn finish(mut self) -> Vec<f32> {
        for (pixel, weight) in self.sums.chunks_exact_mut(self.channels).zip(&self.weights) {
            pixel.iter_mut().for_each(|value| *value /= weight);
        }
        self.sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tiles_cover_everything_and_blend_a_picture_into_itself(
            height in 1usize..90, width in 1usize..90, tile in 16usize..40, share in 0usize..=8, factor in 1usize..3,
        ) {
            let tiling = Tiling { tile, overlap: tile * share / 16 }.check().unwrap();
            let picture: Vec<f32> = (0..height * width * factor * factor).map(|i| (i % 97) as f32).collect();
            let mut mosaic = Mosaic::new(height * factor, width * factor, 1);
            for tile in tiling.tiles(height, width) {
                prop_assert!(tile.rows.start + tile.rows.size <= height);
                prop_assert!(tile.rows.start == 0 || tile.rows.before >= tiling.overlap);
                prop_assert!(tile.rows.size <= tiling.tile);
                let (rows, columns) = (tile.rows.scaled(factor), tile.columns.scaled(factor));
                let cut: Vec<f32> = (0..rows.size)
                    .flat_map(|row| (0..columns.size).map(move |column| (row, column)))
                    .map(|(row, column)| picture[(rows.start + row) * width * factor + columns.start + column])
                    .collect();
                mosaic.add(tile, factor, &cut);
            }
            let whole = mosaic.finish();
            prop_assert!(whole.iter().zip(&picture).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs().max(1.0)));
        }
    }

    /// A picture of 1024² in tiles of 384, as memory may ask for: the work of 9, not of 16.
    #[test]
    fn tiles_chosen_for_memory_are_few() {
        let tiles = |tiling: Tiling| tiling.check().unwrap().tiles(128, 128);
        assert_eq!((tiles(Tiling::fewest(48)).len(), tiles(Tiling::with_tile(48)).len()), (9, 16));
        let shared = tiles(Tiling::fewest(48)).iter().map(|tile| tile.rows.after).filter(|&shared| shared > 0).min();
        assert!(shared >= Some(8), "{shared:?}");
    }

    #[test]
    fn impossible_tilings_are_refused() {
        assert!(Tiling { tile: 15, overlap: 0 }.check().is_err());
        assert!(Tiling { tile: 16, overlap: 9 }.check().is_err());
    }
}
