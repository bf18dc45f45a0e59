//! LoRAs of a command: from files to what a call takes along, and what became of them.

use crate::{args::ModeArg, settings::Loras};
use luna_core::{
    Call, Limits, Patches, Result,
    diffusion::Denoiser,
    lora::{ApplyMode, Coverage, LoraFile, LoraStack, MergedCopies, NotMerged, ResolveOptions},
    memory,
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

/// Opens the files of a stack.
///
/// # Errors
/// As [`LoraFile::open`].
pub fn stack(loras: &Loras) -> Result<LoraStack> {
    loras.entries.iter().try_fold(LoraStack::new(), |stack, entry| {
        let file = LoraFile::open(&entry.file, &Limits::default())?;
        stack.with(Arc::new(file), entry.strength, entry.strength)
    })
}

/// How a stack is resolved.
pub fn resolve_options(loras: &Loras) -> ResolveOptions {
    ResolveOptions { strict: loras.strict, ..ResolveOptions::default() }
}

/// The library's name of what was typed, for so many calls.
pub fn apply_mode(mode: ModeArg, forwards: usize) -> ApplyMode {
    match mode {
        ModeArg::Functional => ApplyMode::Functional,
        ModeArg::Merged => ApplyMode::Merged,
        ModeArg::Auto => ApplyMode::Auto { forwards: NonZeroUsize::new(forwards) },
    }
}

/// The patches of a denoiser for `forwards` calls; nothing without a LoRA.
///
/// # Errors
/// As [`LoraFile::open`], [`LoraStack::resolve`] and [`MergedCopies::prepare`].
pub fn prepare(
    denoiser: &Denoiser,
    loras: &Loras,
    forwards: usize,
    call: &Call,
) -> Result<Option<(Arc<Patches>, LoraOutcome)>> {
    if loras.entries.is_empty() {
        return Ok(None);
    }
    let resolved = stack(loras)?.resolve(denoiser, &resolve_options(loras))?;
    let copies = MergedCopies::new(memory::available().unwrap_or(u64::MAX));
    let prepared = copies.prepare(denoiser, &resolved.patches, apply_mode(loras.mode, forwards), call)?;
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
