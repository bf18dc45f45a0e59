//! Key dialects: from the canonical name of a tensor to the name a file stores it under, one file for each family.
//! Canonical names are those of diffusers and transformers.

mod flux;
mod unet;
mod vae;
mod z_image;

pub(crate) use flux::flux;
pub(crate) use unet::sd_unet;
pub(crate) use vae::{kl_vae, taesd};
pub(crate) use z_image::z_image;

/// Where a canonical tensor is in a file: a tensor of its own, or rows of one that holds several side by side, such as
/// a fused `qkv`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) name: String,
    /// The row it starts at, where it is a part of the stored tensor.
    pub(crate) first_row: Option<usize>,
}

impl Stored {
    fn part(name: String, first_row: usize) -> Self {
        Self { name, first_row: Some(first_row) }
    }
}

impl From<String> for Stored {
    fn from(name: String) -> Self {
        Self { name, first_row: None }
    }
}
