//! Which text encoder a component is. Enters: names, depth and width from a checkpoint's header. Leaves: the kind, and
//! what follows from it. It must not know weights or prompts.

use crate::{
    Error, ErrorKind, Result,
    checkpoint::{Checkpoint, Component, Dialect, Family},
    tokenizer::{ChunkRule, ClipTokenizer, FileTokenizer, PromptTokenizer},
};
use std::{fmt, str::FromStr, sync::Arc};

/// The text encoders that diffusion models listen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum EncoderKind {
    /// OpenAI's CLIP ViT-L/14: SD1.x, SDXL's first, SD3's and Flux's.
    ClipL,
    /// OpenCLIP's ViT-bigG/14: SDXL's second, SD3's.
    ClipG,
    /// OpenCLIP's ViT-H/14: SD2.x.
    ClipH,
    /// The encoder of T5 v1.1: XXL for Flux and SD3.
    T5,
    /// Qwen3, 4B for Z-Image.
    Qwen3,
}

impl EncoderKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::ClipL, Self::ClipG, Self::ClipH, Self::T5, Self::Qwen3];

    /// A stable name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClipL => "clip_l",
            Self::ClipG => "clip_g",
            Self::ClipH => "clip_h",
            Self::T5 => "t5",
            Self::Qwen3 => "qwen3",
        }
    }

    /// The tensor that holds a textual inversion for this encoder in a file for several.
    pub(super) const fn embedding_key(self) -> &'static str {
        match self {
            Self::T5 => "t5xxl",
            Self::Qwen3 => "qwen3_4b",
            _ => self.name(),
        }
    }

    /// Whether it is one of the CLIPs.
    pub const fn is_clip(self) -> bool {
        matches!(self, Self::ClipL | Self::ClipG | Self::ClipH)
    }

    /// How a CLIP's chunks are filled.
    pub(super) const fn clip_rule(self) -> ChunkRule {
        if matches!(self, Self::ClipL) { ChunkRule::CLIP_L } else { ChunkRule::CLIP_G }
    }

    /// The tokenizer of its prompts: CLIP's own, or the file of a T5 or Qwen3, which is asked for only then.
    ///
    /// ```
    /// use luna_core::{Error, ErrorKind, text::EncoderKind, tokenizer::{ClipTokenizer, PromptOptions}};
    /// let clip = ClipTokenizer::new().into();
    /// let none = || Err(Error::new(ErrorKind::NotFound, "CLIP needs no file"));
    /// let tokenizer = EncoderKind::ClipG.tokenizer(clip, none)?;
    /// assert_eq!(tokenizer.tokenize("a cat", &PromptOptions::default(), None)?.chunks[0][4].id(), Some(0));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of `file`; `InvalidInput` if it is another model's.
    pub fn tokenizer(
        self,
        clip: Arc<ClipTokenizer>,
        file: impl FnOnce() -> Result<FileTokenizer>,
    ) -> Result<PromptTokenizer> {
        match self {
            Self::ClipL => Ok(PromptTokenizer::clip_l(clip)),
            Self::ClipG | Self::ClipH => Ok(PromptTokenizer::clip_g(clip)),
            Self::T5 => PromptTokenizer::t5(file()?, 1),
            Self::Qwen3 => PromptTokenizer::z_image(Arc::new(file()?)),
        }
    }

    /// The family that a checkpoint is recognised as.
    pub const fn family(self) -> Family {
        match self {
            Self::ClipL | Self::ClipG | Self::ClipH => Family::Clip,
            Self::T5 => Family::T5,
            Self::Qwen3 => Family::Qwen3,
        }
    }
}

impl FromStr for EncoderKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "no such text encoder")
                .expected(Self::ALL.map(|kind| format!("`{}`", kind.name())).join(", "))
                .found(format!("`{text}`"))
        })
    }
}

impl fmt::Display for EncoderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClipL => "CLIP-L",
            Self::ClipG => "CLIP-G",
            Self::ClipH => "CLIP-H",
            Self::T5 => "T5",
            Self::Qwen3 => "Qwen3",
        })
    }
}

