//! What a VLM reads: token ids, some of which hold places of pictures, and the pictures cut into patches.

use crate::{Error, ErrorKind, Limits, Result, limits::check_at_most};

/// Pictures cut into patches, one after the other, as transformers' processors hand them on.
#[derive(Debug, Clone, PartialEq)]
pub struct Patches {
    /// Patches of each picture: frames, rows and columns of its grid.
    pub grids: Vec<[usize; 3]>,
    /// Values of one patch.
    pub length: usize,
    /// f32, `[patches of all pictures, length]`.
    pub data: Vec<f32>,
}

impl Patches {
    /// No picture.
    pub fn none() -> Self {
        Self { grids: Vec::new(), length: 0, data: Vec::new() }
    }

    /// Takes `pixel_values` `[patches, length]` and `image_grid_thw` `[pictures, 3]`.
    ///
    /// # Errors
    /// `InvalidInput` if their sizes disagree, `LimitExceeded` for more pictures or patches than the default [`Limits`]
    /// allow.
    pub fn new(grids: Vec<[usize; 3]>, length: usize, data: Vec<f32>) -> Result<Self> {
        let limits = Limits::default();
        check_at_most("pictures in a prompt", grids.len() as u64, limits.batch as u64)?;
        let count = |grid: &[usize; 3]| grid.iter().fold(1u64, |count, &side| count.saturating_mul(side as u64));
        let patches = grids.iter().map(count).fold(0u64, u64::saturating_add);
        check_at_most("patches in a prompt", patches, 16 * limits.prompt_tokens as u64)?;
        let found = data.len().checked_div(length).unwrap_or(0);
        if grids.iter().any(|grid| grid.contains(&0)) || patches * length as u64 != data.len() as u64 {
            return Err(Error::new(ErrorKind::InvalidInput, "the patches do not fit their grids")
                .expected(format!("{patches} patches for {grids:?}"))
                .found(format!("{found} patches of {length} values")));
        }
        Ok(Self { grids, length, data })
    }

    /// The patches of picture `index`.
    pub(super) fn picture(&self, index: usize) -> &[f32] {
        let count = |grid: &[usize; 3]| grid.iter().product::<usize>();
        let before: usize = self.grids[..index].iter().map(count).sum();
        &self.data[before * self.length..][..count(&self.grids[index]) * self.length]
    }
}

/// A prepared prompt: ids with a place-holding id for each token that a picture becomes, and the pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct VlmInput {
    /// Token ids.
    pub ids: Vec<u32>,
    /// The pictures, in the order of their places.
    pub patches: Patches,
}
