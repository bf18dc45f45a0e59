//! Which components a checkpoint holds, from names and shapes alone. Enters: a checkpoint's header. Leaves: components
//! with family, dialect, prefix and size; for an unknown file, what was looked for and the nearest family.

use super::{Checkpoint, ElementType};
use crate::{Error, ErrorKind, Precision};
use std::collections::BTreeMap;

mod signatures;
use signatures::{SIGNATURES, Signature};

/// What a component does in a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ComponentKind {
    /// Pictures to latents and back.
    Vae,
    /// Prompts to conditioning.
    TextEncoder,
    /// The denoiser: a UNet or a diffusion transformer.
    Diffusion,
    /// Pictures to embeddings.
    Vision,
    /// Pictures and prompts to text.
    VisionLanguage,
}

impl ComponentKind {
    /// A stable name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vae => "vae",
            Self::TextEncoder => "text_encoder",
            Self::Diffusion => "diffusion",
            Self::Vision => "vision",
            Self::VisionLanguage => "vision_language",
        }
    }
}

/// The architecture of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// AutoencoderKL: the VAE of SD1.5, SDXL, SD3, Flux and Z-Image.
    KlVae,
    /// TAESD, the tiny autoencoder.
    Taesd,
    /// A CLIP text encoder.
    Clip,
    /// The T5 v1.1 encoder.
    T5,
    /// Qwen3, a decoder used as text encoder.
    Qwen3,
    /// The UNet of Stable Diffusion 1.x, 2.x and XL.
    SdUnet,
    /// The Flux transformer.
    Flux,
    /// The Z-Image transformer.
    ZImage,
    /// A CLIP or SigLIP vision transformer.
    VisionTransformer,
    /// Qwen3-VL, dense.
    Qwen3Vl,
    /// LLaVA 1.5.
    Llava,
}

impl Family {
    /// Its usual name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KlVae => "AutoencoderKL",
            Self::Taesd => "TAESD",
            Self::Clip => "CLIP text encoder",
            Self::T5 => "T5 encoder",
            Self::Qwen3 => "Qwen3",
            Self::SdUnet => "Stable Diffusion UNet",
            Self::Flux => "Flux transformer",
            Self::ZImage => "Z-Image transformer",
            Self::VisionTransformer => "CLIP or SigLIP vision transformer",
            Self::Qwen3Vl => "Qwen3-VL",
            Self::Llava => "LLaVA",
        }
    }

    /// What this build of Luna does with it; empty where it only recognises it.
    pub const fn operations(self) -> &'static [&'static str] {
        match self {
            Self::KlVae | Self::Taesd => &["encode", "decode"],
            Self::SdUnet | Self::Flux | Self::ZImage => &["forward"],
            Self::Clip | Self::T5 | Self::Qwen3 => &["tokenize", "encode"],
            Self::VisionTransformer => &["vision"],
            Self::Qwen3Vl | Self::Llava => &["describe"],
        }
    }
}

/// Whose names the tensors bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// CompVis latent diffusion: single-file checkpoints.
    Ldm,
    /// Hugging Face diffusers.
    Diffusers,
    /// Hugging Face transformers.
    Transformers,
    /// OpenCLIP, as in SDXL checkpoints.
    OpenClip,
    /// TAESD's own layer numbers.
    Taesd,
    /// llama.cpp, as in GGUF files of language models.
    LlamaCpp,
}

impl Dialect {
    /// Its usual name in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ldm => "ldm",
            Self::Diffusers => "diffusers",
            Self::Transformers => "transformers",
            Self::OpenClip => "openclip",
            Self::Taesd => "taesd",
            Self::LlamaCpp => "llama.cpp",
        }
    }
}

/// One component of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Component {
    /// What it does.
    pub kind: ComponentKind,
    /// Its architecture.
    pub family: Family,
    /// Whose names it bears.
    pub dialect: Dialect,
    /// What stands before its names, with the dot, or nothing.
    pub prefix: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of parameters.
    pub parameters: u64,
    /// Stored bytes.
    pub bytes: u64,
    /// Bytes by element type.
    pub elements: BTreeMap<ElementType, u64>,
}

impl Component {
    /// What weights are held in on devices that the CPU's kernels do not serve: the fewest bits that lose nothing.
    pub(crate) fn device_precision(&self) -> Precision {
        let most = self.elements.iter().max_by_key(|(_, bytes)| **bytes).map(|(element, _)| *element);
        match most {
            Some(ElementType::Bf16 | ElementType::F8E4m3 | ElementType::F8E5m2) => Precision::Bf16,
            Some(ElementType::F16) => Precision::F16,
            _ => Precision::F32,
        }
    }

    /// What its stored names start with, prefix included.
    pub(crate) fn roots(&self) -> Vec<String> {
        let own = |signature: &&Signature| signature.family == self.family && signature.dialect == self.dialect;
        let roots = SIGNATURES.iter().filter(own).flat_map(|signature| signature.roots);
        roots.map(|root| format!("{}{root}", self.prefix)).collect()
    }
}

