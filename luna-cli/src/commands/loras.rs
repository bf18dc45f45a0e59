//! LoRAs of a command: from files to what a call takes along, and what became of them.

use crate::{args::ModeArg, settings::Loras};
use luna_core::{
    Call, Error, ErrorKind, Limits, Patches, Result,
    diffusion::Denoiser,
    lora::{ApplyMode, Coverage, LoraFile, LoraStack, MergedCopies, NotMerged, ResolveOptions},
    memory,
    text::{TextModel, TextOptions},
    tokenizer::LoraTag,
};
use serde::Serialize;
use std::{num::NonZeroUsize, sync::Arc};

/// What became of the LoRAs of a call.
#[derive(Serialize)]
pub struct LoraOutcome {
    /// `functional` or `merged`.
    pub mode: &'static str,
    /// Why `auto` did not merge.
    pub not_merged: Option<&'static str>,
    /// What became of every adapter of every file.
    pub coverage: Coverage,
}

impl LoraOutcome {
    /// Lines about what was not applied.
    pub fn notes(&self) -> Vec<String> {
        let incomplete = self.coverage.files.iter().filter(|file| !file.is_complete());
        let note = |file: &luna_core::lora::FileCoverage| {
            let unmatched = file.unmatched.first().map(|entry| match &entry.nearest {
                Some(nearest) => format!("no layer for `{}` (nearest: `{nearest}`)", entry.key),
                None => format!("no layer for `{}`", entry.key),
            });
            let shape = file.wrong_shape.first();
            let shape =
                shape.map(|entry| format!("`{}` is {} for a layer of {}", entry.key, entry.found, entry.expected));
            let unsupported = file.unsupported.first().map(|entry| format!("`{}`: {}", entry.key, entry.what));
            let first: Vec<_> = [unmatched, shape, unsupported].into_iter().flatten().collect();
            format!("{file}: {}", first.join("; "))
        };
        incomplete.map(note).collect()
    }
}

/// What became of the LoRAs on one model of text encoders.
#[derive(Serialize)]
pub struct TextLoraOutcome {
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
        let file = loras.folders.named(&tag.name)?;
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
) -> Result<Vec<TextLoraOutcome>> {
    if stack.entries().is_empty() {
        return Ok(Vec::new());
    }
    let resolve = ResolveOptions { strict, allow_nothing: models.len() > 1, ..ResolveOptions::default() };
    let mut outcomes = Vec::new();
    for (model, name) in models {
        let resolved = stack.resolve_text(model, &resolve)?;
        options.patches.extend(resolved.patches);
        outcomes.push(TextLoraOutcome { model: name.clone(), coverage: resolved.coverage });
    }
    if outcomes.iter().all(|outcome| outcome.coverage.applied() == 0) {
        let files = outcomes.iter().flat_map(|outcome| &outcome.coverage.files).map(ToString::to_string);
        return Err(Error::new(ErrorKind::InvalidInput, "nothing of the LoRAs applies to these text encoders")
            .found(files.collect::<Vec<_>>().join("; "))
            .remedy("use a LoRA that was made for them"));
    }
    Ok(outcomes)
}

/// The library's name of what was typed, for so many calls.
pub fn apply_mode(mode: ModeArg, forwards: usize) -> ApplyMode {
    match mode {
        ModeArg::Functional => ApplyMode::Functional,
        ModeArg::Merged => ApplyMode::Merged,
        ModeArg::Auto => ApplyMode::Auto { forwards: NonZeroUsize::new(forwards) },
    }
}

/// The patches of a denoiser; nothing without a LoRA.
///
/// # Errors
/// As [`LoraFile::open`], [`LoraStack::resolve`] and [`MergedCopies::prepare`].
pub fn prepare(
    denoiser: &Denoiser,
    loras: &Loras,
    mode: ApplyMode,
    call: &Call,
) -> Result<Option<(Arc<Patches>, LoraOutcome)>> {
    if loras.entries.is_empty() {
        return Ok(None);
    }
    let resolved =
        stack(loras, &[])?.resolve(denoiser, &ResolveOptions { strict: loras.strict, ..ResolveOptions::default() })?;
    let copies = MergedCopies::new(memory::available().unwrap_or(u64::MAX));
    let prepared = copies.prepare(denoiser, &resolved.patches, mode, call)?;
    let outcome = LoraOutcome {
        mode: if prepared.mode == ApplyMode::Merged { "merged" } else { "functional" },
        not_merged: prepared.not_merged.map(reason),
        coverage: resolved.coverage,
    };
    Ok(Some((prepared.patches, outcome)))
}

fn reason(why: NotMerged) -> &'static str {
    match why {
        NotMerged::FewForwards => "few_forwards",
        NotMerged::NoRoom => "no_room",
        NotMerged::InUse => "in_use",
        _ => "other",
    }
}
