//! What LoRAs are measured on: a denoiser or a text encoder, random LoRAs for it, and one call of it.

use super::{
    denoiser::Input,
    shapes::{self, Named},
    text_shapes::{self, TOKENS, VOCABULARY},
    unet_shapes,
};
use crate::{
    args::ShapeArg,
    settings::{LoraBench, LoraSubject},
};
use luna_core::{
    Call, Error, ErrorKind, Limits, PatchedRuns, Patches, Result, Runtime,
    checkpoint::{Checkpoint, ComponentKind},
    diffusion::{Denoiser, ForwardOptions, LoadOptions},
    lora::{ApplyMode, Coverage, LoraStack, MergedCopies, ResolveOptions},
    text::{Conditioner, EncoderKind, TextLoadOptions, TextModel, TextOptions, TokenIds},
};
use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc};

/// Ends of the layers that random LoRAs are for: linear layers of attentions and feed-forward blocks.
const TAUGHT: [&str; 12] = [
    ".to_q.weight",
    ".to_k.weight",
    ".to_v.weight",
    ".to_out.0.weight",
    ".ff.net.0.proj.weight",
    ".ff.net.2.weight",
    ".q_proj.weight",
    ".k_proj.weight",
    ".v_proj.weight",
    ".out_proj.weight",
    ".mlp.fc1.weight",
    ".mlp.fc2.weight",
];

/// A model and what it is called with.
pub enum Subject {
    Denoiser(Box<Denoiser>, Input),
    Text(TextModel, Vec<TokenIds>),
}

/// A stack resolved for a subject.
#[derive(Clone)]
pub enum Ready {
    Denoiser(Arc<Patches>),
    Text(BTreeMap<EncoderKind, Arc<Patches>>),
}

impl Ready {
    /// Bytes of the differences as they are held.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Denoiser(patches) => patches.bytes(),
            Self::Text(encoders) => encoders.values().map(|patches| patches.bytes()).sum(),
        }
    }
}

/// The tensors of a random model.
pub fn tensors(shape: ShapeArg) -> Result<Vec<Named>> {
    unet_shapes::tensors(shape).or_else(|| text_shapes::tensors(shape)).ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, format!("no LoRA is made up for {}", shapes::name(shape)))
            .expected("--shape sd15, sdxl, clip-l or clip-g")
    })
}

/// The bytes of a random LoRA in f16; another for every seed. Its products change a weight by a few hundredths.
pub fn random_lora(tensors: &[Named], rank: usize, seed: u64) -> Vec<u8> {
    let mut factors = Vec::new();
    let second = tensors.iter().any(|(name, _)| name == "text_projection.weight");
    for (name, shape) in tensors.iter().filter(|(name, _)| TAUGHT.iter().any(|end| name.ends_with(end))) {
        // The second text encoder of SDXL is the one with a projection.
        let prefix = match (name.starts_with("text_model"), second) {
            (true, true) => "text_encoder_2",
            (true, false) => "text_encoder",
            _ => "unet",
        };
        let base = format!("{prefix}.{}", name.trim_end_matches(".weight"));
        factors.push((format!("{base}.lora_A.weight"), vec![rank, shape[1]]));
        factors.push((format!("{base}.lora_B.weight"), vec![shape[0], rank]));
    }
    crate::tensor_file::half_bytes(&factors, |index, shape| {
        let count = shape.iter().product();
        let most = if index % 2 == 0 { (shape[1] as f32).powf(-0.5) } else { 0.05 * (rank as f32).powf(-0.5) };
        shapes::random_values(seed.wrapping_mul(100_003) + index as u64, count, most)
    })
}

/// Bytes of the largest layer that a LoRA may change, in f32.
pub fn largest_layer(checkpoint: &Checkpoint) -> u64 {
    let bytes = |shape: &[usize]| 4 * shape.iter().product::<usize>() as u64;
    checkpoint.tensors().filter(|view| view.name.ends_with(".weight")).map(|view| bytes(view.shape)).max().unwrap_or(0)
}

impl Subject {
    /// Loads the model, and makes its input.
    pub fn load(checkpoint: &Checkpoint, settings: &LoraBench, runtime: &Runtime) -> Result<Self> {
        let found = checkpoint.recognise();
        let text = found.component(ComponentKind::Diffusion).is_none()
            && found.component(ComponentKind::TextEncoder).is_some();
        if text {
            let model = TextModel::load(checkpoint, runtime, &TextLoadOptions::default())?;
            let batch = settings.batch.map_or(1, NonZeroUsize::get);
            return Ok(Self::Text(model, (0..batch).map(sequence).collect()));
        }
        let load = LoadOptions { attention: settings.attention, precision: settings.compute.precision };
        let denoiser = Denoiser::load(checkpoint, runtime, &load)?;
        let batch = settings.batch.map_or(2, NonZeroUsize::get);
        let input = Input::new(&denoiser, settings.size, batch)?;
        Ok(Self::Denoiser(denoiser.into(), input))
    }

