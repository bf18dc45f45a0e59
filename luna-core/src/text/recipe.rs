//! How diffusion models put text encoders together. Enters: which encoders there are, their encodings of a prompt.
//! Leaves: what is wanted of each, and one conditioning, as ComfyUI makes it. It must not know weights or prompts.

use super::{
    kind::EncoderKind,
    wish::{Layer, Pooling, Wish},
};
use crate::{Conditioning, Error, ErrorKind, Result};
use std::str::FromStr;

/// What conditioning is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Recipe {
    /// CLIP-L's last layer, normed: SD1.x. Pooled output without projection.
    Sd1,
    /// CLIP-H's last layer but one, normed: SD2.x.
    Sd2,
    /// CLIP-L's and CLIP-G's last layers but one, side by side; G's projected pooled output: SDXL.
    Sdxl,
    /// CLIP-G's last layer but one and its projected pooled output: SDXL's refiner.
    SdxlRefiner,
    /// CLIP-L and CLIP-G as in SDXL, padded to T5's width, then T5; any of them may be missing: SD3.
    Sd3,
    /// T5's encoding and CLIP-L's pooled output: Flux.
    Flux,
    /// T5's encoding alone.
    T5,
    /// Qwen3's last layer but one without the final norm, with its mask: Z-Image.
    ZImage,
}

impl FromStr for Recipe {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|recipe| recipe.name() == text).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "no such recipe")
                .expected(Self::ALL.map(|recipe| format!("`{}`", recipe.name())).join(", "))
                .found(format!("`{text}`"))
        })
    }
}

/// Channels of SD3's conditioning where no T5 says it, and of its pooled outputs where an encoder is missing.
const SD3_CHANNELS: usize = 4096;
const CLIP_L_CHANNELS: usize = 768;
const CLIP_G_CHANNELS: usize = 1280;

/// What one encoder gave for a prompt, all chunks joined.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JoinedEncoding {
    pub(super) kind: EncoderKind,
    pub(super) channels: usize,
    /// `[tokens, channels]`.
    pub(super) values: Vec<f32>,
    pub(super) pooled: Option<Vec<f32>>,
    pub(super) mask: Option<Vec<bool>>,
}

impl JoinedEncoding {
    fn tokens(&self) -> usize {
        self.values.len() / self.channels
    }
}

impl Recipe {
    /// Every recipe.
    pub const ALL: [Self; 8] =
        [Self::Sd1, Self::Sd2, Self::Sdxl, Self::SdxlRefiner, Self::Sd3, Self::Flux, Self::T5, Self::ZImage];

