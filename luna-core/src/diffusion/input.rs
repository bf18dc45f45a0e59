//! The input of one step and its checks. Nothing past this file meets a wrong shape.

use super::facts::{Facts, encoder, latents};
use crate::{ArrayView, Error, ErrorKind, Limits, Result, limits::check_at_most};

/// The most context tokens of one item.
const CONTEXT_TOKENS: u64 = 1 << 16;

/// What a denoiser is called with, as ComfyUI's `diffusion_model(x, timesteps, context, y=…)`.
#[derive(Debug, Clone)]
pub struct ForwardInput<'a> {
    /// The noisy latent, scaled as the sampler's model sees it, `[batch, channels, height, width]`. Inpainting models take
    /// mask and masked latent as further channels.
    pub x: ArrayView<'a>,
    /// One for each item of the batch: 0..999 for UNets; 0 (no noise) to 1 for Flux and Z-Image.
    pub timesteps: &'a [f32],
    /// The text encoder's tokens, `[batch, tokens, width]`; any number of tokens.
    pub context: ArrayView<'a>,
    /// The pooled conditioning, `[batch, width]`: SDXL's pooled text with embedded sizes, Flux's pooled CLIP-L.
    pub y: Option<ArrayView<'a>>,
    /// The guidance scale of each item, for models distilled with it (Flux dev).
    pub guidance: Option<&'a [f32]>,
    /// What a ControlNet adds.
    pub control: Control<'a>,
}

/// Residuals of ControlNets and T2I adapters, in the order of ComfyUI's `control` lists.
///
/// UNets: each list is used from its end on, as ComfyUI pops it; the last of `input` is added after the first input
/// block, the one in `middle` after the middle, the last of `output` to the skip connection of the first output block.
/// Shapes are `[batch, channels, height, width]` of the feature map.
///
/// Flux: `input[i]` is added to the picture's tokens after double block `i`, `output[i]` after single block `i`;
/// `[batch, tokens, width]`.
#[derive(Debug, Clone, Default)]
pub struct Control<'a> {
    /// For the input side.
    pub input: Vec<Option<ArrayView<'a>>>,
    /// For the middle.
    pub middle: Vec<Option<ArrayView<'a>>>,
    /// For the output side.
    pub output: Vec<Option<ArrayView<'a>>>,
}

impl Control<'_> {
    /// Whether it adds nothing.
    pub fn is_empty(&self) -> bool {
        [&self.input, &self.middle, &self.output].into_iter().all(|list| list.iter().all(Option::is_none))
    }
}

impl<'a> ForwardInput<'a> {
    /// An input without `y`, guidance and control.
    pub fn new(x: ArrayView<'a>, timesteps: &'a [f32], context: ArrayView<'a>) -> Self {
        Self { x, timesteps, context, y: None, guidance: None, control: Control::default() }
    }

    /// The same with a pooled conditioning.
    pub fn with_y(self, y: ArrayView<'a>) -> Self {
        Self { y: Some(y), ..self }
    }

    /// Checks everything against the model and gives `[batch, channels, height, width]`.
    pub(super) fn check(&self, facts: &Facts) -> Result<[usize; 4]> {
        let [batch, channels, height, width] = self.check_x(facts)?;
        check_count("timesteps", self.timesteps.len(), batch)?;
        refuse_non_finite("`timesteps`", self.timesteps)?;
        self.check_context(facts, batch)?;
        self.check_y(facts, batch)?;
        self.check_guidance(facts, batch)?;
        for residual in [&self.control.input, &self.control.middle, &self.control.output].into_iter().flatten() {
            residual.iter().try_for_each(|residual| refuse_non_finite("a control residual", residual.data()))?;
        }
        Ok([batch, channels, height, width])
    }

