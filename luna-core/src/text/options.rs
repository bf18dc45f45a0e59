//! What a caller may ask of text encoders, and what it is told about how that was done.

use super::{EmbeddingProblem, EncoderKind};
use crate::{
    AttentionMode, Call, Conditioning, PatchedRuns, Patches, PictureSizes, Precision,
    tokenizer::{LoraTags, PromptOptions, extract_lora_tags},
};
use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc, time::Duration};

/// A prompt with what belongs to it.
///
/// ```
/// use luna_core::{PictureSizes, text::{EncoderKind, Prompt}};
/// let plain: Prompt = "a cat".into();
/// let other = Prompt::new("a cat").for_encoder(EncoderKind::ClipG, "a photo").sized(PictureSizes::uncropped(1024, 1024));
/// assert_ne!(plain, other);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompt {
    /// What every encoder reads.
    pub text: String,
    /// What some encoders read instead, as ComfyUI's nodes with several text fields have it.
    pub others: BTreeMap<EncoderKind, String>,
    /// The sizes that SDXL's denoiser is told, carried along in the conditioning.
    pub sizes: Option<PictureSizes>,
}

impl Prompt {
    /// One text for all encoders.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Gives one encoder another text.
    pub fn for_encoder(mut self, encoder: EncoderKind, text: impl Into<String>) -> Self {
        self.others.insert(encoder, text.into());
        self
    }

    /// Adds the sizes that SDXL's denoiser is told.
    pub fn sized(mut self, sizes: PictureSizes) -> Self {
        self.sizes = Some(sizes);
        self
    }

    /// Takes `<lora:name:model:clip>` tags out of all texts, and gives what they said; the prompt in it is what every
    /// encoder reads. A tag counts as often as it is written, also in a text for one encoder.
    ///
    /// ```
    /// use luna_core::text::{EncoderKind, Prompt};
    /// let mut prompt = Prompt::new("a cat<lora:ink>").for_encoder(EncoderKind::ClipL, "a photo<lora:wash:0.5>");
    /// let found = prompt.take_lora_tags();
    /// assert_eq!((prompt.text.as_str(), prompt.text_for(EncoderKind::ClipL)), ("a cat", "a photo"));
    /// assert_eq!([&*found.tags[0].name, &*found.tags[1].name], ["ink", "wash"]);
    /// ```
    pub fn take_lora_tags(&mut self) -> LoraTags {
        let mut all = LoraTags::default();
        for text in std::iter::once(&mut self.text).chain(self.others.values_mut()) {
            let found = extract_lora_tags(text);
            *text = found.prompt;
            all.tags.extend(found.tags);
            all.malformed.extend(found.malformed);
        }
        all.prompt.clone_from(&self.text);
        all
    }

    /// What an encoder reads.
    pub fn text_for(&self, encoder: EncoderKind) -> &str {
        self.others.get(&encoder).unwrap_or(&self.text)
    }
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// Tokens in place of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenIds {
    /// Ids of the model's vocabulary, with start, end and padding as the model wants them.
    pub ids: Vec<u32>,
    /// Which of them count, as many as there are ids; all up to the end token if not given.
    pub mask: Option<Vec<bool>>,
}

/// Options of [`super::Conditioner`]'s operations.
#[derive(Debug, Clone, Default)]
pub struct TextOptions {
    /// Precision of activations.
    pub precision: Precision,
    /// How attention is computed.
    pub attention: AttentionMode,
    /// Which layer is taken: 1 the last, 2 the one before, as ComfyUI's −1 and −2. What the diffusion model was taught
    /// with if not given: SD1 1, SDXL 2.
    pub clip_skip: Option<NonZeroUsize>,
    /// A1111's habits, off by default.
    pub syntax: PromptOptions,
    /// Whether T5 may not look at its padding. Off for Flux and SD3.
    pub t5_mask: bool,
    /// The least number of tokens T5 is padded to: 256 for Flux, 77 for SD3 if not given.
    pub t5_tokens: Option<NonZeroUsize>,
    /// What is added to the encoders' weights for this call: [`crate::lora::ResolvedText::patches`] of all models.
    pub patches: BTreeMap<EncoderKind, Arc<Patches>>,
    /// Cancellation and progress.
    pub call: Call,
}

/// Something was done otherwise than asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fallback {
    /// Half precision gave NaN or infinity, so an encoder ran again in f32.
    Widened {
        /// The encoder.
        encoder: EncoderKind,
        /// The precision that was asked for.
        from: Precision,
        /// How many values were not finite.
        non_finite: usize,
    },
}

impl Fallback {
    /// A stable name in snake case.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Widened { .. } => "widened_to_f32",
        }
    }
}

impl std::fmt::Display for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Widened { encoder, from, non_finite } => {
                write!(f, "{encoder} done again in f32: {from} gave {non_finite} values that are NaN or infinite")
            }
        }
    }
}

/// One prompt's conditioning and what is to be known about it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EncodedPrompt {
    /// What a denoiser takes; shared with the cache where there is one.
    pub conditioning: Arc<Conditioning>,
    /// Textual inversions that were left out.
    pub problems: Vec<EmbeddingProblem>,
    /// Whether it came from the cache.
    pub cached: bool,
}

/// Encoded prompts, in their order, and how that was done.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Encoded {
    /// One for each prompt.
    pub prompts: Vec<EncodedPrompt>,
    /// What was done otherwise than asked for.
    pub fallbacks: Vec<Fallback>,
    /// How the layers ran that LoRAs change, by encoder. Prompts from the cache ran none.
    pub patched: BTreeMap<EncoderKind, PatchedRuns>,
    /// How many different sequences the encoders read.
    pub sequences: usize,
    /// Time from call to result.
    pub elapsed: Duration,
}

impl Encoded {
    /// The first prompt's conditioning.
    ///
    /// # Panics
    /// Never: there is at least one.
    pub fn first(&self) -> &Conditioning {
        &self.prompts[0].conditioning
    }
}
