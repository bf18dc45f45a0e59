//! Sessions: what a host program opens once. Enters: options. Leaves: a registry with its runtime, and what they hold.

use crate::{
    call::{Log, luna_log_function, luna_log_level},
    error::{Result, wrong},
    handle::{Caller, boundary, c_string, free, object},
    list::{self, Item},
    options::yes,
    status::luna_status,
    table::{self, Object},
    types::{luna_list, luna_session},
};
use luna_core::{
    Device, Error, ErrorKind, Limits, Runtime,
    checkpoint::Checkpoint,
    lora::{LoraCache, LoraFolders, MergedCopies},
    memory,
    registry::{Lease, Model, ModelId, Registry, Resident, Unloaded},
    save::SavePool,
};
use std::{
    ffi::{CString, c_char, c_void},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

crate::handle::records!(luna_open_options, luna_stats, luna_resident);

/// Bytes of LoRAs that are kept where the caller does not say.
const USUAL_LORA_BYTES: u64 = 2 << 30;

/// Options of `luna_open`. All zeros but `size` is a good choice.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_open_options {
    /// `sizeof(luna_open_options)`.
    pub size: usize,
    /// Threads that compute; 0 for one for each core. They start with the first model.
    pub threads: u32,
    /// 0.
    pub reserved: u32,
    /// The most bytes of weights in memory: idle models go when another needs room. 0 for no bound.
    pub budget_bytes: u64,
    /// The device that computes, such as `cpu` or `cuda:0`; NULL for `cpu`.
    pub device: *const c_char,
    /// The folder that pictures are saved below; NULL if none are to be saved. It is made with the first job.
    pub output_folder: *const c_char,
    /// The folder that durable save jobs are kept in until they are done; NULL for none. One process at a time.
    pub spool_folder: *const c_char,
    /// Hears what is done in this session; may be NULL.
    pub log: luna_log_function,
    /// Handed to `log`.
    pub user_data: *mut c_void,
    /// Folders that LoRAs are looked up in by name, with all folders below them.
    pub lora_folders: *const *const c_char,
    /// How many there are.
    pub lora_folder_count: usize,
    /// The most bytes of LoRAs to keep in memory; 0 for 2 GiB.
    pub lora_cache_bytes: u64,
    /// The most bytes of layers merged with LoRAs; 0 for the memory that is available when the session is opened.
    pub merged_bytes: u64,
}

/// What a session holds and has done.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_stats {
    /// `sizeof(luna_stats)`, set by the caller.
    pub size: usize,
    /// Models in memory.
    pub models: u64,
    /// Bytes of their weights.
    pub weight_bytes: u64,
    /// The most bytes of weights allowed.
    pub budget_bytes: u64,
    /// Bytes of memory that this process holds; 0 where the system does not tell.
    pub resident_bytes: u64,
    /// Bytes that can be allocated without swapping; 0 where the system does not tell.
    pub available_bytes: u64,
    /// Threads that compute; 0 before the first model.
    pub threads: u64,
    /// Handles of all kinds that are open in this process.
    pub handles: u64,
    /// Save jobs taken in.
    pub save_jobs: u64,
    /// Save jobs whose every picture has its fate.
    pub save_jobs_finished: u64,
    /// Pictures written.
    pub pictures_written: u64,
    /// Pictures that failed.
    pub pictures_failed: u64,
    /// LoRAs in memory.
    pub loras: u64,
    /// Bytes they take.
    pub lora_bytes: u64,
    /// Bytes of layers that are merged with LoRAs.
    pub merged_bytes: u64,
}

/// One model in memory.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_resident {
    /// `sizeof(luna_resident)`, set by the caller.
    pub size: usize,
    /// What it is known by: BLAKE3 of its files, 64 hexadecimal digits.
    pub id: *const c_char,
    /// The path it was first loaded from, or the name of a bundled model.
    pub path: *const c_char,
    /// Bytes of its weights.
    pub bytes: u64,
    /// Handles that hold it now.
    pub leases: u64,
    /// Whether it is kept although idle: 0 or 1.
    pub pinned: u32,
    /// 0.
    pub reserved: u32,
}

