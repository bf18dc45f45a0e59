//! `lora inspect`: what a LoRA file holds and, of a model, what it would change.

use super::outcome::runtime;
use crate::settings;
use luna_core::{
    Limits, Result, Runtime,
    checkpoint::{Checkpoint, ComponentKind},
    diffusion::{Denoiser, LoadOptions},
    lora::{FileCoverage, LoraFile, LoraStack, ResolveOptions, Unsupported},
    text::{TextLoadOptions, TextModel},
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What `lora inspect` found.
#[derive(Serialize)]
pub struct LoraInspectOutcome {
    pub file: PathBuf,
    /// BLAKE3 of its content.
    pub digest: String,
    /// As it is held in memory.
    pub bytes: u64,
    /// Which model its names and sizes look made for.
    pub made_for: Option<&'static str>,
    pub adapters: usize,
    /// Adapters by kind.
    pub kinds: BTreeMap<&'static str, usize>,
    pub unsupported: Vec<Unsupported>,
    /// The model it was held against.
    pub model: Option<PathBuf>,
    /// What became of it on each component of the model.
    pub components: Vec<ComponentCoverage>,
}

/// What became of a LoRA on one component of a model.
#[derive(Serialize)]
pub struct ComponentCoverage {
    pub component: &'static str,
    pub coverage: FileCoverage,
}

/// Reads the file and holds it against the model.
///
/// # Errors
/// As [`LoraFile::open`]; those of loading the model; with `strict`, `InvalidInput` if something does not apply.
pub fn run(settings: &settings::LoraInspect) -> Result<LoraInspectOutcome> {
    let lora = Arc::new(LoraFile::open(&settings.file, &Limits::default())?);
    let components = match &settings.model {
        Some(model) => coverage(&lora, model, settings.strict, &runtime(&settings.compute)?)?,
        None => Vec::new(),
    };
    Ok(LoraInspectOutcome {
        file: settings.file.clone(),
        digest: lora.digest().to_hex().to_string(),
        bytes: lora.bytes(),
        made_for: lora.made_for(),
        adapters: lora.adapters(),
        kinds: lora.kinds(),
        unsupported: lora.unsupported().to_vec(),
        model: settings.model.clone(),
        components,
    })
}

/// Of every component of the model that LoRAs are made for.
fn coverage(lora: &Arc<LoraFile>, model: &Path, strict: bool, runtime: &Runtime) -> Result<Vec<ComponentCoverage>> {
    let checkpoint = Checkpoint::open(model, &Limits::default())?;
    let found = checkpoint.recognise();
    let has = |kind| found.components.iter().any(|component| component.kind == kind);
    // One file may be for one component only, and that is no fault.
    let options = ResolveOptions { strict, allow_nothing: true, ..ResolveOptions::default() };
    let stack = LoraStack::new().with(lora.clone(), 1.0, 1.0)?;
    let mut components = Vec::new();
    if has(ComponentKind::TextEncoder) {
        let text = TextModel::load(&checkpoint, runtime, &TextLoadOptions::default())?;
        let resolved = stack.resolve_text(&text, &options)?;
        components.push((ComponentKind::TextEncoder, resolved.coverage));
    }
    // A file without either is refused here, with what was expected.
    if has(ComponentKind::Diffusion) || components.is_empty() {
        let denoiser = Denoiser::load(&checkpoint, runtime, &LoadOptions::default())?;
        components.push((ComponentKind::Diffusion, stack.resolve(&denoiser, &options)?.coverage));
    }
    let coverage = |(kind, coverage): (ComponentKind, luna_core::lora::Coverage)| {
        let files = coverage.files.into_iter();
        files.map(move |coverage| ComponentCoverage { component: kind.name(), coverage })
    };
    Ok(components.into_iter().flat_map(coverage).collect())
}
