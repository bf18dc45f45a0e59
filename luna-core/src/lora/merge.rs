//! Merged weights: what a stack makes of a model's layers, built once for many calls. Enters: resolved patches, a model.
//! Leaves: patches that hold the merged layers, and are the guard of their copy: when the last of them is dropped, also
//! by a panic, the copy is gone and the next stack may have its own. It must not know files or names.

use crate::{
    Call, Error, ErrorKind, Patches, Result, Runtime,
    diffusion::Denoiser,
    nn::{FrozenWeights, Identity, Pass},
    text::{EncoderKind, TextModel},
};
use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

/// How patches are applied. The results are the same but for rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ApplyMode {
    /// With each call, layer by layer; nothing is kept and nobody waits.
    #[default]
    Functional,
    /// Merged once, for as long as the patches are held. One merged copy a model at a time: other stacks wait.
    Merged,
    /// Merged if so many calls will follow that it pays, there is room, and nobody has to wait; else functional.
    Auto {
        /// How many calls will follow, where it is known.
        forwards: Option<NonZeroUsize>,
    },
}

/// Why `Auto` did not merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotMerged {
    /// Too few calls will follow, or it is not known how many.
    FewForwards,
    /// The copy would be larger than the budget.
    NoRoom,
    /// Another stack's copy of this model is in use.
    InUse,
}

impl ApplyMode {
    /// A stable name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Functional => "functional",
            Self::Merged => "merged",
            Self::Auto { .. } => "auto",
        }
    }
}

impl NotMerged {
    /// A stable name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FewForwards => "few_forwards",
            Self::NoRoom => "no_room",
            Self::InUse => "in_use",
        }
    }
}

/// Patches ready for calls, and how they are applied.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Prepared {
    /// For the calls' options. Merged patches hold their copy until the last clone is dropped.
    pub patches: Arc<Patches>,
    /// `Functional` or `Merged`.
    pub mode: ApplyMode,
    /// Why `Auto` chose `Functional`.
    pub not_merged: Option<NotMerged>,
}

/// Merged copies of models' layers: one a model at a time, shared by all who bring the same stack.
///
/// ```no_run
/// use luna_core::{Call, Limits, Runtime, diffusion::{Denoiser, ForwardOptions}, lora::*};
/// let denoiser = Denoiser::open("sd_xl_base.safetensors", &Runtime::cpu()?)?;
/// let stack = LoraStack::new().with(LoraFile::open("ink.safetensors", &Limits::default())?.into(), 0.8, 0.0)?;
/// let resolved = stack.resolve(&denoiser, &ResolveOptions::default())?;
/// let copies = MergedCopies::new(16 << 30);
/// let prepared = copies.prepare(&denoiser, &resolved.patches, ApplyMode::Merged, &Call::new())?;
/// let options = ForwardOptions { patches: Some(prepared.patches), ..ForwardOptions::default() };
/// // … many forwards; the copy is gone when `options` is.
/// # Ok::<(), luna_core::Error>(())
/// ```
#[derive(Clone)]
pub struct MergedCopies(Arc<Shared>);

struct Shared {
    budget: u64,
    copies: Mutex<Vec<Copy>>,
    released: Condvar,
}

/// The copy of one model.
struct Copy {
    model: Identity,
    stack: blake3::Hash,
    bytes: u64,
    /// Empty while it is being built.
    patches: Weak<Patches>,
}

/// How often a caller that waits looks whether it was cancelled.
const PATIENCE: Duration = Duration::from_millis(50);
/// Calls from which on merging pays: a built weight costs about as much as one call spends on it, a branch far less.
const PAYS_BUILT: usize = 2;
const PAYS_BRANCH: usize = 12;

impl MergedCopies {
    /// Copies of at most `budget` bytes together.
    pub fn new(budget: u64) -> Self {
        Self(Arc::new(Shared { budget, copies: Mutex::default(), released: Condvar::new() }))
    }

    /// Bytes of all copies that are held.
    pub fn bytes(&self) -> u64 {
        self.0.lock().iter().map(|copy| copy.bytes).sum()
    }

    /// How many models have a copy.
    pub fn copies(&self) -> usize {
        self.0.lock().len()
    }

    /// Makes a denoiser's patches ready for the calls that follow. Who holds one stack's copy and asks for another's
    /// waits for himself: drop the first before.
    ///
    /// # Errors
    /// `InvalidInput` if the patches are for another model, `LimitExceeded` if a copy is larger than the budget,
    /// `Cancelled` while waiting or merging.
    pub fn prepare(
        &self,
        denoiser: &Denoiser,
        patches: &Arc<Patches>,
        mode: ApplyMode,
        call: &Call,
    ) -> Result<Prepared> {
        self.prepare_layers((denoiser.frozen(), denoiser.runtime()), patches, mode, call)
    }