/// What became of `luna_unload`.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_unloaded {
    /// Its memory is free.
    Freed = 0,
    /// Handles hold it still: its memory is freed with the last of them, and no new one gets it.
    WhenReturned = 1,
}

/// The object behind `luna_session`.
pub(crate) struct Session {
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
    merged: MergedCopies,
    pub(crate) log: Log,
}

impl Object for Session {
    const NAME: &'static str = "luna_session";
}

impl Session {
    fn new(caller: &Caller, options: *const luna_open_options) -> Result<Self> {
        let options = caller.options(options)?;
        let device = caller.optional_text("device", options.device)?.map_or(Ok(Device::Cpu), str::parse)?;
        let budget = if options.budget_bytes == 0 { u64::MAX } else { options.budget_bytes };
        let folders = caller.texts("lora_folders", options.lora_folders, options.lora_folder_count)?;
        let cache = if options.lora_cache_bytes == 0 { USUAL_LORA_BYTES } else { options.lora_cache_bytes };
        let available = || memory::available().unwrap_or(u64::MAX);
        let session = Self {
            device,
            threads: NonZeroUsize::new(options.threads as usize),
            runtime: Mutex::default(),
            registry: Registry::new(budget),
            budget,
            output: caller.optional_path("output_folder", options.output_folder)?,
            spool: caller.optional_path("spool_folder", options.spool_folder)?,
            saver: Mutex::default(),
            // Files can be read again, so none is kept compressed.
            loras: LoraCache::new(cache, 0, Limits::default()),
            lora_folders: LoraFolders::new(folders)?,
            merged: MergedCopies::new(Some(options.merged_bytes).filter(|&bytes| bytes > 0).unwrap_or_else(available)),
            log: Log::new(options.log, options.user_data),
        };
        if device != Device::Cpu {
            session.runtime()?;
        }
        Ok(session)
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
        // No path is empty, so there is no name that stands for a bundled one.
        let none = || Err(Error::new(ErrorKind::NotFound, "the library carries no such model"));
        self.acquire(path, ("", none), load)
    }

    /// A share in a model: a bundled one by its name, or else that of a file or folder. Names stand before paths;
    /// `./name` is a path.
    pub(crate) fn acquire<M: Model>(
        &self,
        path: &str,
        bundled: (&str, fn() -> luna_core::Result<Checkpoint>),
        load: impl FnOnce(&Checkpoint, &Runtime) -> luna_core::Result<M>,
    ) -> Result<Lease<M>> {
        let runtime = self.runtime()?;
        let start = Instant::now();
        let mut loaded = false;
        let load = |checkpoint: &Checkpoint| {
            loaded = true;
            load(checkpoint, &runtime)
        };
        let lease = if path == bundled.0 {
            self.registry.adopt(&bundled.1()?, load)?
        } else {
            self.registry.acquire(Path::new(path), load)?
        };
        if loaded {
            let (mib, time) = (lease.weight_bytes() >> 20, start.elapsed().as_millis());
            self.log.tell(luna_log_level::Info, &format!("loaded {path}: {mib} MiB in {time} ms"));
        }
        Ok(lease)
    }

    /// The layers that are merged with LoRAs.
    pub(crate) fn merged_copies(&self) -> MergedCopies {
        self.merged.clone()
    }

