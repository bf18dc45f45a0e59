//! Caps on everything that comes from outside. Every size meets one of these before memory is allocated.

use crate::{Error, ErrorKind, Result};

/// Upper bounds for what files and callers may ask for. The defaults suit every known model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a safetensors header or a JSON file beside the weights.
    pub header_bytes: u64,
    /// Tensors in one checkpoint.
    pub tensors: usize,
    /// Dimensions of one tensor.
    pub tensor_rank: usize,
    /// Files of a sharded checkpoint.
    pub shards: usize,
    /// Pixels along one side of an image.
    pub image_side: usize,
    /// Pixels of one image.
    pub image_pixels: usize,
    /// Images, latents or prompts in one call.
    pub batch: usize,
    /// Bytes of one prompt.
    pub prompt_bytes: usize,
    /// Tokens of one prompt, with start, end and padding of its chunks.
    pub prompt_tokens: usize,
    /// Rank of a LoRA.
    pub lora_rank: usize,
    /// Bytes of a LoRA file.
    pub lora_bytes: u64,
    /// Bytes of an encoded picture file.
    pub picture_file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 100 << 20,
            tensors: 200_000,
            tensor_rank: 8,
            shards: 1_000,
            image_side: 32_768,
            image_pixels: 16_384 * 16_384,
            batch: 1_024,
            prompt_bytes: 1 << 20,
            prompt_tokens: 1 << 16,
            lora_rank: 1 << 14,
            lora_bytes: 16 << 30,
            picture_file_bytes: 1 << 30,
        }
    }
}

/// Refuses `found` above `most`; `what` is a plural noun such as "tensors in a checkpoint".
pub fn check_at_most(what: &str, found: u64, most: u64) -> Result<()> {
    if found <= most {
        return Ok(());
    }
    Err(Error::new(ErrorKind::LimitExceeded, format!("too many {what}"))
        .expected(format!("at most {most}"))
        .found(found.to_string()))
}
