//! Models in memory, each once. Enters: paths and how to build a model. Leaves: leases on shared models.
//!
//! A model is known by the content of its files: two paths with the same bytes share it. The first caller loads it and
//! the others wait for that (single flight). When the byte budget is exceeded, idle models go, least recently used
//! first. A leased or pinned model never goes. It knows no model family.

mod shelf;

use crate::{
    Error, ErrorKind, Limits, Result,
    checkpoint::{Checkpoint, ComponentKind, check_path},
    files::Stamp,
};
use shelf::{Claim, Shelf};
use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// A model that a registry can hold.
pub trait Model: Any + Send + Sync {
    /// Bytes of its weights in memory.
    fn weight_bytes(&self) -> u64;

    /// About how many bytes the model of this checkpoint will take, from its header alone.
    fn expected_bytes(checkpoint: &Checkpoint) -> u64
    where
        Self: Sized;
}

impl Model for crate::vae::Vae {
    fn weight_bytes(&self) -> u64 {
        self.weight_bytes()
    }

    fn expected_bytes(checkpoint: &Checkpoint) -> u64 {
        checkpoint.recognise().component(ComponentKind::Vae).map_or(0, |component| component.bytes)
    }
}

impl Model for crate::text::TextModel {
    fn weight_bytes(&self) -> u64 {
        self.weight_bytes()
    }

    fn expected_bytes(checkpoint: &Checkpoint) -> u64 {
        let found = checkpoint.recognise();
        let encoders = found.components.iter().filter(|component| component.kind == ComponentKind::TextEncoder);
        encoders.map(|component| component.bytes).sum()
    }
}

impl Model for crate::diffusion::Denoiser {
    fn weight_bytes(&self) -> u64 {
        self.weight_bytes()
    }

    fn expected_bytes(checkpoint: &Checkpoint) -> u64 {
        checkpoint.recognise().component(ComponentKind::Diffusion).map_or(0, |component| component.bytes)
    }
}

impl Model for crate::vision::VisionModel {
    fn weight_bytes(&self) -> u64 {
        self.weight_bytes()
    }

    fn expected_bytes(checkpoint: &Checkpoint) -> u64 {
        checkpoint.recognise().component(ComponentKind::Vision).map_or(0, |component| component.bytes)
    }
}

impl Model for crate::vlm::VlmModel {
    fn weight_bytes(&self) -> u64 {
        self.weight_bytes()
    }

    fn expected_bytes(checkpoint: &Checkpoint) -> u64 {
        checkpoint.recognise().component(ComponentKind::VisionLanguage).map_or(0, |component| component.bytes)
    }
}

/// What a model is known by: BLAKE3 of the files' content, 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelId(blake3::Hash);

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_hex().as_str())
    }
}

/// Where a model lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelFiles {
    /// A file or folder, as [`Checkpoint::open`] takes it.
    pub path: PathBuf,
    /// The vision part of a GGUF language model, where it is not the one beside it.
    pub projector: Option<PathBuf>,
}

impl<P: AsRef<Path>> From<P> for ModelFiles {
    fn from(path: P) -> Self {
        Self { path: path.as_ref().to_owned(), projector: None }
    }
}

impl ModelFiles {
    /// Opens them as one checkpoint.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`Checkpoint::open_with_projector`].
    pub fn open(&self, limits: &Limits) -> Result<Checkpoint> {
        match &self.projector {
            None => Checkpoint::open(&self.path, limits),
            Some(projector) => Checkpoint::open_with_projector(&self.path, projector, limits),
        }
    }

    fn stamps(&self) -> Result<Vec<Stamp>> {
        let mut all = stamps(&self.path)?;
        if let Some(projector) = &self.projector {
            all.extend(stamps(projector)?);
        }
        Ok(all)
    }
}

/// A file's content, the type built from it (one checkpoint may serve as VAE and as text encoder), and which of several
/// models of that type.
type Key = (ModelId, TypeId, u64);

/// Shared models under a byte budget.
///
/// ```no_run
/// use luna_core::{Runtime, registry::Registry, vae::Vae};
/// let runtime = Runtime::cpu()?;
/// let registry = Registry::new(8 << 30);
/// let load = |checkpoint: &_| Vae::load(checkpoint, &runtime);
/// let first = registry.acquire("sdxl_vae.safetensors", load)?;
/// let second = registry.acquire("copy_of_sdxl_vae.safetensors", load)?;
/// assert!(std::ptr::eq(&*first, &*second));
/// # Ok::<(), luna_core::Error>(())
/// ```
pub struct Registry {
    budget: u64,
    limits: Limits,
    state: Mutex<State>,
    loaded: Condvar,
}

#[derive(Default)]
struct State {
    /// What the files were when they were last read.
    files: HashMap<ModelFiles, (Vec<Stamp>, ModelId)>,
    shelf: Shelf<Key>,
}

/// A share in a model. The model stays while any lease on it lives.
pub struct Lease<M> {
    id: ModelId,
    model: Arc<M>,
}