    /// As [`MergedCopies::prepare`] for text encoders, each by itself.
    ///
    /// # Errors
    /// As [`MergedCopies::prepare`].
    pub fn prepare_text(
        &self,
        model: &TextModel,
        patches: &BTreeMap<EncoderKind, Arc<Patches>>,
        mode: ApplyMode,
        call: &Call,
    ) -> Result<BTreeMap<EncoderKind, Prepared>> {
        let encoders = model.frozen().filter_map(|(kind, frozen)| Some((kind, frozen, patches.get(&kind)?)));
        let prepare =
            |(kind, frozen, patches)| Ok((kind, self.prepare_layers((frozen, model.runtime()), patches, mode, call)?));
        encoders.map(prepare).collect()
    }

    fn prepare_layers(
        &self,
        (frozen, runtime): (&FrozenWeights, &Runtime),
        patches: &Arc<Patches>,
        mode: ApplyMode,
        call: &Call,
    ) -> Result<Prepared> {
        patches.check(frozen)?;
        let functional = |not_merged| Prepared { patches: patches.clone(), mode: ApplyMode::Functional, not_merged };
        if patches.is_empty() || mode == ApplyMode::Functional {
            return Ok(functional(None));
        }
        if patches.is_merged() {
            return Ok(Prepared { patches: patches.clone(), mode: ApplyMode::Merged, not_merged: None });
        }
        let wish = Wish { frozen, runtime, patches, call, bytes: patches.merged_bytes(frozen) };
        if let ApplyMode::Auto { forwards } = mode {
            let least = if patches.is_low_rank() { PAYS_BRANCH } else { PAYS_BUILT };
            if forwards.is_none_or(|forwards| forwards.get() < least) {
                return Ok(functional(Some(NotMerged::FewForwards)));
            }
            return match self.acquire(&wish, false) {
                Ok(Some(patches)) => Ok(Prepared { patches, mode: ApplyMode::Merged, not_merged: None }),
                Ok(None) => Ok(functional(Some(NotMerged::InUse))),
                Err(error) if error.kind() == ErrorKind::LimitExceeded => Ok(functional(Some(NotMerged::NoRoom))),
                Err(error) => Err(error),
            };
        }
        let patches = self.acquire(&wish, true)?.ok_or_else(|| Error::new(ErrorKind::Internal, "waited in vain"))?;
        Ok(Prepared { patches, mode: ApplyMode::Merged, not_merged: None })
    }

    /// The copy of this stack: an old one, or a new one as soon as no other stack has one. `None` if that means waiting
    /// and `wait` is not set.
    fn acquire(&self, wish: &Wish, wait: bool) -> Result<Option<Arc<Patches>>> {
        let (model, stack) = (wish.frozen.identity(), wish.patches.digest());
        let mut copies = self.0.lock();
        loop {
            let found = copies.iter().find(|copy| copy.model == model);
            let same = found.is_some_and(|copy| copy.stack == stack);
            if let Some(shared) = found.filter(|_| same).and_then(|copy| copy.patches.upgrade()) {
                return Ok(Some(shared));
            }
            let held: u64 = copies.iter().map(|copy| copy.bytes).sum();
            if wish.bytes > self.0.budget {
                return Err(Error::new(ErrorKind::LimitExceeded, "the merged weights are larger than their budget")
                    .expected(format!("at most {} bytes", self.0.budget))
                    .found(format!("{} bytes", wish.bytes))
                    .remedy("apply the stack in functional mode, or allow more"));
            }
            if found.is_none() && held + wish.bytes <= self.0.budget {
                break;
            }
            // The same stack is being built, which takes no longer than building it again.
            if !wait && !same {
                return Ok(None);
            }
            wish.call.cancel_token().is_cancelled().then(Error::cancelled).map_or(Ok(()), Err)?;
            copies = self.0.released.wait_timeout(copies, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
        }
        copies.push(Copy { model: model.clone(), stack, bytes: wish.bytes, patches: Weak::new() });
        drop(copies);
        let lease = Lease { shared: self.0.clone(), model: model.clone() };
        let merged = Arc::new(wish.merge(lease)?);
        if let Some(copy) = self.0.lock().iter_mut().find(|copy| copy.model == model) {
            copy.patches = Arc::downgrade(&merged);
        }
        self.0.released.notify_all();
        Ok(Some(merged))
    }
}

/// What a caller wants merged.
struct Wish<'a> {
    frozen: &'a FrozenWeights,
    runtime: &'a Runtime,
    patches: &'a Arc<Patches>,
    call: &'a Call,
    bytes: u64,
}

impl Wish<'_> {
    fn merge(&self, lease: Lease) -> Result<Patches> {
        let pass = Pass::new(self.runtime, self.call, self.patches.layers());
        self.runtime.run(|| self.patches.merged(self.frozen, &pass, lease))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Copy>> {
        // Entries are pushed and removed whole.
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A model's place among the copies; left when it is dropped.
struct Lease {
    shared: Arc<Shared>,
    model: Identity,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.lock().retain(|copy| copy.model != self.model);
        self.shared.released.notify_all();
    }
}

impl std::fmt::Debug for MergedCopies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MergedCopies({} models, {} bytes)", self.copies(), self.bytes())
    }
}
