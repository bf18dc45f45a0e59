//! The part of a VLM that looks at pictures, whichever family it is of.

use super::{
    llava::Llava,
    qwen3_vl::{PictureRules, Tower},
};
use crate::{
    Error, ErrorKind, Image, Precision, Result,
    nn::{Pass, Tensor},
    picture::Pixels,
    vision::PixelValues,
};

/// What a vision part sees in one picture.
pub(super) struct Seen {
    /// A row for each token, `[tokens, width]`.
    pub(super) tokens: Tensor,
    /// What is added behind the first layers of the language model, `[tokens, width]` each.
    pub(super) deep: Vec<Tensor>,
}

/// The vision part of a family.
pub(super) enum Eyes {
    Qwen3Vl { tower: Tower, rules: PictureRules, sections: [usize; 3] },
    Llava(Llava),
}

impl Eyes {
    /// Which pairs of a head turn by height and width.
    pub(super) fn sections(&self) -> [usize; 3] {
        match self {
            Self::Qwen3Vl { sections, .. } => *sections,
            Self::Llava(_) => [0; 3],
        }
    }

    pub(super) fn layers(&self) -> usize {
        match self {
            Self::Qwen3Vl { tower, .. } => tower.layers(),
            Self::Llava(llava) => llava.layers(),
        }
    }

    /// The grid of a picture in tokens, as places count it; none where pictures are places like words.
    pub(super) fn token_grid(&self, [frames, rows, columns]: [usize; 3]) -> Option<[usize; 3]> {
        match self {
            Self::Qwen3Vl { tower, .. } => Some([frames, rows / tower.merge, columns / tower.merge]),
            Self::Llava(_) => None,
        }
    }

    /// Tokens that a picture of this grid becomes.
    pub(super) fn tokens(&self, grid: [usize; 3]) -> usize {
        match self {
            Self::Qwen3Vl { tower, .. } => grid.iter().product::<usize>() / tower.merge.pow(2),
            Self::Llava(llava) => llava.tokens(),
        }
    }

    /// Refuses patches that this part cannot look at.
    pub(super) fn check(&self, grid: [usize; 3], length: usize) -> Result<()> {
        let (fits, expected) = match self {
            Self::Qwen3Vl { tower, rules, .. } => {
                let merge = tower.merge;
                let fits = grid[1].is_multiple_of(merge) && grid[2].is_multiple_of(merge) && length == rules.length();
                (fits, format!("rows and columns multiples of {merge}, patches of {} values", rules.length()))
            }
            Self::Llava(llava) => {
                let fits = grid == llava.grid() && length == llava.length();
                (fits, format!("a grid of {:?}, patches of {} values", llava.grid(), llava.length()))
            }
        };
        if fits {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "the patches do not suit this model")
            .expected(expected)
            .found(format!("a grid of {grid:?}, patches of {length} values")))
    }

    /// Values of one patch.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Qwen3Vl { rules, .. } => rules.length(),
            Self::Llava(llava) => llava.length(),
        }
    }

    /// Appends the patches of each picture of a batch, and its grid.
    pub(super) fn prepare(&self, image: &Image, grids: &mut Vec<[usize; 3]>, out: &mut Vec<f32>) -> Result<()> {
        match self {
            Self::Qwen3Vl { rules, .. } => {
                for index in 0..image.batch() {
                    grids.push(rules.prepare(&Pixels::of(image, index), out)?);
                }
            }
            Self::Llava(llava) => {
                llava.prepare(image, out)?;
                grids.extend(std::iter::repeat_n(llava.grid(), image.batch()));
            }
        }
        Ok(())
    }

    /// Appends the patches of pictures that were resized and normalised already.
    pub(super) fn cut(&self, pixels: &PixelValues, grids: &mut Vec<[usize; 3]>, out: &mut Vec<f32>) -> Result<()> {
        match self {
            Self::Qwen3Vl { .. } => Err(Error::new(ErrorKind::InvalidInput, "this model's pictures differ in size")
                .expected("patches `[patches, length]` with the grid of each picture")
                .found(format!("pixel values {:?}", pixels.shape()))),
            Self::Llava(llava) => {
                llava.cut(pixels, out)?;
                grids.extend(std::iter::repeat_n(llava.grid(), pixels.shape()[0]));
                Ok(())
            }
        }
    }

    /// What it sees in one picture.
    pub(super) fn look(
        &self,
        patches: &[f32],
        grid: [usize; 3],
        precision: Precision,
        pass: &Pass,
        device: &candle_core::Device,
    ) -> Result<Seen> {
        match self {
            Self::Qwen3Vl { tower, .. } => tower.look(patches, grid, precision, pass, device),
            Self::Llava(llava) => llava.look(patches, precision, pass, device),
        }
    }
}