    /// A stable name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sd1 => "sd1",
            Self::Sd2 => "sd2",
            Self::Sdxl => "sdxl",
            Self::SdxlRefiner => "sdxl_refiner",
            Self::Sd3 => "sd3",
            Self::Flux => "flux",
            Self::T5 => "t5",
            Self::ZImage => "z_image",
        }
    }

    /// The encoders it uses. All must be there but for SD3, which does with any.
    pub const fn encoders(self) -> &'static [EncoderKind] {
        match self {
            Self::Sd1 => &[EncoderKind::ClipL],
            Self::Sd2 => &[EncoderKind::ClipH],
            Self::Sdxl => &[EncoderKind::ClipL, EncoderKind::ClipG],
            Self::SdxlRefiner => &[EncoderKind::ClipG],
            Self::Sd3 => &[EncoderKind::ClipL, EncoderKind::ClipG, EncoderKind::T5],
            Self::Flux => &[EncoderKind::ClipL, EncoderKind::T5],
            Self::T5 => &[EncoderKind::T5],
            Self::ZImage => &[EncoderKind::Qwen3],
        }
    }

    /// The recipe for just these encoders.
    ///
    /// # Errors
    /// `InvalidInput` if no diffusion model listens to them together.
    pub(super) fn of(kinds: &[EncoderKind]) -> Result<Self> {
        let fits = |recipe: &Self| {
            let encoders = recipe.encoders();
            encoders.len() == kinds.len() && encoders.iter().all(|kind| kinds.contains(kind))
        };
        Self::ALL.into_iter().find(fits).ok_or_else(|| {
            let names: Vec<_> = kinds.iter().map(EncoderKind::to_string).collect();
            Error::new(ErrorKind::InvalidInput, "no diffusion model listens to these text encoders together")
                .expected(
                    "CLIP-L (SD1), CLIP-L and CLIP-G (SDXL), CLIP-L and T5 (Flux), all three (SD3), or CLIP-G, CLIP-H, \
                     T5 or Qwen3 alone",
                )
                .found(if names.is_empty() { "none".into() } else { names.join(", ") })
        })
    }

    /// Refuses encoders that do not suffice.
    pub(super) fn check(self, kinds: &[EncoderKind]) -> Result<()> {
        let has = |kind: &EncoderKind| kinds.contains(kind);
        let enough = match self {
            Self::Sd3 => self.encoders().iter().any(has),
            _ => self.encoders().iter().all(has),
        };
        if enough {
            return Ok(());
        }
        let names = |kinds: &[EncoderKind]| kinds.iter().map(EncoderKind::to_string).collect::<Vec<_>>().join(", ");
        Err(Error::new(ErrorKind::InvalidInput, format!("a text encoder is missing for {}", self.name()))
            .expected(names(self.encoders()))
            .found(if kinds.is_empty() { "none".into() } else { names(kinds) }))
    }

    /// What is wanted of an encoder, with the layer that the caller asked for.
    pub(super) fn wish(self, kind: EncoderKind, clip_skip: Option<usize>) -> Wish {
        let (layer, norm_inner, pooling) = match (self, kind) {
            (Self::Sd1 | Self::Flux, EncoderKind::ClipL) => (Layer::Last, true, Pooling::Normed),
            (_, EncoderKind::ClipH) => (Layer::FromEnd(2), true, Pooling::Projected),
            (Self::Sd3, EncoderKind::ClipL) => (Layer::FromEnd(2), false, Pooling::Normed),
            (_, EncoderKind::ClipL) => (Layer::FromEnd(2), false, Pooling::None),
            (_, EncoderKind::ClipG) => (Layer::FromEnd(2), false, Pooling::Projected),
            (_, EncoderKind::T5) => (Layer::Last, true, Pooling::None),
            (_, EncoderKind::Qwen3) => (Layer::FromEnd(2), false, Pooling::None),
        };
        Wish { layer: clip_skip.map_or(layer, Layer::FromEnd), norm_inner, pooling }
    }

    /// Puts the encodings of one prompt together.
    pub(super) fn combine(self, mut encodings: Vec<JoinedEncoding>) -> Result<Conditioning> {
        let mut take = |kind| {
            let index = encodings.iter().position(|encoding| encoding.kind == kind)?;
            Some(encodings.swap_remove(index))
        };
        let lacks = || Error::new(ErrorKind::Internal, "an encoder of the recipe did not run");
        match self {
            Self::Sdxl => {
                let [l, g] = [EncoderKind::ClipL, EncoderKind::ClipG].map(&mut take);
                let (l, g) = (l.ok_or_else(lacks)?, g.ok_or_else(lacks)?);
                single(side_by_side(&l, g))
            }
            Self::Flux => {
                let [l, t5] = [EncoderKind::ClipL, EncoderKind::T5].map(&mut take);
                let (l, t5) = (l.ok_or_else(lacks)?, t5.ok_or_else(lacks)?);
                single(JoinedEncoding { pooled: l.pooled, ..t5 })
            }
            Self::Sd3 => {
                let [l, g, t5] = [EncoderKind::ClipL, EncoderKind::ClipG, EncoderKind::T5].map(&mut take);
                sd3(l, g, t5)
            }
            _ => single(take(self.encoders()[0]).ok_or_else(lacks)?),
        }
    }
}

fn single(encoding: JoinedEncoding) -> Result<Conditioning> {
    let shape = [1, encoding.tokens(), encoding.channels];
    let conditioning = Conditioning::new(shape, encoding.values)?;
    let conditioning = match encoding.pooled {
        Some(pooled) => conditioning.with_pooled(pooled)?,
        None => conditioning,
    };
    match encoding.mask {
        Some(mask) => conditioning.with_mask(mask),
        None => Ok(conditioning),
    }
}

/// Channels of both, one after the other, for as many tokens as both have; the pooled output of the second.
fn side_by_side(first: &JoinedEncoding, second: JoinedEncoding) -> JoinedEncoding {
    let rows = first.values.chunks_exact(first.channels).zip(second.values.chunks_exact(second.channels));
    let values = rows.flat_map(|(a, b)| a.iter().chain(b)).copied().collect();
    JoinedEncoding { channels: first.channels + second.channels, values, ..second }
}

/// Zeros before and after the channels of each token.
fn padded(encoding: JoinedEncoding, before: usize, channels: usize) -> JoinedEncoding {
    let mut values = vec![0.0; encoding.tokens() * channels];
    for (row, own) in values.chunks_exact_mut(channels).zip(encoding.values.chunks_exact(encoding.channels)) {
        row[before..before + own.len()].copy_from_slice(own);
    }
    JoinedEncoding { channels, values, ..encoding }
}

