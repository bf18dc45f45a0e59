//! The text encoders of one file, loaded and frozen. Enters: a checkpoint. Leaves: a model that conditioners use. It
//! must not know prompts.

use super::{
    clip::ClipActivation,
    encoder::Encoder,
    kind::{self, EncoderKind},
};
use crate::{
    Error, ErrorKind, Limits, Result, Runtime,
    checkpoint::{Checkpoint, Component, ComponentKind, Recognition},
    nn::FrozenWeights,
    tokenizer::ClipTokenizer,
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// What a file of text encoders is to be taken for.
#[derive(Debug, Clone, Default)]
pub struct TextLoadOptions {
    /// The only encoder to load. States which CLIP a file of no known size holds.
    pub kind: Option<EncoderKind>,
    /// The activation of a CLIP; else what `config.json` states, else what its kind has.
    pub activation: Option<ClipActivation>,
    /// The `tokenizer.json` of a T5 or Qwen3; else the one beside the weights.
    pub tokenizer: Option<PathBuf>,
    /// CLIP's tokenizer, to share one among models.
    pub clip_tokenizer: Option<Arc<ClipTokenizer>>,
    /// Caps on files and prompts.
    pub limits: Limits,
}

/// What is known of one text encoder of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncoderInfo {
    /// Which one it is.
    pub kind: EncoderKind,
    /// Number of layers.
    pub layers: usize,
    /// Length of a token's encoding.
    pub channels: usize,
    /// Number of token embeddings.
    pub vocabulary: usize,
    /// Tensors of the component that the encoder does not use.
    pub unused: Vec<String>,
}

/// The frozen text encoders of one file: one, or two for an SDXL checkpoint, or three for an SD3 one. Any number of
/// threads may use it at once, through a [`super::Conditioner`].
///
/// ```no_run
/// use luna_core::{Runtime, text::{Conditioner, TextModel}};
/// let model = TextModel::open("sd_xl_base.safetensors", &Runtime::cpu()?)?;
/// let kinds: Vec<_> = model.encoders().map(|encoder| encoder.kind.name()).collect();
/// assert_eq!(kinds, ["clip_l", "clip_g"]);
/// # Ok::<(), luna_core::Error>(())
/// ```
pub struct TextModel {
    pub(super) encoders: Vec<Encoder>,
    pub(super) runtime: Runtime,
    digest: OnceLock<blake3::Hash>,
}

impl TextModel {
    /// Opens a text encoder's file or folder, or the text encoders inside a checkpoint.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`TextModel::load`].
    pub fn open(path: impl AsRef<Path>, runtime: &Runtime) -> Result<Self> {
        Self::open_with(path, runtime, &TextLoadOptions::default())
    }

    /// As [`TextModel::open`], with options.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`TextModel::load`].
    pub fn open_with(path: impl AsRef<Path>, runtime: &Runtime, options: &TextLoadOptions) -> Result<Self> {
        Self::load(&Checkpoint::open(path, &options.limits)?, runtime, options)
    }

    /// Builds the text encoders of an opened checkpoint.
    ///
    /// # Errors
    /// `Unsupported` if the checkpoint holds no text encoder or not the wanted one, `InvalidFile` if one is incomplete
    /// or its shapes disagree, `InvalidInput` if a `tokenizer.json` belongs to another model.
    pub fn load(checkpoint: &Checkpoint, runtime: &Runtime, options: &TextLoadOptions) -> Result<Self> {
        let at = |error: Error| error.at(checkpoint.path().display());
        let found = checkpoint.recognise();
        let components = wanted(checkpoint, &found, options.kind).map_err(at)?;
        let shared = options.clip_tokenizer.clone().unwrap_or_else(|| Arc::new(ClipTokenizer::new()));
        let options = TextLoadOptions { clip_tokenizer: Some(shared), ..options.clone() };
        // Packing weights is work for the runtime's threads.
        let load = |(kind, component)| Encoder::load(checkpoint, component, kind, runtime, &options);
        let mut encoders = runtime.run(|| components.into_iter().map(load).collect::<Result<Vec<_>>>()).map_err(at)?;
        encoders.sort_by_key(|encoder| encoder.kind);
        if let Some(twins) = encoders.windows(2).find(|pair| pair[0].kind == pair[1].kind) {
            let message = format!("the file holds {} twice", twins[0].kind);
            return Err(at(Error::new(ErrorKind::Unsupported, message).expected("each text encoder once")));
        }
        Ok(Self { encoders, runtime: runtime.clone(), digest: OnceLock::new() })
    }

