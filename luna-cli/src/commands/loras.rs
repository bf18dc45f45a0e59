//! LoRAs of a command: from files to what a call takes along, and what became of them.

use crate::{args::ModeArg, settings::Loras};
use luna_core::{
    Call, Limits, Patches, Result,
    diffusion::Denoiser,
    lora::{ApplyMode, Coverage, FileCoverage, LoraFile, LoraStack, MergedCopies, Prepared, ResolveOptions, Resolved},
    memory,
    protocol::{LoraOutcome, TextLoraOutcome},
    text::{TextModel, TextOptions},
    tokenizer::LoraTag,
    vlm::VlmModel,
};
use std::{num::NonZeroUsize, sync::Arc};

/// Lines about what of a stack was not applied.
pub fn notes(coverage: &Coverage) -> Vec<String> {
    let incomplete = coverage.files.iter().filter(|file| !file.is_complete());
    let note = |file: &FileCoverage| {
        let unmatched = file.unmatched.first().map(|entry| match &entry.nearest {
            Some(nearest) => format!("no layer for `{}` (nearest: `{nearest}`)", entry.key),
            None => format!("no layer for `{}`", entry.key),
        });
        let shape = file.wrong_shape.first();
        let shape = shape.map(|entry| format!("`{}` is {} for a layer of {}", entry.key, entry.found, entry.expected));
        let unsupported = file.unsupported.first().map(|entry| format!("`{}`: {}", entry.key, entry.what));
        let first: Vec<_> = [unmatched, shape, unsupported].into_iter().flatten().collect();
        format!("{file}: {}", first.join("; "))
    };
    incomplete.map(note).collect()
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
/// As [`LoraStack::resolve_texts`].
pub fn patch(
    stack: &LoraStack,
    strict: bool,
    models: &[(TextModel, String)],
    options: &mut TextOptions,
) -> Result<Vec<TextLoraOutcome>> {
    if stack.entries().is_empty() {
        return Ok(Vec::new());
    }
    let resolve = ResolveOptions { strict, ..ResolveOptions::default() };
    let all: Vec<&TextModel> = models.iter().map(|(model, _)| model).collect();
    let mut outcomes = Vec::new();
    for (resolved, (_, name)) in stack.resolve_texts(&all, &resolve)?.into_iter().zip(models) {
        options.patches.extend(resolved.patches);
        outcomes.push(TextLoraOutcome { model: name.clone(), coverage: resolved.coverage });
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
    let resolve = |stack: &LoraStack, options: &_| stack.resolve(denoiser, options);
    ready(loras, resolve, |copies, patches| copies.prepare(denoiser, patches, mode, call))
}

/// The patches of a vision-language model; nothing without a LoRA.
///
/// # Errors
/// As [`LoraFile::open`], [`LoraStack::resolve_vlm`] and [`MergedCopies::prepare_vlm`].
pub fn prepare_vlm(
    model: &VlmModel,
    loras: &Loras,
    mode: ApplyMode,
    call: &Call,
) -> Result<Option<(Arc<Patches>, LoraOutcome)>> {
    let resolve = |stack: &LoraStack, options: &_| stack.resolve_vlm(model, options);
    ready(loras, resolve, |copies, patches| copies.prepare_vlm(model, patches, mode, call))
}

fn ready(
    loras: &Loras,
    resolve: impl FnOnce(&LoraStack, &ResolveOptions) -> Result<Resolved>,
    prepare: impl FnOnce(&MergedCopies, &Arc<Patches>) -> Result<Prepared>,
) -> Result<Option<(Arc<Patches>, LoraOutcome)>> {
    if loras.entries.is_empty() {
        return Ok(None);
    }
    let resolved = resolve(&stack(loras, &[])?, &ResolveOptions { strict: loras.strict, ..ResolveOptions::default() })?;
    let copies = MergedCopies::new(memory::available().unwrap_or(u64::MAX));
    let prepared = prepare(&copies, &resolved.patches)?;
    let outcome = LoraOutcome {
        mode: prepared.mode.name().to_owned(),
        not_merged: prepared.not_merged.map(|why| why.name().to_owned()),
        coverage: resolved.coverage,
    };
    Ok(Some((prepared.patches, outcome)))
}