fn sd3(l: Option<JoinedEncoding>, g: Option<JoinedEncoding>, t5: Option<JoinedEncoding>) -> Result<Conditioning> {
    let no_pooled = |width| vec![0.0; width];
    let pooled_of = |encoding: &Option<JoinedEncoding>, width| match encoding {
        Some(JoinedEncoding { pooled: Some(pooled), .. }) => pooled.clone(),
        _ => no_pooled(width),
    };
    let pooled = [pooled_of(&l, CLIP_L_CHANNELS), pooled_of(&g, CLIP_G_CHANNELS)].concat();
    let clips = match (l, g) {
        (Some(l), Some(g)) => Some(side_by_side(&l, g)),
        (Some(l), None) => Some(l),
        (None, Some(g)) => {
            let channels = CLIP_L_CHANNELS + g.channels;
            Some(padded(g, CLIP_L_CHANNELS, channels))
        }
        (None, None) => None,
    };
    let channels = t5.as_ref().map_or(SD3_CHANNELS, |t5| t5.channels);
    let clips = match clips {
        Some(clips) if clips.channels > channels => {
            return Err(Error::new(ErrorKind::InvalidInput, "this T5 is too narrow to go with these CLIPs")
                .expected(format!("at least {} channels", clips.channels))
                .found(channels.to_string()));
        }
        Some(clips) => Some(padded(clips, 0, channels)),
        None => None,
    };
    let all = match (clips, t5) {
        (Some(clips), Some(t5)) => {
            // T5's mask says nothing of CLIP's tokens, which all count.
            let mask = t5.mask.map(|mask| [vec![true; clips.tokens()], mask].concat());
            JoinedEncoding { values: [clips.values, t5.values].concat(), mask, ..t5 }
        }
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return Err(Error::new(ErrorKind::Internal, "no encoder of the recipe ran")),
    };
    single(JoinedEncoding { pooled: Some(pooled), ..all })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(kind: EncoderKind, channels: usize, value: f32, pooled: Option<f32>) -> JoinedEncoding {
        JoinedEncoding {
            kind,
            channels,
            values: vec![value; 2 * channels],
            pooled: pooled.map(|value| vec![value; 2]),
            mask: None,
        }
    }

    #[test]
    fn encoders_name_their_recipe() {
        use EncoderKind::{ClipG, ClipL, Qwen3, T5};
        assert_eq!(Recipe::of(&[ClipG, ClipL]).unwrap(), Recipe::Sdxl);
        assert_eq!(Recipe::of(&[T5, ClipL, ClipG]).unwrap(), Recipe::Sd3);
        for wrong in [&[][..], &[ClipG, T5], &[ClipL, Qwen3]] {
            assert_eq!(Recipe::of(wrong).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert!(Recipe::Sd3.check(&[ClipG]).is_ok());
        assert!(Recipe::Sdxl.check(&[ClipG]).is_err());
    }

    #[test]
    fn sd3_pads_clip_to_t5_and_pools_zeros_for_what_is_missing() {
        let l = encoding(EncoderKind::ClipL, 2, 1.0, Some(5.0));
        let t5 = encoding(EncoderKind::T5, 3, 2.0, None);
        let both = Recipe::Sd3.combine(vec![t5.clone(), l.clone()]).unwrap();
        assert_eq!(both.shape(), [1, 4, 3]);
        assert_eq!((both.token(0, 0), both.token(0, 2)), (&[1.0, 1.0, 0.0][..], &[2.0; 3][..]));
        assert_eq!(both.pooled().unwrap()[..3], [5.0, 5.0, 0.0]);
        assert_eq!(both.pooled_channels(), Some(2 + CLIP_G_CHANNELS));
        let g = encoding(EncoderKind::ClipG, 4, 3.0, Some(6.0));
        assert!(Recipe::Sd3.combine(vec![l.clone(), g.clone(), t5]).is_err());
        let alone = Recipe::Sd3.combine(vec![g]).unwrap();
        assert_eq!(alone.channels(), SD3_CHANNELS);
        assert_eq!(alone.token(0, 1)[CLIP_L_CHANNELS - 1..][..2], [0.0, 3.0]);
    }

    #[test]
    fn sdxl_is_as_long_as_the_shorter_of_the_two() {
        let mut l = encoding(EncoderKind::ClipL, 2, 1.0, None);
        l.values.extend([9.0, 9.0]);
        let g = encoding(EncoderKind::ClipG, 3, 2.0, Some(7.0));
        let both = Recipe::Sdxl.combine(vec![l, g]).unwrap();
        assert_eq!(both.shape(), [1, 2, 5]);
        assert_eq!(both.token(0, 1), [1.0, 1.0, 2.0, 2.0, 2.0]);
        assert_eq!(both.pooled(), Some(&[7.0, 7.0][..]));
    }
}