    fn stats(&self) -> luna_stats {
        let saver = self.saver.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let saves = saver.map(|saver| saver.counters()).unwrap_or_default();
        let loras = self.loras.usage();
        let threads = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, Runtime::threads);
        luna_stats {
            size: 0,
            models: self.registry.residents().len() as u64,
            weight_bytes: self.registry.bytes(),
            budget_bytes: self.budget,
            resident_bytes: memory::resident().unwrap_or_default(),
            available_bytes: memory::available().unwrap_or_default(),
            threads: threads as u64,
            handles: table::count() as u64,
            save_jobs: saves.jobs,
            save_jobs_finished: saves.jobs_finished,
            pictures_written: saves.written,
            pictures_failed: saves.failed,
            loras: loras.parsed as u64,
            lora_bytes: loras.parsed_bytes,
            merged_bytes: self.merged.bytes(),
        }
    }

    fn find(&self, id: &str) -> Result<ModelId> {
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

struct ResidentItem {
    id: CString,
    path: CString,
    resident: Resident,
}

impl Item for ResidentItem {
    type Record = luna_resident;

    fn record(&self) -> luna_resident {
        luna_resident {
            size: 0,
            id: self.id.as_ptr(),
            path: self.path.as_ptr(),
            bytes: self.resident.bytes,
            leases: self.resident.leases as u64,
            pinned: self.resident.pinned.into(),
            reserved: 0,
        }
    }
}

/// Opens a session. NULL for the options stands for zeros.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_open(options: *const luna_open_options, session: *mut luna_session) -> luna_status {
    boundary(|caller| {
        let place = caller.output("session", session)?;
        place.put(table::insert(Session::new(caller, options)?));
        Ok(())
    })
}

/// Ends a session; save jobs that were taken in are finished first. Models, tensors and lists that it gave stay valid
/// until they are freed themselves.
#[unsafe(no_mangle)]
pub extern "C" fn luna_close(session: luna_session) -> luna_status {
    free::<Session>(session)
}

/// Tells what a session holds and has done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_get_stats(session: luna_session, stats: *mut luna_stats) -> luna_status {
    boundary(|caller| {
        caller.output("stats", stats)?;
        let mut place = caller.report(stats)?;
        place.put(object::<Session>(session)?.stats());
        Ok(())
    })
}

/// Lists the models in memory, least recently used first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_list_residents(session: luna_session, list: *mut luna_list) -> luna_status {
    boundary(|caller| {
        let place = caller.output("list", list)?;
        let residents = object::<Session>(session)?.registry.residents();
        let items = residents.into_iter().map(|resident| ResidentItem {
            id: c_string(&resident.id.to_string()),
            path: c_string(&resident.path.to_string_lossy()),
            resident,
        });
        place.put(list::open(items.collect()));
        Ok(())
    })
}

/// One model of such a list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_list_resident(
    list: luna_list,
    index: usize,
    resident: *mut luna_resident,
) -> luna_status {
    boundary(|caller| list::item::<ResidentItem>(caller, list, index, resident))
}

/// Keeps a model in memory although idle (`pinned` is not 0), or lets it go again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_pin(session: luna_session, id: *const c_char, pinned: u32) -> luna_status {
    boundary(|caller| {
        let (session, id) = (object::<Session>(session)?, caller.text("id", id)?);
        if session.registry.pin(session.find(id)?, yes(pinned)) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, "the model has just left the memory").into())
    })
}

/// Takes a model out of memory, pinned or not. `unloaded`, which may be NULL, gets a `luna_unloaded`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_unload(session: luna_session, id: *const c_char, unloaded: *mut i32) -> luna_status {
    boundary(|caller| {
        let (session, id) = (object::<Session>(session)?, caller.text("id", id)?);
        let fate = match session.registry.unload(session.find(id)?) {
            Unloaded::Freed => luna_unloaded::Freed,
            Unloaded::WhenReturned(_) => luna_unloaded::WhenReturned,
            _ => return Err(Error::new(ErrorKind::NotFound, "the model has just left the memory").into()),
        };
        if !unloaded.is_null() {
            caller.output("unloaded", unloaded)?.put(fate as i32);
        }
        Ok(())
    })
}

/// Gives memory that finished calls left for the next ones back to the system.
#[unsafe(no_mangle)]
pub extern "C" fn luna_trim(session: luna_session) -> luna_status {
    boundary(|_| {
        let session = object::<Session>(session)?;
        let runtime = session.runtime.lock().unwrap_or_else(PoisonError::into_inner).clone();
        runtime.inspect(Runtime::trim);
        Ok(())
    })
}

/// A text that must not be empty.
pub(crate) fn not_empty<'a>(what: &str, text: &'a str) -> Result<&'a str> {
    if text.is_empty() { Err(wrong(format!("{what} is empty")).into()) } else { Ok(text) }
}