/// What was recognised in a checkpoint.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Recognition {
    /// The components found, in the order of their kind.
    pub components: Vec<Component>,
    /// Names that belong to no component found.
    pub unclaimed: usize,
    /// Where nothing was found: the family that shares most names.
    pub nearest: Option<Nearest>,
}

/// The family that an unknown file resembles most.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Nearest {
    /// The family.
    pub family: Family,
    /// Whose names were compared.
    pub dialect: Dialect,
    /// The marking names that the file lacks.
    pub missing: Vec<String>,
    /// The marking names that the file has.
    pub present: usize,
}

impl Recognition {
    /// The component that does `kind`, the first where there are several.
    pub fn component(&self, kind: ComponentKind) -> Option<&Component> {
        self.components.iter().find(|component| component.kind == kind)
    }

    /// Why a file is no such model: `what` was looked for, which would be `expected`.
    pub(crate) fn lacks(&self, what: &str, expected: &str) -> Error {
        let error = Error::new(ErrorKind::Unsupported, format!("no {what} was found in this file")).expected(expected);
        match (&self.nearest, self.components.first()) {
            (_, Some(other)) => error.found(format!("a {}", other.family.name())),
            (Some(nearest), None) => error
                .found(format!("names nearest to {} ({})", nearest.family.name(), nearest.dialect.name()))
                .remedy(format!("it lacks `{}`; is the file complete?", nearest.missing.join("`, `"))),
            (None, None) => error.remedy("`luna-cli inspect` shows what the file holds"),
        }
    }

    /// Every family that was looked for, with one name each that marks it.
    pub fn looked_for() -> impl Iterator<Item = (Family, Dialect, &'static str)> {
        SIGNATURES.iter().map(|signature| (signature.family, signature.dialect, signature.markers[0]))
    }
}

pub(super) fn recognise(checkpoint: &Checkpoint) -> Recognition {
    let mut components: Vec<Component> = Vec::new();
    for signature in SIGNATURES {
        for prefix in signature.prefixes {
            let taken = components.iter().any(|other| other.prefix == *prefix && overlaps(other, signature));
            if !taken && missing(checkpoint, signature, prefix).next().is_none() {
                components.push(measure(checkpoint, signature, prefix));
            }
        }
    }
    components.sort_by_key(|component| component.kind as u8);
    let claimed: usize = components.iter().map(|component| component.tensors).sum();
    let nearest = if components.is_empty() { nearest(checkpoint) } else { None };
    Recognition { unclaimed: checkpoint.tensors.len().saturating_sub(claimed), components, nearest }
}

/// Two signatures of one kind can both match under a prefix only if they are the same component. In a GGUF file the
/// language model of a vision-language model bears the names that it would bear alone.
fn overlaps(component: &Component, signature: &Signature) -> bool {
    let is_part = component.kind == ComponentKind::VisionLanguage && signature.kind == ComponentKind::TextEncoder;
    component.kind == signature.kind || (is_part && component.dialect == signature.dialect)
}

fn missing<'a>(
    checkpoint: &'a Checkpoint,
    signature: &'a Signature,
    prefix: &'a str,
) -> impl Iterator<Item = &'static str> + 'a {
    let has = move |marker: &&'static str| checkpoint.tensors.contains_key(&format!("{prefix}{marker}"));
    signature.markers.iter().copied().filter(move |marker| !has(marker))
}

fn measure(checkpoint: &Checkpoint, signature: &Signature, prefix: &str) -> Component {
    let mut component = Component {
        kind: signature.kind,
        family: signature.family,
        dialect: signature.dialect,
        prefix: prefix.to_owned(),
        tensors: 0,
        parameters: 0,
        bytes: 0,
        elements: BTreeMap::new(),
    };
    for tensor in checkpoint.tensors() {
        let Some(name) = tensor.name.strip_prefix(prefix) else { continue };
        if !signature.roots.iter().any(|root| name.starts_with(root)) {
            continue;
        }
        component.tensors += 1;
        component.parameters += tensor.shape.iter().product::<usize>() as u64;
        component.bytes += tensor.bytes.len() as u64;
        *component.elements.entry(tensor.element).or_default() += tensor.bytes.len() as u64;
    }
    component
}

fn nearest(checkpoint: &Checkpoint) -> Option<Nearest> {
    let candidates =
        SIGNATURES.iter().flat_map(|signature| signature.prefixes.iter().map(move |prefix| (signature, prefix)));
    let best = candidates
        .map(|(signature, prefix)| {
            let missing: Vec<_> =
                missing(checkpoint, signature, prefix).map(|name| format!("{prefix}{name}")).collect();
            Nearest {
                family: signature.family,
                dialect: signature.dialect,
                present: signature.markers.len() - missing.len(),
                missing,
            }
        })
        .max_by(|a, b| {
            let share = |n: &Nearest| n.present as f64 / (n.present + n.missing.len()) as f64;
            share(a).total_cmp(&share(b))
        })?;
    (best.present > 0).then_some(best)
}
