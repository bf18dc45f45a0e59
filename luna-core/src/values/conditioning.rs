//! Conditioning: what text encoders make of a prompt and a denoiser listens to.

use super::ArrayView;
use crate::{Error, ErrorKind, Limits, Result, limits::check_at_most};

/// The sizes SDXL's denoiser is told, in pixels, as ComfyUI's conditioning carries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PictureSizes {
    /// Width of the picture that is asked for, before any cropping.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// How much is cut off at the left.
    pub crop_w: u32,
    /// How much is cut off at the top.
    pub crop_h: u32,
    /// Width after cropping.
    pub target_width: u32,
    /// Height after cropping.
    pub target_height: u32,
}

impl PictureSizes {
    /// A picture that is not cropped.
    ///
    /// ```
    /// let sizes = luna_core::PictureSizes::uncropped(1024, 768);
    /// assert_eq!((sizes.target_width, sizes.crop_w), (1024, 0));
    /// ```
    pub const fn uncropped(width: u32, height: u32) -> Self {
        Self { width, height, crop_w: 0, crop_h: 0, target_width: width, target_height: height }
    }
}

/// Encoded prompts: f32, `[batch, tokens, channels]` in row-major order, with what belongs to them.
///
/// ```
/// use luna_core::Conditioning;
/// let conditioning = Conditioning::new([1, 77, 2], vec![0.5; 154])?.with_pooled(vec![1.0; 3])?;
/// assert_eq!((conditioning.tokens(), conditioning.channels()), (77, 2));
/// assert_eq!(conditioning.pooled(), Some(&[1.0; 3][..]));
/// # Ok::<(), luna_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Conditioning {
    shape: [usize; 3],
    data: Vec<f32>,
    pooled: Option<Vec<f32>>,
    mask: Option<Vec<bool>>,
    sizes: Option<PictureSizes>,
}

impl Conditioning {
    /// Takes values of the shape `[batch, tokens, channels]`.
    ///
    /// # Errors
    /// `InvalidInput` if a side is 0 or the number of values differs; `LimitExceeded` above the default [`Limits`].
    pub fn new(shape: [usize; 3], data: Vec<f32>) -> Result<Self> {
        let limits = Limits::default();
        if shape.contains(&0) {
            return Err(wrong("the conditioning has an empty side").found(format!("{shape:?}")));
        }
        check_at_most("conditionings in a batch", shape[0] as u64, limits.batch as u64)?;
        check_at_most("tokens of a conditioning", shape[1] as u64, 2 * limits.prompt_tokens as u64)?;
        check_at_most("channels of a conditioning", shape[2] as u64, 1 << 16)?;
        check_count("values", shape.iter().product(), data.len())?;
        Ok(Self { shape, data, pooled: None, mask: None, sizes: None })
    }

    /// Adds the pooled output, `[batch, width]` for any width.
    ///
    /// # Errors
    /// `InvalidInput` if the batch does not divide the number of values.
    pub fn with_pooled(mut self, pooled: Vec<f32>) -> Result<Self> {
        if pooled.is_empty() || !pooled.len().is_multiple_of(self.batch()) {
            return Err(wrong("the pooled output does not fit the batch")
                .expected(format!("a multiple of {} values", self.batch()))
                .found(pooled.len().to_string()));
        }
        self.pooled = Some(pooled);
        Ok(self)
    }

    /// Adds the attention mask, `[batch, tokens]`: which tokens a denoiser may look at.
    ///
    /// # Errors
    /// `InvalidInput` if the number of values differs.
    pub fn with_mask(mut self, mask: Vec<bool>) -> Result<Self> {
        check_count("mask values", self.shape[0] * self.shape[1], mask.len())?;
        self.mask = Some(mask);
        Ok(self)
    }

    /// Adds the sizes that SDXL's denoiser is told, the same for the whole batch.
    pub fn with_sizes(mut self, sizes: Option<PictureSizes>) -> Self {
        self.sizes = sizes;
        self
    }

    /// `[batch, tokens, channels]`.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// All of it, as denoisers take it.
    pub fn view(&self) -> ArrayView<'_> {
        ArrayView::new(&self.shape, &self.data).expect("counted when it was made")
    }

    /// How many prompts it holds.
    pub fn batch(&self) -> usize {
        self.shape[0]
    }

    /// Tokens of each prompt: 77 for each chunk of a CLIP's.
    pub fn tokens(&self) -> usize {
        self.shape[1]
    }

    /// Length of a token's encoding: 768 for SD1.5, 2048 for SDXL, 4096 for Flux and SD3, 2560 for Z-Image.
    pub fn channels(&self) -> usize {
        self.shape[2]
    }

    /// The values in row-major order.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The values of token `token` of prompt `prompt`.
    ///
    /// # Panics
    /// If there is no such token.
    pub fn token(&self, prompt: usize, token: usize) -> &[f32] {
        let [_, tokens, channels] = self.shape;
        assert!(token < tokens, "token {token} of {tokens}");
        &self.data[(prompt * tokens + token) * channels..][..channels]
    }

    /// The pooled output `[batch, width]`, where the text encoder gives one.
    pub fn pooled(&self) -> Option<&[f32]> {
        self.pooled.as_deref()
    }

    /// Width of the pooled output.
    pub fn pooled_channels(&self) -> Option<usize> {
        self.pooled.as_ref().map(|pooled| pooled.len() / self.batch())
    }

    /// The attention mask `[batch, tokens]`; all tokens count where there is none.
    pub fn mask(&self) -> Option<&[bool]> {
        self.mask.as_deref()
    }

    /// The sizes for SDXL's denoiser, where they were given.
    pub fn sizes(&self) -> Option<PictureSizes> {
        self.sizes
    }

    /// Bytes it takes in memory.
    pub fn bytes(&self) -> usize {
        let floats = self.data.len() + self.pooled.as_ref().map_or(0, Vec::len);
        size_of::<Self>() + floats * size_of::<f32>() + self.mask.as_ref().map_or(0, Vec::len)
    }
}

fn wrong(message: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, message.to_owned())
}

fn check_count(what: &str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(wrong(&format!("the conditioning has a wrong number of {what}"))
        .expected(expected.to_string())
        .found(found.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_shapes_are_refused() {
        assert_eq!(Conditioning::new([1, 0, 8], vec![]).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(Conditioning::new([1, 77, 8], vec![0.0; 615]).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(Conditioning::new([1, 1 << 40, 8], vec![]).unwrap_err().kind(), ErrorKind::LimitExceeded);
        let conditioning = Conditioning::new([2, 3, 1], (0..6).map(|i| i as f32).collect()).unwrap();
        assert_eq!(conditioning.token(1, 2), [5.0]);
        assert!(conditioning.clone().with_mask(vec![true; 5]).is_err());
        assert!(conditioning.clone().with_pooled(vec![0.0; 3]).is_err());
        assert_eq!(conditioning.with_pooled(vec![0.0; 4]).unwrap().pooled_channels(), Some(2));
    }
}
