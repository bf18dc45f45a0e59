//! Key dialects: from the canonical name of a tensor to the name a file stores it under, one file for each family.
//! Canonical names are those of diffusers and transformers.

mod clip;
mod flux;
mod llama_cpp;
mod llama_cpp_vlm;
mod unet;
mod vae;
mod vision;
mod vlm;
mod z_image;

pub(crate) use clip::{clip, is_bare_clip, open_clip_name};
pub(crate) use flux::{flux, flux_names};
pub(crate) use llama_cpp::text;
pub(crate) use unet::{sd_unet, sd_unet_ldm};
pub(crate) use vae::{kl_vae, taesd};
pub(crate) use vision::vision;
pub(crate) use vlm::{vlm, vlm_names};
pub(crate) use z_image::{single_file_name as z_image_single_file_name, z_image};

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
    /// As many rows as are wanted, from this one on, where runs of different length are one matrix.
    RowsFrom(usize),
    /// The matrix with rows and columns exchanged.
    Transposed,
    /// This and, for two, the tensor of its name with `.1` behind it: frames of a patch embedding, which belong behind
    /// its channels.
    Frames(usize),
    /// Of each head of so many rows, the first half's and the second half's rows by turns.
    Pairs { head: usize },
}

impl Stored {
    /// `layer.tensor`, which holds several layers' rows side by side; what is neither weight nor bias is of all of them.
    fn part(layer: &str, tensor: &str, part: Part) -> Self {
        let part = if matches!(tensor, "weight" | "bias") { part } else { Part::Whole };
        Self { name: format!("{layer}.{tensor}"), part }
    }
}

impl From<String> for Stored {
    fn from(name: String) -> Self {
        Self { name, part: Part::Whole }
    }
}
