//! Key dialects: from the canonical name of a tensor to the name a file stores it under, one file for each family.
//! Canonical names are those of diffusers and transformers.

mod text;
mod vae;

pub(crate) use text::{clip, plain};
pub(crate) use vae::{kl_vae, taesd};

/// Where a file stores the tensor of a canonical name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) part: Part,
}

/// Which part of a stored tensor is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// The run `index` of `of` equal runs of rows, as where queries, keys and values are one matrix.
    Rows { index: usize, of: usize },
    /// The matrix with rows and columns exchanged.
    Transposed,
}

impl From<String> for Stored {
    fn from(name: String) -> Self {
        Self { name, part: Part::Whole }
    }
}
