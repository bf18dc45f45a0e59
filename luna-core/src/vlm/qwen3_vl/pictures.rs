//! Pictures to patches, as transformers' `Qwen2VLImageProcessor` does it with Pillow: a size near the picture's own that
//! patches and their merging divide, within bounds on the number of pixels.

use crate::{
    Error, ErrorKind, Result,
    picture::{Filter, Pixels, Resampling, resample},
};
use serde_json::Value;

/// The largest ratio of sides that the model was taught.
const MOST_ASPECT: usize = 200;

/// How pictures become patches.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct PictureRules {
    /// Side of a patch, in pixels.
    pub(in super::super) patch: usize,
    /// Frames of a patch; a picture is repeated.
    pub(in super::super) frames: usize,
    /// Patches along a side that become one token together.
    pub(in super::super) merge: usize,
    pub(in super::super) least_pixels: usize,
    pub(in super::super) most_pixels: usize,
    filter: Filter,
    mean: [f32; 3],
    std: [f32; 3],
}

impl PictureRules {
    /// What a `preprocessor_config.json` states, else what every Qwen3-VL has.
    pub(in super::super) fn stated(config: Option<&Value>, patch: usize, frames: usize, merge: usize) -> Result<Self> {
        let pixels = |size: &str, old: &str, usual: usize| {
            let stated = config.and_then(|config| config["size"][size].as_u64().or(config[old].as_u64()));
            stated.map_or(usual, |pixels| pixels as usize)
        };
        let three = |name: &str| {
            let list = config.and_then(|config| config[name].as_array())?;
            let numbers: Option<Vec<f32>> = list.iter().map(|value| value.as_f64().map(|value| value as f32)).collect();
            <[f32; 3]>::try_from(numbers?).ok()
        };
        let number = config.and_then(|config| config["resample"].as_u64()).unwrap_or(3);
        let filter = Filter::of_pillow(number).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "preprocessor_config.json names a filter that Luna lacks")
                .expected("resample 1 (Lanczos), 2 (bilinear) or 3 (bicubic)")
                .found(number.to_string())
        })?;
        let rules = Self {
            patch,
            frames,
            merge,
            least_pixels: pixels("shortest_edge", "min_pixels", 256 * 256),
            most_pixels: pixels("longest_edge", "max_pixels", 4096 * 4096),
            filter,
            mean: three("image_mean").unwrap_or([0.5; 3]),
            std: three("image_std").unwrap_or([0.5; 3]),
        };
        if rules.most_pixels < (patch * merge).pow(2) || rules.std.contains(&0.0) {
            return Err(Error::new(ErrorKind::InvalidFile, "preprocessor_config.json allows no picture at all")
                .expected(format!("at least {} pixels and deviations other than 0", (patch * merge).pow(2)))
                .found(format!("{} pixels, deviations {:?}", rules.most_pixels, rules.std)));
        }
        Ok(rules)
    }

    /// Values of one patch.
    pub(in super::super) fn length(&self) -> usize {
        3 * self.frames * self.patch * self.patch
    }

    /// Height and width that a picture is brought to.
    fn resized(&self, height: usize, width: usize) -> Result<[usize; 2]> {
        if height.max(width) > MOST_ASPECT * height.min(width) {
            return Err(Error::new(ErrorKind::InvalidInput, "the picture is too long and thin for this model")
                .expected(format!("sides in a ratio of at most {MOST_ASPECT}"))
                .found(format!("{width}x{height} pixels"))
                .remedy("crop it, or hand in parts of it"));
        }
        let factor = (self.patch * self.merge) as f64;
        let (h, w) = (height as f64, width as f64);
        let nearest = |side: f64| (side / factor).round_ties_even() * factor;
        let (mut rows, mut columns) = (nearest(h), nearest(w));
        if rows * columns > self.most_pixels as f64 {
            let shrink = (h * w / self.most_pixels as f64).sqrt();
            let below = |side: f64| ((side / shrink / factor).floor() * factor).max(factor);
            (rows, columns) = (below(h), below(w));
        } else if rows * columns < self.least_pixels as f64 {
            let grow = (self.least_pixels as f64 / (h * w)).sqrt();
            let above = |side: f64| (side * grow / factor).ceil() * factor;
            (rows, columns) = (above(h), above(w));
        }
        Ok([rows as usize, columns as usize])
    }

    /// Appends the patches of one picture and gives its grid.
    pub(in super::super) fn prepare(&self, picture: &Pixels, out: &mut Vec<f32>) -> Result<[usize; 3]> {
        let [height, width] = self.resized(picture.height(), picture.width())?;
        let pixels = resample(picture, &Resampling::whole([height, width], self.filter))?;
        let (rows, columns) = (height / self.patch, width / self.patch);
        out.reserve(rows * columns * self.length());
        for (row, column) in blocks(rows, columns, self.merge) {
            for channel in 0..3 {
                for _ in 0..self.frames {
                    for y in row * self.patch..(row + 1) * self.patch {
                        let line = &pixels[(y * width + column * self.patch) * 3..][..self.patch * 3];
                        let values = line.iter().skip(channel).step_by(3);
                        let (mean, std) = (self.mean[channel], self.std[channel]);
                        out.extend(values.map(|&value| (f32::from(value) / 255.0 - mean) / std));
                    }
                }
            }
        }
        Ok([1, rows, columns])
    }
}

/// Rows and columns of a grid in the order of its patches: block by block of those that are merged.
pub(super) fn blocks(rows: usize, columns: usize, merge: usize) -> impl Iterator<Item = (usize, usize)> {
    let inside = move |row: usize, column: usize| {
        (0..merge).flat_map(move |y| (0..merge).map(move |x| (row * merge + y, column * merge + x)))
    };
    (0..rows / merge)
        .flat_map(move |row| (0..columns / merge).map(move |column| (row, column)))
        .flat_map(move |(row, column)| inside(row, column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_processor() {
        let rules = PictureRules::stated(None, 16, 2, 2).unwrap();
        // smart_resize of transformers 5 with factor 32 and Qwen3-VL's bounds.
        for (size, resized) in [
            ([1, 1], [256, 256]),
            ([480, 640], [480, 640]),
            ([100, 100], [256, 256]),
            ([1080, 1920], [1088, 1920]),
            ([16, 3000], [32, 3520]),
            ([8000, 6000], [4704, 3520]),
            ([720, 1296], [704, 1280]),
        ] {
            assert_eq!(rules.resized(size[0], size[1]).unwrap(), resized, "{size:?}");
        }
        assert_eq!(rules.resized(10, 30_000).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(rules.resized(1, 200).unwrap(), [32, 3648]);
    }

    #[test]
    fn blocks_of_merged_patches_lie_together() {
        let order: Vec<_> = blocks(2, 4, 2).collect();
        assert_eq!(order, [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3)]);
    }
}