impl<M> Lease<M> {
    /// What the model is known by.
    pub fn id(&self) -> ModelId {
        self.id
    }
}

impl<M> Clone for Lease<M> {
    fn clone(&self) -> Self {
        Self { id: self.id, model: self.model.clone() }
    }
}

impl<M> Deref for Lease<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.model
    }
}

/// One model in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resident {
    /// What it is known by.
    pub id: ModelId,
    /// The path it was first loaded from.
    pub path: PathBuf,
    /// Bytes of its weights.
    pub bytes: u64,
    /// Leases that live now.
    pub leases: usize,
    /// Whether it is kept although idle.
    pub pinned: bool,
}

/// What became of [`Registry::unload`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unloaded {
    /// Its memory is free.
    Freed,
    /// No new lease is given; its memory is freed with the last of this many leases.
    WhenReturned(usize),
    /// There was no such model.
    Absent,
}

impl Registry {
    /// A registry that keeps at most `budget` bytes of weights.
    pub fn new(budget: u64) -> Self {
        Self { budget, limits: Limits::default(), state: Mutex::default(), loaded: Condvar::new() }
    }

    /// The model of type `M` in the file or folder at `path`: the one in memory if the content is the same, else built
    /// by `load`. A file that changed since it was loaded is a new model; leases on the old one stay valid.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`] and `load`; `LimitExceeded` if the budget does not suffice even without the idle
    /// models. After a failed load the next caller tries again.
    pub fn acquire<M: Model>(
        &self,
        path: impl AsRef<Path>,
        load: impl FnOnce(&Checkpoint) -> Result<M>,
    ) -> Result<Lease<M>> {
        self.acquire_variant(path, 0, load)
    }

    /// As [`Registry::acquire`], where `load` makes one of several models of the same content and type: what was loaded
    /// with other options is another model. [`Registry::acquire`] is variant 0.
    ///
    /// # Errors
    /// As [`Registry::acquire`].
    pub fn acquire_variant<M: Model>(
        &self,
        files: impl Into<ModelFiles>,
        variant: u64,
        load: impl FnOnce(&Checkpoint) -> Result<M>,
    ) -> Result<Lease<M>> {
        let files = files.into();
        let (id, checkpoint) = self.identify(&files)?;
        self.share((id, variant), &files.path, || match checkpoint {
            Some(checkpoint) => self.build(&checkpoint, load),
            None => self.build(&files.open(&self.limits)?, load),
        })
    }

    /// The model of type `M` in an opened checkpoint, such as one that came over a wire: the one in memory if the content
    /// is the same, else built by `load`. Once evicted or unloaded it is gone for callers who cannot open it again.
    ///
    /// # Errors
    /// As [`Registry::acquire`].
    pub fn adopt<M: Model>(
        &self,
        checkpoint: &Checkpoint,
        load: impl FnOnce(&Checkpoint) -> Result<M>,
    ) -> Result<Lease<M>> {
        self.adopt_variant(checkpoint, 0, load)
    }

    /// As [`Registry::adopt`] for one of several models of the same content and type.
    ///
    /// # Errors
    /// As [`Registry::acquire`].
    pub fn adopt_variant<M: Model>(
        &self,
        checkpoint: &Checkpoint,
        variant: u64,
        load: impl FnOnce(&Checkpoint) -> Result<M>,
    ) -> Result<Lease<M>> {
        let id = ModelId(checkpoint.digest());
        self.share((id, variant), checkpoint.path(), || self.build(checkpoint, load))
    }

    /// What the model in these files, or in the file or folder at this path, is known by, loaded or not.
    ///
    /// # Errors
    /// Those of [`ModelFiles::open`].
    pub fn id_of(&self, files: impl Into<ModelFiles>) -> Result<ModelId> {
        self.identify(&files.into()).map(|(id, _)| id)
    }

    fn build<M: Model>(&self, checkpoint: &Checkpoint, load: impl FnOnce(&Checkpoint) -> Result<M>) -> Result<M> {
        self.make_room(M::expected_bytes(checkpoint))?;
        load(checkpoint)
    }

    /// The model in memory, or what `build` makes, once for all who ask meanwhile.
    fn share<M: Model>(
        &self,
        (id, variant): (ModelId, u64),
        path: &Path,
        build: impl FnOnce() -> Result<M>,
    ) -> Result<Lease<M>> {
        let key = (id, TypeId::of::<M>(), variant);
        let mut state = self.lock();
        loop {
            match state.shelf.claim(key) {
                Claim::Ready(model) => return Ok(Lease { id, model: downcast(model)? }),
                Claim::Loading => state = self.loaded.wait(state).unwrap_or_else(PoisonError::into_inner),
                Claim::Yours => break,
            }
        }
        drop(state);
        // From here on this thread owes the others an outcome, also if `build` panics.
        let claim = Claimed { registry: self, key };
        let start = Instant::now();
        let model = Arc::new(build()?);
        let bytes = model.weight_bytes();
        tracing::info!(%id, path = %path.display(), bytes, seconds = start.elapsed().as_secs_f64(), "model loaded");
        let mut state = self.lock();
        state.shelf.put(key, model.clone(), bytes, path);
        drop(state);
        drop(claim);
        Ok(Lease { id, model })
    }

