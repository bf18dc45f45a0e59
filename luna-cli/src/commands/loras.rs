//! LoRAs of a call: files to a stack, a stack to a model's patches, and what became of every part.

use crate::settings::Loras;
use luna_core::{
    Error, ErrorKind, Limits, Result,
    lora::{Coverage, LoraFile, LoraStack, ResolveOptions},
    text::{TextModel, TextOptions},
    tokenizer::LoraTag,
};
use serde::Serialize;
use std::path::{Component, Path, PathBuf};

/// What became of the LoRAs on one model.
#[derive(Serialize)]
pub struct LoraOutcome {
    /// The model's name, as elsewhere in the outcome.
    pub model: String,
    #[serde(flatten)]
    pub coverage: Coverage,
}

/// The stack that was asked for, and what the prompt's tags add to it.
///
/// # Errors
/// As [`LoraFile::open`] and [`LoraStack::with`]; `NotFound` for a tag without a file.
pub fn stack(loras: &Loras, tags: &[LoraTag]) -> Result<LoraStack> {
    let limits = Limits::default();
    let mut stack = LoraStack::new();
    for lora in &loras.entries {
        stack = stack.with(LoraFile::open(&lora.file, &limits)?.into(), lora.model, lora.clip)?;
    }
    for tag in tags {
        let file = find(&loras.folders, &tag.name)?;
        stack = stack.with(LoraFile::open(file, &limits)?.into(), tag.model, tag.clip)?;
    }
    Ok(stack)
}

/// Adds a stack's patches for these text encoders to the options.
///
/// # Errors
/// As [`LoraStack::resolve_text`]; nothing may apply to one model of several, but not to all.
pub fn patch(
    stack: &LoraStack,
    strict: bool,
    models: &[(TextModel, String)],
    options: &mut TextOptions,
) -> Result<Vec<LoraOutcome>> {
    if stack.entries().is_empty() {
        return Ok(Vec::new());
    }
    let resolve = ResolveOptions { strict, allow_nothing: models.len() > 1, ..ResolveOptions::default() };
    let mut outcomes = Vec::new();
    for (model, name) in models {
        let resolved = stack.resolve_text(model, &resolve)?;
        options.patches.extend(resolved.patches);
        outcomes.push(LoraOutcome { model: name.clone(), coverage: resolved.coverage });
    }
    if outcomes.iter().all(|outcome| outcome.coverage.applied() == 0) {
        let files = outcomes.iter().flat_map(|outcome| &outcome.coverage.files).map(ToString::to_string);
        return Err(Error::new(ErrorKind::InvalidInput, "nothing of the LoRAs applies to these text encoders")
            .found(files.collect::<Vec<_>>().join("; "))
            .remedy("use a LoRA that was made for them"));
    }
    Ok(outcomes)
}

/// The file of a tag's name in the folders; nothing outside of them is ever opened.
fn find(folders: &[PathBuf], name: &str) -> Result<PathBuf> {
    let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    let places = folders.iter().flat_map(|folder| [folder.join(name), folder.join(format!("{name}.safetensors"))]);
    let exists = |path: &PathBuf| inside && !name.contains('\0') && path.exists();
    places.clone().find(exists).ok_or_else(|| {
        let places: Vec<_> = places.map(|path| path.display().to_string()).collect();
        Error::new(ErrorKind::NotFound, format!("there is no LoRA for the tag <lora:{name}>"))
            .expected(if inside { places.join(" or ") } else { "a name of a file in the folder of LoRAs".into() })
            .remedy("name its folder with --loras")
    })
}
