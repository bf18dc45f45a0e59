//! Stacks on models. Enters: a stack, a model. Leaves: what calls of the model take along, or why it is refused, and what
//! became of every adapter.

use super::{Fitted, Loras, Ready};
use crate::{coverage::Fate, error::Result};
use luna_core::{
    Call, Error, ErrorKind, Patches,
    diffusion::Denoiser,
    lora::{ApplyMode, LoraStack, MergedCopies, NotMerged, Prepared, ResolveOptions, Resolved, ResolvedText},
    text::{EncoderKind, TextModel},
    vlm::VlmModel,
};
use std::{any::Any, collections::BTreeMap, num::NonZeroUsize, sync::Arc};

impl Loras {
    /// For a denoiser, of which `model` is the object that callers hold.
    pub(crate) fn for_denoiser<M: Any + Send + Sync>(
        &self,
        model: &Arc<M>,
        denoiser: &Denoiser,
        call: &Call,
    ) -> Result<Fitted> {
        let resolve = |stack: &LoraStack, options: &ResolveOptions| stack.resolve(denoiser, options);
        let prepare =
            |copies: &MergedCopies, patches: &Arc<Patches>| copies.prepare(denoiser, patches, self.asked(), call);
        self.for_one(model, denoiser.family().name(), resolve, prepare)
    }

    /// For a vision-language model, of which `model` is the object that callers hold.
    pub(crate) fn for_vlm<M: Any + Send + Sync>(&self, model: &Arc<M>, vlm: &VlmModel, call: &Call) -> Result<Fitted> {
        let resolve = |stack: &LoraStack, options: &ResolveOptions| stack.resolve_vlm(vlm, options);
        let prepare =
            |copies: &MergedCopies, patches: &Arc<Patches>| copies.prepare_vlm(vlm, patches, self.asked(), call);
        self.for_one(model, vlm.info().family.name(), resolve, prepare)
    }

    /// For a model of one part, by its name.
    fn for_one<M: Any + Send + Sync>(
        &self,
        model: &Arc<M>,
        name: &str,
        resolve: impl Fn(&LoraStack, &ResolveOptions) -> luna_core::Result<Resolved>,
        prepare: impl FnOnce(&MergedCopies, &Arc<Patches>) -> luna_core::Result<Prepared>,
    ) -> Result<Fitted> {
        let (stack, copies) = self.here()?;
        self.fitted(model, || {
            let resolved = resolve(stack, &self.lenient())?;
            let mut fates = vec![Fate::new(name, resolved.coverage)];
            if self.is_refused(stack, &fates) {
                let refusal = resolve(stack, &self.resolve).err();
                return Ok((fates, Err(refusal.unwrap_or_else(refused_in_vain).into())));
            }
            let prepared = prepare(copies, &resolved.patches)?;
            fates[0].merging(prepared.mode, prepared.not_merged);
            let merged = self.check_merged(prepared.not_merged);
            Ok((fates, merged.map(|()| Ready::Model(prepared.patches))))
        })
    }

    /// For text encoders, of which `model` is the object that callers hold.
    pub(crate) fn for_text<M: Any + Send + Sync>(
        &self,
        model: &Arc<M>,
        encoders: &[&TextModel],
        call: &Call,
    ) -> Result<Fitted> {
        let (stack, copies) = self.here()?;
        self.fitted(model, || {
            let resolve = |encoder: &&TextModel| stack.resolve_text(encoder, &self.lenient());
            let resolved = encoders.iter().map(resolve).collect::<luna_core::Result<Vec<_>>>()?;
            let names = |patches: &BTreeMap<EncoderKind, _>| {
                patches.keys().map(|kind| kind.name()).collect::<Vec<_>>().join("+")
            };
            let fate = |one: &ResolvedText| Fate::new(&names(&one.patches), one.coverage.clone());
            let mut fates: Vec<_> = resolved.iter().map(fate).collect();
            if self.is_refused(stack, &fates) {
                return Ok((fates, Err(self.refusal(stack, encoders).into())));
            }
            let mut patches = BTreeMap::new();
            for ((encoder, resolved), fate) in encoders.iter().zip(&resolved).zip(&mut fates) {
                for (kind, prepared) in copies.prepare_text(encoder, &resolved.patches, self.asked(), call)? {
                    fate.merging(prepared.mode, prepared.not_merged);
                    patches.insert(kind, prepared.patches);
                }
            }
            let merged = fates.iter().try_for_each(|fate| self.check_merged(fate.not_merged));
            Ok((fates, merged.map(|()| Ready::Text(patches))))
        })
    }

    /// Tells of everything, so that what is refused is reported as well.
    fn lenient(&self) -> ResolveOptions {
        ResolveOptions { strict: false, allow_nothing: true, dora: self.resolve.dora }
    }

    fn is_refused(&self, stack: &LoraStack, fates: &[Fate]) -> bool {
        let nothing = !stack.entries().is_empty() && fates.iter().all(|fate| fate.coverage.applied() == 0);
        let incomplete = fates.iter().any(|fate| !fate.coverage.is_complete());
        self.resolve.strict && incomplete || !self.resolve.allow_nothing && nothing
    }

    /// Why text encoders refuse the stack. Nothing may apply to one model of several, but not to all.
    fn refusal(&self, stack: &LoraStack, encoders: &[&TextModel]) -> Error {
        let all =
            |options: &ResolveOptions| encoders.iter().find_map(|encoder| stack.resolve_text(encoder, options).err());
        let strict = ResolveOptions { allow_nothing: true, ..self.resolve.clone() };
        all(&strict).or_else(|| all(&self.resolve)).unwrap_or_else(refused_in_vain)
    }

    /// What is asked of the merged copies. Nobody waits for a copy that may be the caller's own.
    fn asked(&self) -> ApplyMode {
        match self.mode {
            ApplyMode::Merged => ApplyMode::Auto { forwards: Some(NonZeroUsize::MAX) },
            other => other,
        }
    }

    /// Whether what had to be merged is.
    fn check_merged(&self, not_merged: Option<NotMerged>) -> Result<()> {
        if self.mode != ApplyMode::Merged {
            return Ok(());
        }
        Err(match not_merged {
            None => return Ok(()),
            Some(NotMerged::NoRoom) => {
                Error::new(ErrorKind::LimitExceeded, "the merged weights are larger than their budget")
                    .remedy("apply the stack in functional mode, or raise `merged_bytes` of luna_open_options")
            }
            Some(_) => Error::new(ErrorKind::Busy, "another stack is merged with this model")
                .expected("one merged stack for each model at a time")
                .remedy("free the other stack first, or apply this one in functional mode"),
        }
        .into())
    }
}

fn refused_in_vain() -> Error {
    Error::new(ErrorKind::Internal, "a stack was refused without a reason")
}
