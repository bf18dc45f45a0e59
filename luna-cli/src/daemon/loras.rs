//! LoRAs of requests. Enters: names, paths and ids, stacks. Leaves: parsed files, patches with their coverage, merged
//! copies that are kept from one request to the next.

use super::{convert, models::TextLease, roots::Roots};
use crate::settings::DaemonSettings;
use luna_core::{
    Call, Error, ErrorKind, Limits, Patches, Result,
    checkpoint::Checkpoint,
    diffusion::Denoiser,
    lora::{
        ApplyMode, CachedLora, LoraCache, LoraFile, LoraFolders, LoraSource, LoraStack, MergedCopies, Prepared,
        ResolveOptions, Resolved, StackEntry,
    },
    protocol::{Fault, LoraOutcome, LoraStats, LoraUse, ModelForward, TextLoraOutcome, VlmGenerate},
    registry::Lease,
    text::{TextModel, TextOptions},
    vlm::{GenerateOptions, VlmModel},
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Files that are known by id beyond what is in memory.
const MOST_PATHS: usize = 100_000;

/// What the daemon knows of LoRAs.
pub struct Loras {
    folders: Option<LoraFolders>,
    roots: Roots,
    cache: LoraCache,
    /// Where LoRAs lie that were read from a file: what was dropped is read again.
    paths: Mutex<HashMap<blake3::Hash, PathBuf>>,
    copies: MergedCopies,
    /// The merged copy that each model keeps until another stack comes, by the model's id.
    kept: Mutex<HashMap<String, (blake3::Hash, Arc<Patches>)>>,
}

impl Loras {
    /// # Errors
    /// `NotFound` for a folder that is missing.
    pub fn new(settings: &DaemonSettings) -> Result<Self> {
        let folders = &settings.lora_folders;
        Ok(Self {
            folders: if folders.is_empty() { None } else { Some(LoraFolders::new(folders)?) },
            roots: Roots::new(folders)?,
            cache: LoraCache::new(settings.lora_bytes, settings.lora_bytes / 2, Limits::default()),
            paths: Mutex::default(),
            copies: MergedCopies::new(settings.model_bytes),
            kept: Mutex::default(),
        })
    }

    /// The LoRA of this id, or of this name or path below the folders.
    ///
    /// # Errors
    /// `need_lora` where there is none; those of [`LoraFile::open`].
    pub fn find(&self, lora: &str) -> Result<CachedLora, Fault> {
        match id(lora) {
            Some(id) => self.by_id(id, lora),
            None => self.open(&self.path(lora)?),
        }
    }

    fn by_id(&self, id: blake3::Hash, lora: &str) -> Result<CachedLora, Fault> {
        if let Some(found) = self.cache.get(id) {
            return Ok(found);
        }
        let path = lock(&self.paths).get(&id).cloned();
        if let Some(path) = path
            && let Ok(read) = self.open(&path)
            && read.lora.digest() == id
        {
            return Ok(read);
        }
        Err(gone(lora))
    }

    fn path(&self, lora: &str) -> Result<PathBuf, Fault> {
        if Path::new(lora).is_absolute() {
            return self.roots.resolve(lora).map_err(|fault| Fault::need_lora(lora, fault.into()));
        }
        let Some(folders) = &self.folders else {
            let error = Error::new(ErrorKind::NotFound, format!("there is no LoRA named `{lora}`"));
            return Err(Fault::need_lora(lora, error.found("the daemon has no LoRA folders")));
        };
        folders.find(lora).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Fault::need_lora(lora, error),
            _ => error.into(),
        })
    }

    fn open(&self, path: &Path) -> Result<CachedLora, Fault> {
        let read = self.cache.open(path)?;
        let mut paths = lock(&self.paths);
        if paths.len() < MOST_PATHS {
            paths.insert(read.lora.digest(), path.to_owned());
        }
        Ok(read)
    }

    /// Takes in what a client sent.
    pub fn put(&self, name: &str, file: Vec<u8>) -> Result<Arc<LoraFile>> {
        self.cache.put(name, file)
    }

    /// The tensors of a LoRA, from its file or from what was sent.
    ///
    /// # Errors
    /// `need_lora` where what was sent is gone; those of [`Checkpoint::open`].
    pub fn checkpoint(&self, lora: &LoraFile) -> Result<Checkpoint, Fault> {
        let (id, limits) = (lora.digest(), Limits::default());
        if let Some(path) = lock(&self.paths).get(&id) {
            let (weights, _) = LoraFile::weights(path)?;
            return Ok(Checkpoint::open(weights, &limits)?);
        }
        let sent = self.cache.sent(id).ok_or_else(|| gone(&id.to_hex()))?;
        Ok(Checkpoint::from_bytes(lora.name(), sent, &limits)?)
    }

    /// How a LoRA is in memory, by its id.
    pub fn check(&self, lora: &str) -> Option<LoraSource> {
        id(lora).and_then(|id| self.cache.check(id))
    }

    pub fn stats(&self) -> LoraStats {
        let usage = self.cache.usage();
        LoraStats {
            parsed: usage.parsed,
            parsed_bytes: usage.parsed_bytes,
            packed: usage.packed,
            packed_bytes: usage.packed_bytes,
            hits: usage.hits,
            unpacked: usage.unpacked,
            misses: usage.misses,
            evicted: usage.evicted,
            merged: self.copies.copies(),
            merged_bytes: self.copies.bytes(),
        }
    }

    /// The stack of a request. All that is missing is told at once.
    fn stack(&self, uses: &[LoraUse]) -> Result<LoraStack, Fault> {
        let mut stack = LoraStack::new();
        let mut missing: Option<Fault> = None;
        for LoraUse { lora, model, clip } in uses {
            match self.find(lora) {
                Ok(found) => stack = stack.with(found.lora, *model, *clip)?,
                Err(fault) if !fault.missing.is_empty() => match &mut missing {
                    Some(first) => first.missing.extend(fault.missing),
                    None => missing = Some(fault),
                },
                Err(fault) => return Err(fault),
            }
        }
        missing.map_or(Ok(stack), Err)
    }

    /// The patches of a denoiser's call and what became of the stack; nothing where there is none.
    pub fn for_denoiser(
        &self,
        request: &ModelForward,
        denoiser: &Lease<Denoiser>,
        call: &Call,
    ) -> Result<Option<(Arc<Patches>, LoraOutcome)>, Fault> {
        let mode = convert::apply_mode(request.lora_mode.as_deref(), request.forwards)?;
        if request.loras.is_empty() {
            return Ok(None);
        }
        let stack = self.stack(&request.loras)?;
        let resolved = stack.resolve(denoiser, &strictly(request.strict))?;
        let digest = digest(&stack, |entry| entry.model);
        let prepare = |patches: &_| self.copies.prepare(denoiser, patches, mode, call);
        self.prepared(&denoiser.id().to_string(), digest, mode, resolved, prepare).map(Some)
    }

    /// The same for a vision-language model.
    pub fn for_vlm(
        &self,
        request: &VlmGenerate,
        model: &Lease<VlmModel>,
        call: &Call,
    ) -> Result<Option<(Arc<Patches>, LoraOutcome)>, Fault> {
        let forwards = request.max_tokens.unwrap_or(GenerateOptions::default().max_tokens);
        let mode = convert::apply_mode(request.lora_mode.as_deref(), Some(forwards))?;
        if request.loras.is_empty() {
            return Ok(None);
        }
        let stack = self.stack(&request.loras)?;
        let resolved = stack.resolve_vlm(model, &strictly(request.strict))?;
        let digest = digest(&stack, |entry| entry.clip);
        let prepare = |patches: &_| self.copies.prepare_vlm(model, patches, mode, call);
        self.prepared(&model.id().to_string(), digest, mode, resolved, prepare).map(Some)
    }

    /// Patches as the mode wants them. A merged copy is kept for the requests that follow.
    fn prepared(
        &self,
        model: &str,
        digest: blake3::Hash,
        mode: ApplyMode,
        resolved: Resolved,
        prepare: impl FnOnce(&Arc<Patches>) -> Result<Prepared>,
    ) -> Result<(Arc<Patches>, LoraOutcome), Fault> {
        if mode != ApplyMode::Functional {
            // Another stack's copy would be waited for.
            lock(&self.kept).retain(|kept, (other, _)| kept != model || *other == digest);
        }
        let prepared = prepare(&resolved.patches)?;
        if prepared.mode == ApplyMode::Merged {
            lock(&self.kept).insert(model.to_owned(), (digest, prepared.patches.clone()));
        }
        let outcome = LoraOutcome {
            mode: prepared.mode.name().to_owned(),
            not_merged: prepared.not_merged.map(|why| why.name().to_owned()),
            coverage: resolved.coverage,
        };
        Ok((prepared.patches, outcome))
    }

    /// Adds a stack's patches for these text encoders to the options.
    pub fn for_text(
        &self,
        uses: &[LoraUse],
        strict: bool,
        models: &[TextLease],
        options: &mut TextOptions,
    ) -> Result<Vec<TextLoraOutcome>, Fault> {
        if uses.is_empty() {
            return Ok(Vec::new());
        }
        let resolve = strictly(strict);
        let all: Vec<&TextModel> = models.iter().map(|(_, model)| &**model).collect();
        let mut outcomes = Vec::new();
        for (resolved, (name, _)) in self.stack(uses)?.resolve_texts(&all, &resolve)?.into_iter().zip(models) {
            options.patches.extend(resolved.patches);
            outcomes.push(TextLoraOutcome { model: name.clone(), coverage: resolved.coverage });
        }
        Ok(outcomes)
    }

    /// Lets go of the merged copy of a model.
    pub fn release(&self, model: &str) {
        lock(&self.kept).remove(model);
    }
}

/// An id, if the text is one.
fn id(text: &str) -> Option<blake3::Hash> {
    blake3::Hash::from_hex(text).ok()
}

fn gone(id: &str) -> Fault {
    let error = Error::new(ErrorKind::NotFound, "the daemon does not have the LoRA of this id");
    Fault::need_lora(id, error.found(format!("`{id}`")))
}

fn strictly(strict: bool) -> ResolveOptions {
    ResolveOptions { strict, ..ResolveOptions::default() }
}

/// Which LoRAs at which strengths.
fn digest(stack: &LoraStack, strength: impl Fn(&StackEntry) -> f64) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for entry in stack.entries() {
        hasher.update(entry.lora.digest().as_bytes()).update(&strength(entry).to_le_bytes());
    }
    hasher.finalize()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
