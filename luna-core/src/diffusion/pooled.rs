//! What a denoiser takes as `y`, made from a conditioning: the pooled text, for SDXL with the picture's sizes embedded.

use super::{Denoiser, input::wrong, timestep::sinusoids};
use crate::{ArrayView, Conditioning, PictureSizes, Result};

/// Numbers that SDXL is told beside the pooled text; the refiner has five.
const NUMBERS: usize = 6;

/// A pooled conditioning, `[batch, width]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Pooled {
    shape: [usize; 2],
    data: Vec<f32>,
}

impl Pooled {
    /// As [`super::ForwardInput`] takes it.
    pub fn view(&self) -> ArrayView<'_> {
        ArrayView::new(&self.shape, &self.data).expect("as many values as counted")
    }
}

impl Denoiser {
    /// The `y` that belongs to a conditioning: nothing for SD1.5, SD2 and Z-Image, the pooled text for Flux; for SDXL the
    /// pooled text with the sines and cosines of the conditioning's sizes, as ComfyUI embeds them.
    ///
    /// # Errors
    /// `InvalidInput` if the conditioning has no pooled text, one of another width, or lacks sizes that are needed. The
    /// refiner, which is told an aesthetic score, needs a `y` of the caller's own.
    pub fn pooled(&self, conditioning: &Conditioning) -> Result<Option<Pooled>> {
        let Some(width) = self.facts.y_width.map(|width| width.get()) else { return Ok(None) };
        let Some((text, own)) = conditioning.pooled().zip(conditioning.pooled_channels()) else {
            return Err(wrong("this model needs pooled text, which the conditioning lacks")
                .expected(format!("a pooled conditioning for a `y` of {width}"))
                .remedy("encode the prompt with all text encoders of this model"));
        };
        let rest = width.checked_sub(own).filter(|rest| rest.is_multiple_of(2 * NUMBERS));
        let Some(each) = rest.map(|rest| rest / NUMBERS) else {
            return Err(wrong("the pooled text does not fit this model")
                .expected(format!("{width} values, or fewer by {NUMBERS} embedded numbers"))
                .found(own.to_string())
                .remedy("make `y` yourself, or encode the prompt with the text encoders of this model"));
        };
        let mut data = text.to_vec();
        if each > 0 {
            let sizes = conditioning.sizes().ok_or_else(|| {
                wrong("this model is told the picture's sizes, which the conditioning lacks")
                    .remedy("give the prompt sizes (`Prompt::sized`)")
            })?;
            let embedded = sinusoids(&numbers(sizes), each);
            data = text.chunks_exact(own).flat_map(|text| text.iter().chain(&embedded).copied()).collect();
        }
        Ok(Some(Pooled { shape: [conditioning.batch(), width], data }))
    }
}

/// In the order of SDXL's training.
fn numbers(sizes: PictureSizes) -> [f32; NUMBERS] {
    let PictureSizes { width, height, crop_w, crop_h, target_width, target_height } = sizes;
    [height, width, crop_h, crop_w, target_height, target_width].map(|number| number as f32)
}
