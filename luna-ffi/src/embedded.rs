//! Models in this process. Enters: what a session was opened with, paths. Leaves: shares in models, each loaded once, and
//! what they take.

use crate::{
    call::{Log, luna_log_level},
    error::Result,
};
use luna_core::{
    Device, Error, ErrorKind, Limits, Runtime,
    checkpoint::Checkpoint,
    diffusion::FirstBlockCache,
    lora::{LoraCache, LoraCacheUsage, LoraFolders, MergedCopies},
    memory,
    registry::{Lease, Model, ModelId, Registry},
    save::{SaveCounters, SavePool},
};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Instant,
};

/// Bytes of LoRAs that are kept where the caller does not say.
const USUAL_LORA_BYTES: u64 = 2 << 30;

/// Bytes of the first-block cache where the caller does not say.
const USUAL_STEP_BYTES: u64 = 256 << 20;

/// What a session is opened with.
pub(crate) struct Settings {
    pub(crate) device: Device,
    pub(crate) threads: u32,
    pub(crate) budget: u64,
    pub(crate) output: Option<PathBuf>,
    pub(crate) spool: Option<PathBuf>,
    pub(crate) lora_folders: Vec<PathBuf>,
    pub(crate) lora_cache: Option<u64>,
    pub(crate) merged: Option<u64>,
    pub(crate) steps: Option<u64>,
}

/// What it holds and has done.
pub(crate) struct Counts {
    pub(crate) models: usize,
    pub(crate) weight_bytes: u64,
    pub(crate) budget_bytes: u64,
    pub(crate) threads: usize,
    pub(crate) saves: SaveCounters,
    pub(crate) loras: LoraCacheUsage,
    pub(crate) merged_bytes: u64,
    pub(crate) sequences: usize,
    pub(crate) sequence_bytes: u64,
}

/// The number of a way of reading a file; 0 stands for the usual one.
fn variant(way: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    way.hash(&mut hasher);
    hasher.finish() | 1
}

/// One copy of each model, in this process.
pub(crate) struct Embedded {
    device: Device,
    threads: Option<NonZeroUsize>,
    runtime: Mutex<Option<Runtime>>,
    pub(crate) registry: Registry,
    budget: u64,
    pub(crate) output: Option<PathBuf>,
    pub(crate) spool: Option<PathBuf>,
    pub(crate) saver: Mutex<Option<Arc<SavePool>>>,
    /// LoRAs in memory.
    pub(crate) loras: LoraCache,
    pub(crate) lora_folders: LoraFolders,
    merged_budget: Option<u64>,
    /// Made when it is first needed: asking the system for its memory takes longer than opening a session.
    merged: OnceLock<MergedCopies>,
    /// What samplings left for their next steps.
    pub(crate) steps: FirstBlockCache,
    pub(crate) log: Log,
}

/// A model that comes with the library: its name, and what opens it.
type Bundled<'a> = (&'a str, fn() -> luna_core::Result<Checkpoint>);

impl Embedded {
    /// Starts nothing but a device that is no CPU.
    pub(crate) fn new(settings: Settings, log: Log) -> Result<Self> {
        let embedded = Self {
            device: settings.device,
            threads: NonZeroUsize::new(settings.threads as usize),
            runtime: Mutex::default(),
            registry: Registry::new(settings.budget),
            budget: settings.budget,
            output: settings.output,
            spool: settings.spool,
            saver: Mutex::default(),
            // Files can be read again, so none is kept compressed.
            loras: LoraCache::new(settings.lora_cache.unwrap_or(USUAL_LORA_BYTES), 0, Limits::default()),
            lora_folders: LoraFolders::new(settings.lora_folders)?,
            merged_budget: settings.merged,
            merged: OnceLock::new(),
            steps: FirstBlockCache::new(
                usize::try_from(settings.steps.unwrap_or(USUAL_STEP_BYTES)).unwrap_or(usize::MAX),
            ),
            log,
        };
        if settings.device != Device::Cpu {
            embedded.runtime()?;
        }
        Ok(embedded)
    }

    /// Its threads, started when they are first needed.
    pub(crate) fn runtime(&self) -> Result<Runtime> {
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*runtime {
            return Ok(runtime.clone());
        }
        Ok(runtime.insert(Runtime::new(self.device, self.threads)?).clone())
    }