    fn check_x(&self, facts: &Facts) -> Result<[usize; 4]> {
        let Ok(shape) = <[usize; 4]>::try_from(self.x.shape()) else {
            return Err(wrong_rank("x", "[batch, channels, height, width]", self.x));
        };
        let [batch, channels, height, width] = shape;
        if shape.contains(&0) {
            return Err(wrong("`x` has an empty side").found(format!("{shape:?}")));
        }
        let limits = Limits::default();
        check_at_most("latents in a batch", batch as u64, limits.batch as u64)?;
        check_at_most("latent pixels along a side", height.max(width) as u64, limits.image_side as u64 / 8)?;
        let own = facts.input_channels;
        if channels != own {
            let remedy = match (own, channels) {
                (9, 4) => "give an inpainting model `x` with the mask and the masked latent as further channels",
                _ => "use a latent of this model's own kind",
            };
            return Err(wrong("`x` has a wrong number of channels")
                .expected(format!("{own} channels{}", latents(own)))
                .found(format!("{channels} channels{}", latents(channels)))
                .remedy(remedy));
        }
        let multiple = facts.size_multiple;
        if height % multiple != 0 || width % multiple != 0 {
            return Err(wrong("`x` has sides that this model cannot halve")
                .expected(format!("latent sides that are multiples of {multiple} (picture sides of {})", 8 * multiple))
                .found(format!("{width}x{height}"))
                .remedy("choose another picture size"));
        }
        refuse_non_finite("`x`", self.x.data())?;
        Ok(shape)
    }

    fn check_context(&self, facts: &Facts, batch: usize) -> Result<()> {
        let &[items, tokens, width] = self.context.shape() else {
            return Err(wrong_rank("context", "[batch, tokens, width]", self.context));
        };
        check_count("context sequences", items, batch)?;
        if width != facts.context_width {
            let own = facts.context_width;
            return Err(wrong("`context` has tokens of a wrong width")
                .expected(format!("{own}{}", encoder(own)))
                .found(format!("{width}{}", encoder(width)))
                .remedy("encode the prompt with the text encoder of this model"));
        }
        if tokens == 0 {
            return Err(wrong("`context` has no tokens").remedy("encode the empty prompt: it gives tokens, too"));
        }
        check_at_most("context tokens", tokens as u64, CONTEXT_TOKENS)?;
        refuse_non_finite("`context`", self.context.data())
    }

    fn check_y(&self, facts: &Facts, batch: usize) -> Result<()> {
        match (facts.y_width, self.y) {
            (None, None) => Ok(()),
            (Some(own), None) => Err(wrong("this model needs the pooled conditioning `y`")
                .expected(format!("[{batch}, {own}]"))
                .found("none")
                .remedy("SDXL: the pooled text with the embedded sizes; Flux: CLIP-L's pooled text")),
            (None, Some(y)) => Err(wrong("this model takes no pooled conditioning `y`")
                .found(format!("{:?}", y.shape()))
                .remedy("leave `y` out; SDXL and Flux take one, SD1.5 and Z-Image do not")),
            (Some(own), Some(y)) => {
                if y.shape() != [batch, own.get()] {
                    return Err(wrong("the pooled conditioning `y` has a wrong shape")
                        .expected(format!("[{batch}, {own}]"))
                        .found(format!("{:?}", y.shape())));
                }
                refuse_non_finite("`y`", y.data())
            }
        }
    }

    fn check_guidance(&self, facts: &Facts, batch: usize) -> Result<()> {
        match (facts.takes_guidance, self.guidance) {
            (false, None) => Ok(()),
            (true, None) => Err(wrong("this model needs a guidance scale")
                .expected(format!("{batch} values"))
                .found("none")
                .remedy("Flux dev is usually run with 3.5")),
            (false, Some(_)) => {
                Err(wrong("this model takes no guidance scale").remedy("leave `guidance` out; only Flux dev takes one"))
            }
            (true, Some(guidance)) => {
                check_count("guidance scales", guidance.len(), batch)?;
                refuse_non_finite("`guidance`", guidance)
            }
        }
    }
}

fn check_count(what: &str, found: usize, batch: usize) -> Result<()> {
    if found == batch {
        return Ok(());
    }
    Err(wrong(format!("wrong number of {what}"))
        .expected(format!("{batch}, one for each latent of the batch"))
        .found(found.to_string()))
}

fn wrong_rank(name: &str, expected: &str, found: ArrayView) -> Error {
    wrong(format!("`{name}` has a wrong number of dimensions")).expected(expected).found(format!("{:?}", found.shape()))
}

pub(super) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

/// Refuses values that are not numbers before they spoil a whole prediction.
pub(super) fn refuse_non_finite(what: &str, values: &[f32]) -> Result<()> {
    match values.iter().filter(|value| !value.is_finite()).count() {
        0 => Ok(()),
        count => Err(Error::new(ErrorKind::NonFinite, format!("{what} holds values that are NaN or infinite"))
            .expected("finite values")
            .found(format!("{count} of {}", values.len()))),
    }
}