    /// What a call is given, in words.
    pub fn input(&self) -> String {
        match self {
            Self::Denoiser(_, input) => format!("{:?}", input.shape()),
            Self::Text(_, sequences) => format!("[{}, {TOKENS}] tokens", sequences.len()),
        }
    }

    pub fn weight_bytes(&self) -> u64 {
        match self {
            Self::Denoiser(denoiser, _) => denoiser.weight_bytes(),
            Self::Text(model, _) => model.weight_bytes(),
        }
    }

    pub fn resolve(&self, stack: &LoraStack) -> Result<(Ready, Coverage)> {
        let options = ResolveOptions::default();
        match self {
            Self::Denoiser(denoiser, _) => {
                let resolved = stack.resolve(denoiser, &options)?;
                Ok((Ready::Denoiser(resolved.patches), resolved.coverage))
            }
            Self::Text(model, _) => {
                let resolved = stack.resolve_text(model, &options)?;
                Ok((Ready::Text(resolved.patches), resolved.coverage))
            }
        }
    }

    pub fn merge(&self, ready: &Ready, copies: &MergedCopies) -> Result<Ready> {
        match (self, ready) {
            (Self::Denoiser(denoiser, _), Ready::Denoiser(patches)) => {
                Ok(Ready::Denoiser(copies.prepare(denoiser, patches, ApplyMode::Merged, &Call::new())?.patches))
            }
            (Self::Text(model, _), Ready::Text(patches)) => {
                let prepared = copies.prepare_text(model, patches, ApplyMode::Merged, &Call::new())?;
                Ok(Ready::Text(prepared.into_iter().map(|(kind, prepared)| (kind, prepared.patches)).collect()))
            }
            _ => Err(Error::new(ErrorKind::Internal, "patches of another kind of model")),
        }
    }

    /// One call, and how its layers ran.
    pub fn call(&self, ready: Option<&Ready>, settings: &LoraBench, call: &Call) -> Result<PatchedRuns> {
        let precision = settings.compute.precision;
        match self {
            Self::Denoiser(denoiser, input) => {
                let patches = ready
                    .and_then(|ready| if let Ready::Denoiser(patches) = ready { Some(patches.clone()) } else { None });
                let options = ForwardOptions { precision, patches, call: call.clone(), ..ForwardOptions::default() };
                Ok(denoiser.forward(&input.view()?, &options)?.report.patched)
            }
            Self::Text(model, sequences) => {
                let patches =
                    ready.and_then(|ready| if let Ready::Text(patches) = ready { Some(patches.clone()) } else { None });
                let patches = patches.unwrap_or_default();
                let options = TextOptions {
                    precision,
                    attention: settings.attention,
                    patches,
                    call: call.clone(),
                    ..TextOptions::default()
                };
                let encoded = Conditioner::new(&[model])?.encode_ids(sequences, &options)?;
                let mut runs = PatchedRuns::default();
                encoded.patched.into_values().for_each(|encoder| runs.add(encoder));
                Ok(runs)
            }
        }
    }
}

/// A full sequence: start, words, end.
fn sequence(index: usize) -> TokenIds {
    let (start, end) = (VOCABULARY as u32 - 2, VOCABULARY as u32 - 1);
    let words = (0..TOKENS - 2).map(|word| ((index * TOKENS + word) * 631 % (VOCABULARY - 2)) as u32);
    TokenIds { ids: std::iter::once(start).chain(words).chain([end]).collect(), mask: None }
}

/// What the subject is called.
pub fn name(subject: &LoraSubject) -> String {
    match subject {
        LoraSubject::Random(shape, rank) => {
            format!("{} shape, random weights, LoRAs of rank {rank}", shapes::name(*shape))
        }
        LoraSubject::Existing { model, lora } => {
            let name =
                |path: &std::path::Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            format!("{} with {}", name(model), name(lora))
        }
    }
}

/// The model's file.
pub fn open(subject: &LoraSubject) -> Result<Checkpoint> {
    match subject {
        LoraSubject::Existing { model, .. } => Checkpoint::open(model, &Limits::default()),
        LoraSubject::Random(shape, _) => {
            let file = shapes::random_half_file(&tensors(*shape)?);
            Checkpoint::from_bytes(shapes::name(*shape), file, &Limits::default())
        }
    }
}