/// Layers and width of a CLIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClipSize {
    pub(super) layers: usize,
    pub(super) width: usize,
}

impl ClipSize {
    const L: Self = Self { layers: 12, width: 768 };
    const H: Self = Self { layers: 24, width: 1024 };
    const G: Self = Self { layers: 32, width: 1280 };

    fn of(checkpoint: &Checkpoint, component: &Component) -> Self {
        let prefix = &component.prefix;
        let shape = |name: String| checkpoint.shape(&format!("{prefix}{name}"));
        let open = component.dialect == Dialect::OpenClip;
        let marker = |layer: usize| {
            if open {
                format!("transformer.resblocks.{layer}.ln_1.weight")
            } else {
                format!("text_model.encoder.layers.{layer}.layer_norm1.weight")
            }
        };
        let table = if open { "token_embedding.weight" } else { "text_model.embeddings.token_embedding.weight" };
        let width = shape(table.into()).and_then(|shape| shape.last().copied()).unwrap_or_default();
        Self { layers: (0..).take_while(|&layer| shape(marker(layer)).is_some()).count(), width }
    }

    /// The kind that has just this size.
    fn kind(self) -> Option<EncoderKind> {
        match self {
            Self::L => Some(EncoderKind::ClipL),
            Self::H => Some(EncoderKind::ClipH),
            Self::G => Some(EncoderKind::ClipG),
            _ => None,
        }
    }
}

/// The kind of a text encoder in a checkpoint.
///
/// A CLIP is told by its depth, as ComfyUI does it: more than 30 layers are G's, more than 22 H's, fewer L's; unless
/// the place in the file says it, as for SDXL's second encoder.
///
/// # Errors
/// `Unsupported` if `wanted` is another kind than the weights can be.
pub(super) fn kind_of(
    checkpoint: &Checkpoint,
    component: &Component,
    wanted: Option<EncoderKind>,
) -> Result<EncoderKind> {
    let family = component.family;
    let found = match family {
        Family::T5 => EncoderKind::T5,
        Family::Qwen3 => EncoderKind::Qwen3,
        _ => clip_kind(ClipSize::of(checkpoint, component), &component.prefix),
    };
    let Some(wanted) = wanted else { return Ok(found) };
    // A CLIP of no known size may be meant as any.
    let certain = family != Family::Clip || ClipSize::of(checkpoint, component).kind().is_some();
    if wanted.family() != family || (certain && wanted != found) {
        return Err(Error::new(ErrorKind::Unsupported, "this is the weights of another text encoder")
            .expected(wanted.to_string())
            .found(found.to_string())
            .remedy(format!("give it as {}, or give the file of a {wanted}", found.name())));
    }
    Ok(wanted)
}

fn clip_kind(size: ClipSize, prefix: &str) -> EncoderKind {
    let second = ["text_encoder_2.", "conditioner.embedders.1.", "text_encoders.clip_g."];
    match size {
        _ if size.kind().is_some() => size.kind().expect("just asked"),
        _ if second.iter().any(|place| prefix.starts_with(place)) => EncoderKind::ClipG,
        ClipSize { layers: 31.., .. } => EncoderKind::ClipG,
        ClipSize { layers: 23.., .. } => EncoderKind::ClipH,
        _ => EncoderKind::ClipL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_are_told_by_depth_and_place() {
        let size = |layers, width| ClipSize { layers, width };
        assert_eq!(clip_kind(size(12, 768), "conditioner.embedders.1.model."), EncoderKind::ClipL);
        assert_eq!(clip_kind(size(32, 1280), ""), EncoderKind::ClipG);
        // SD2 checkpoints come with 23 of 24 layers.
        assert_eq!(clip_kind(size(23, 1024), "cond_stage_model.model."), EncoderKind::ClipH);
        assert_eq!(clip_kind(size(5, 128), "conditioner.embedders.1.model."), EncoderKind::ClipG);
        assert_eq!(clip_kind(size(5, 128), "text_encoder."), EncoderKind::ClipL);
    }
}
