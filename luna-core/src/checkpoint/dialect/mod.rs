//! Key dialects: from the canonical name of a tensor to the name a file stores it under, one file for each family.
//! Canonical names are those of diffusers and transformers.

mod vae;

pub(crate) use vae::{kl_vae, taesd};