    /// The content of files. The checkpoint comes along where it had to be opened to know.
    fn identify(&self, files: &ModelFiles) -> Result<(ModelId, Option<Checkpoint>)> {
        check_path(&files.path)?;
        let stamps = files.stamps()?;
        if let Some((known, id)) = self.lock().files.get(files)
            && *known == stamps
        {
            return Ok((*id, None));
        }
        let checkpoint = files.open(&self.limits)?;
        let id = ModelId(checkpoint.digest());
        self.lock().files.insert(files.clone(), (stamps, id));
        Ok((id, Some(checkpoint)))
    }

    /// Frees idle models until `bytes` more fit.
    fn make_room(&self, bytes: u64) -> Result<()> {
        let mut freed = Vec::new();
        let mut state = self.lock();
        while state.shelf.bytes().saturating_add(bytes) > self.budget {
            match state.shelf.evict() {
                Some(model) => freed.push(model),
                None => {
                    let held = state.shelf.bytes();
                    return Err(Error::new(ErrorKind::LimitExceeded, "the model does not fit the memory budget")
                        .expected(format!("at most {} MiB of models", self.budget >> 20))
                        .found(format!("{} MiB in use and {} MiB to load", held >> 20, bytes >> 20))
                        .remedy("unload a model, or raise the budget"));
                }
            }
        }
        // Freeing a model's memory takes time; other callers need not wait for it.
        drop(state);
        if !freed.is_empty() {
            tracing::info!(models = freed.len(), bytes, "idle models gave way");
        }
        drop(freed);
        Ok(())
    }

    /// Keeps the model although idle, or lets it go again. Says whether it is there.
    pub fn pin(&self, id: ModelId, pinned: bool) -> bool {
        self.lock().shelf.pin(|key| key.0 == id, pinned)
    }

    /// Takes a model out, pinned or not, and gives its memory back to the system.
    pub fn unload(&self, id: ModelId) -> Unloaded {
        let models = self.lock().shelf.remove(|key| key.0 == id);
        let leases = models.iter().map(|model| Arc::strong_count(model) - 1).sum();
        tracing::info!(%id, models = models.len(), leases, "unloaded");
        match (models.is_empty(), leases) {
            (true, _) => Unloaded::Absent,
            (false, 0) => Unloaded::Freed,
            (false, leases) => Unloaded::WhenReturned(leases),
        }
    }

    /// The models in memory, least recently used first.
    pub fn residents(&self) -> Vec<Resident> {
        let state = self.lock();
        let resident = |(key, item): (&Key, &shelf::Item)| Resident {
            id: key.0,
            path: item.path.clone(),
            bytes: item.bytes,
            leases: Arc::strong_count(&item.model) - 1,
            pinned: item.pinned,
        };
        state.shelf.items().into_iter().map(resident).collect()
    }

    /// Bytes of weights in memory.
    pub fn bytes(&self) -> u64 {
        self.lock().shelf.bytes()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete when the lock is released, so a panic leaves it sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While a thread loads: gives up the claim and wakes the others however it ends.
struct Claimed<'a> {
    registry: &'a Registry,
    key: Key,
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        self.registry.lock().shelf.abandon(self.key);
        self.registry.loaded.notify_all();
    }
}

fn downcast<M: Model>(model: Arc<dyn Any + Send + Sync>) -> Result<Arc<M>> {
    model.downcast().map_err(|_| Error::new(ErrorKind::Internal, "a model is filed under another type"))
}

/// The stamps of a file, or of the files directly in a folder and in its sub-folders, in a fixed order.
fn stamps(path: &Path) -> Result<Vec<Stamp>> {
    let failed = |error| Error::io(format!("open {}", path.display()), error);
    let metadata = std::fs::metadata(path).map_err(failed)?;
    let mut stamps = vec![Stamp::of(&metadata)];
    let folder = if metadata.is_dir() { Some(path) } else { path.parent().filter(|_| is_index(path)) };
    if let Some(folder) = folder.filter(|folder| !folder.as_os_str().is_empty()) {
        let mut entries: Vec<_> =
            std::fs::read_dir(folder).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let metadata = std::fs::metadata(entry.path()).map_err(failed)?;
            if metadata.is_dir() && metadata_file(path).is_file() {
                stamps.extend(self::stamps(&entry.path())?);
            } else {
                stamps.push(Stamp::of(&metadata));
            }
        }
    }
    Ok(stamps)
}

fn is_index(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".index.json")
}

/// Present in pipeline folders only, whose sub-folders are components.
fn metadata_file(folder: &Path) -> PathBuf {
    folder.join("model_index.json")
}

#[cfg(test)]
mod tests;