    /// A share in the model of a file or folder.
    pub(crate) fn acquire_file<M: Model>(
        &self,
        path: &str,
        load: impl FnOnce(&Checkpoint, &Runtime) -> luna_core::Result<M>,
    ) -> Result<Lease<M>> {
        self.acquire(path, None, load)
    }

    /// A share in the model of a file or folder that is read in a way of its own: one content read in two ways is two
    /// models.
    pub(crate) fn acquire_read<M: Model>(
        &self,
        path: &str,
        way: &impl Hash,
        load: impl FnOnce(&Checkpoint, &Runtime) -> luna_core::Result<M>,
    ) -> Result<Lease<M>> {
        self.told(path, load, |load| self.registry.acquire_variant(Path::new(path), variant(way), load))
    }

    /// A share in a model: a bundled one by its name, or else that of a file or folder. Names stand before paths;
    /// `./name` is a path.
    pub(crate) fn acquire<M: Model>(
        &self,
        path: &str,
        bundled: Option<Bundled<'_>>,
        load: impl FnOnce(&Checkpoint, &Runtime) -> luna_core::Result<M>,
    ) -> Result<Lease<M>> {
        self.told(path, load, |load| match bundled.filter(|(name, _)| *name == path) {
            Some((_, open)) => self.registry.adopt(&open()?, load),
            None => self.registry.acquire(Path::new(path), load),
        })
    }

    /// A share in the model of an opened checkpoint, read in a way of its own; `path` is what the log calls it.
    pub(crate) fn adopt<M: Model>(
        &self,
        path: &str,
        checkpoint: &Checkpoint,
        way: &impl Hash,
        load: impl FnOnce(&Checkpoint, &Runtime) -> luna_core::Result<M>,
    ) -> Result<Lease<M>> {
        self.told(path, load, |load| self.registry.adopt_variant(checkpoint, variant(way), load))
    }

    /// Shares a model by `share`, and tells of it if that loaded it.
    fn told<M: Model>(
        &self,
        path: &str,
        load: impl FnOnce(&Checkpoint, &Runtime) -> luna_core::Result<M>,
        share: impl FnOnce(&mut dyn FnMut(&Checkpoint) -> luna_core::Result<M>) -> luna_core::Result<Lease<M>>,
    ) -> Result<Lease<M>> {
        let (runtime, start) = (self.runtime()?, Instant::now());
        let mut load = Some(load);
        let lease = share(&mut |checkpoint| match load.take() {
            Some(load) => load(checkpoint, &runtime),
            None => Err(Error::new(ErrorKind::Internal, "a model was to be loaded twice")),
        })?;
        if load.is_none() {
            let (mib, time) = (lease.weight_bytes() >> 20, start.elapsed().as_millis());
            self.log.tell(luna_log_level::Info, &format!("loaded {path}: {mib} MiB in {time} ms"));
        }
        Ok(lease)
    }

    /// The layers that are merged with LoRAs.
    pub(crate) fn merged_copies(&self) -> MergedCopies {
        let available = || memory::available().unwrap_or(u64::MAX);
        self.merged.get_or_init(|| MergedCopies::new(self.merged_budget.unwrap_or_else(available))).clone()
    }

    /// What it holds and has done.
    pub(crate) fn stats(&self) -> Counts {
        let saver = self.saver.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let saves = saver.map(|saver| saver.counters()).unwrap_or_default();
        let loras = self.loras.usage();
        let threads = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, Runtime::threads);
        Counts {
            models: self.registry.residents().len(),
            weight_bytes: self.registry.bytes(),
            budget_bytes: self.budget,
            threads,
            saves,
            loras,
            merged_bytes: self.merged.get().map_or(0, MergedCopies::bytes),
            sequences: self.steps.sequences(),
            sequence_bytes: self.steps.bytes() as u64,
        }
    }

    /// Gives memory that finished calls left for the next ones back to the system.
    pub(crate) fn trim(&self) {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).clone();
        runtime.inspect(Runtime::trim);
    }

    /// The model of an id.
    pub(crate) fn find(&self, id: &str) -> Result<ModelId> {
        let known = self.registry.residents().into_iter().map(|resident| resident.id);
        let found = known.into_iter().find(|known| known.to_string() == id);
        found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "no such model is in memory")
                .expected("an id of luna_list_residents")
                .found(format!("`{id}`"))
                .into()
        })
    }
}