    /// The text encoders it holds.
    pub fn encoders(&self) -> impl ExactSizeIterator<Item = EncoderInfo> + '_ {
        self.encoders.iter().map(|encoder| EncoderInfo {
            kind: encoder.kind,
            layers: encoder.layers(),
            channels: encoder.channels(),
            vocabulary: encoder.vocabulary(),
            unused: encoder.unused.clone(),
        })
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The layers of its text encoders, for those who resolve patches.
    pub(crate) fn frozen(&self) -> impl Iterator<Item = (EncoderKind, &FrozenWeights)> {
        self.encoders.iter().map(|encoder| (encoder.kind, &encoder.frozen))
    }

    /// Bytes of its weights in memory.
    pub fn weight_bytes(&self) -> u64 {
        self.encoders.iter().map(|encoder| encoder.frozen.bytes()).sum()
    }

    /// States what the model is known by, such as [`Checkpoint::digest`] or a registry's id, which spares
    /// [`TextModel::digest`] reading all weights. Models that encode differently must not share one.
    pub fn with_digest(self, digest: blake3::Hash) -> Self {
        Self { digest: OnceLock::from(digest), ..self }
    }

    /// What the model is known by in a [`super::ConditioningCache`]: what was stated, or BLAKE3 of its weights as they
    /// are held, which is computed once.
    ///
    /// # Errors
    /// Those of the device that the weights are read back from.
    pub fn digest(&self) -> Result<blake3::Hash> {
        if let Some(digest) = self.digest.get() {
            return Ok(*digest);
        }
        let digest = self.weights_digest()?;
        Ok(*self.digest.get_or_init(|| digest))
    }

    /// BLAKE3 of its weights as they are held, read anew: no use of the model changes it.
    ///
    /// # Errors
    /// Those of the device that the weights are read back from.
    pub fn weights_digest(&self) -> Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        for encoder in &self.encoders {
            hasher.update(encoder.kind.name().as_bytes());
            hasher.update(self.runtime.run(|| encoder.frozen.digest())?.as_bytes());
        }
        Ok(hasher.finalize())
    }
}

impl std::fmt::Debug for TextModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.encoders.iter().map(|encoder| encoder.kind)).finish()
    }
}

/// The components to load, each with its kind.
fn wanted<'a>(
    checkpoint: &Checkpoint,
    found: &'a Recognition,
    wanted: Option<EncoderKind>,
) -> Result<Vec<(EncoderKind, &'a Component)>> {
    let components: Vec<&Component> =
        found.components.iter().filter(|component| component.kind == ComponentKind::TextEncoder).collect();
    match components[..] {
        [] => Err(found.lacks("text encoder", "a CLIP (transformers' or OpenCLIP's names), T5 or Qwen3")),
        [one] => Ok(vec![(kind::kind_of(checkpoint, one, wanted)?, one)]),
        _ => {
            let kind = |component| Ok((kind::kind_of(checkpoint, component, None)?, component));
            let all = components.into_iter().map(kind).collect::<Result<Vec<_>>>()?;
            let Some(wanted) = wanted else { return Ok(all) };
            let names: Vec<_> = all.iter().map(|(kind, _)| kind.to_string()).collect();
            let just = all.into_iter().filter(|(kind, _)| *kind == wanted).collect::<Vec<_>>();
            if just.is_empty() {
                return Err(Error::new(ErrorKind::Unsupported, format!("the file holds no {wanted}"))
                    .expected(wanted.to_string())
                    .found(names.join(", ")));
            }
            Ok(just)
        }
    }
}
