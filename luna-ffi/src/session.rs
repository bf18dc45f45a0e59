//! Sessions: what a host program opens once. Enters: options. Leaves: a registry with its runtime, and what they hold.

mod options;

use crate::{
    call::Log,
    daemon::{Daemon, not_remote},
    embedded::{Embedded, Settings},
    error::{Result, wrong},
    handle::{Caller, boundary, c_string, free, object},
    list::{self, Item},
    options::yes,
    status::luna_status,
    table::{self, Object},
    types::{luna_list, luna_session},
};
use luna_core::{
    Device, Error, ErrorKind,
    client::ClientSettings,
    memory,
    protocol::{DEFAULT_PORT, GetInfo, ModelInfo},
    registry::{Resident, Unloaded},
};
use options::NO_STATS;
pub use options::*;
use std::{
    ffi::{CString, c_char},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

crate::handle::records!(luna_resident);

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
    place: Place,
    pub(crate) log: Log,
}

/// Where a session's models are.
pub(crate) enum Place {
    Here(Box<Embedded>),
    There(Arc<Daemon>),
}

impl Object for Session {
    const NAME: &'static str = "luna_session";
}

impl Session {
    fn open(caller: &Caller, options: *const luna_open_options) -> Result<Self> {
        let options = caller.options(options)?;
        let folders = caller.texts("lora_folders", options.lora_folders, options.lora_folder_count)?;
        let stated = |bytes: u64| Some(bytes).filter(|&bytes| bytes > 0);
        let settings = Settings {
            device: caller.optional_text("device", options.device)?.map_or(Ok(Device::Cpu), str::parse)?,
            threads: options.threads,
            budget: stated(options.budget_bytes).unwrap_or(u64::MAX),
            output: caller.optional_path("output_folder", options.output_folder)?,
            spool: caller.optional_path("spool_folder", options.spool_folder)?,
            lora_folders: folders.into_iter().map(PathBuf::from).collect(),
            lora_cache: stated(options.lora_cache_bytes),
            merged: stated(options.merged_bytes),
            steps: stated(options.step_cache_bytes),
        };
        let log = Log::new(options.log, options.user_data);
        Ok(Self { place: Place::Here(Box::new(Embedded::new(settings, log)?)), log })
    }

    fn connect(caller: &Caller, address: *const c_char, options: *const luna_connect_options) -> Result<Self> {
        let options = caller.options(options)?;
        let usual = format!("127.0.0.1:{DEFAULT_PORT}");
        let address = caller.optional_text("address", address)?.unwrap_or(&usual);
        let mut settings = ClientSettings::default();
        settings.name = caller.optional_text("name", options.name)?.map(str::to_owned);
        settings.token = caller.optional_text("token", options.token)?.map(str::to_owned);
        settings.connect_for = Duration::from_millis(options.connect_for_ms.into());
        settings.wait_when_busy = yes(options.wait_when_busy);
        let log = Log::new(options.log, options.user_data);
        Ok(Self { place: Place::There(Daemon::connect(not_empty("address", address)?, settings)?), log })
    }

    /// Where its models are.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Models in this process. `what` cannot be had elsewhere.
    pub(crate) fn here(&self, what: &str) -> Result<&Embedded> {
        match &self.place {
            Place::Here(embedded) => Ok(embedded),
            Place::There(_) => Err(not_remote(what).into()),
        }
    }

    fn stats(&self) -> Result<luna_stats> {
        let handles = table::count() as u64;
        let zeros = luna_stats { size: 0, handles, ..NO_STATS };
        Ok(match &self.place {
            Place::Here(embedded) => {
                let counts = embedded.stats();
                luna_stats {
                    models: counts.models as u64,
                    weight_bytes: counts.weight_bytes,
                    budget_bytes: counts.budget_bytes,
                    resident_bytes: memory::resident().unwrap_or_default(),
                    available_bytes: memory::available().unwrap_or_default(),
                    threads: counts.threads as u64,
                    save_jobs: counts.saves.jobs,
                    save_jobs_finished: counts.saves.jobs_finished,
                    pictures_written: counts.saves.written,
                    pictures_failed: counts.saves.failed,
                    loras: counts.loras.parsed as u64,
                    lora_bytes: counts.loras.parsed_bytes,
                    merged_bytes: counts.merged_bytes,
                    step_sequences: counts.sequences as u64,
                    step_cache_bytes: counts.sequence_bytes,
                    ..zeros
                }
            }
            Place::There(daemon) => {
                let models = daemon.client.list_models()?;
                let loras = daemon.client.lora_cache_stats()?;
                let threads = daemon.client.call(&GetInfo {}, &[])?.reply.threads as u64;
                luna_stats {
                    models: models.iter().filter(|model| model.loaded).count() as u64,
                    weight_bytes: models.iter().map(|model| model.bytes).sum(),
                    threads,
                    loras: loras.parsed as u64,
                    lora_bytes: loras.parsed_bytes,
                    merged_bytes: loras.merged_bytes,
                    ..zeros
                }
            }
        })
    }

    fn residents(&self) -> Result<Vec<ResidentItem>> {
        Ok(match &self.place {
            Place::Here(embedded) => embedded.registry.residents().iter().map(ResidentItem::here).collect(),
            Place::There(daemon) => {
                daemon.client.list_models()?.iter().filter(|model| model.loaded).map(ResidentItem::there).collect()
            }
        })
    }

    fn unload(&self, id: &str) -> Result<luna_unloaded> {
        let gone = || Error::new(ErrorKind::NotFound, "the model has just left the memory");
        match &self.place {
            Place::Here(embedded) => match embedded.registry.unload(embedded.find(id)?) {
                Unloaded::Freed => Ok(luna_unloaded::Freed),
                Unloaded::WhenReturned(_) => Ok(luna_unloaded::WhenReturned),
                _ => Err(gone().into()),
            },
            Place::There(daemon) => {
                let told = daemon.client.unload_models(&[id.to_owned()])?;
                Ok(if told.freed.is_empty() { luna_unloaded::WhenReturned } else { luna_unloaded::Freed })
            }
        }
    }
}

struct ResidentItem {
    id: CString,
    path: CString,
    bytes: u64,
    leases: u64,
    pinned: bool,
}

impl ResidentItem {
    fn here(resident: &Resident) -> Self {
        Self {
            id: c_string(&resident.id.to_string()),
            path: c_string(&resident.path.to_string_lossy()),
            bytes: resident.bytes,
            leases: resident.leases as u64,
            pinned: resident.pinned,
        }
    }

    fn there(model: &ModelInfo) -> Self {
        Self {
            id: c_string(&model.model_id),
            path: c_string(model.path.as_deref().unwrap_or(&model.name)),
            bytes: model.bytes,
            leases: model.leases as u64,
            pinned: false,
        }
    }
}

impl Item for ResidentItem {
    type Record = luna_resident;

    fn record(&self) -> luna_resident {
        luna_resident {
            size: 0,
            id: self.id.as_ptr(),
            path: self.path.as_ptr(),
            bytes: self.bytes,
            leases: self.leases,
            pinned: self.pinned.into(),
            reserved: 0,
        }
    }
}

/// Opens a session. NULL for the options stands for zeros.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_open(options: *const luna_open_options, session: *mut luna_session) -> luna_status {
    boundary(|caller| {
        let place = caller.output("session", session)?;
        place.put(table::insert(Session::open(caller, options)?));
        Ok(())
    })
}

/// Connects to a daemon: the same handle, and the same functions on the daemon's models. `address` is such as
/// `127.0.0.1:19283`, or NULL for that. `options` may be NULL. Paths are read by the daemon where it may, and are sent
/// where it may not; a name that the daemon knows stands before a path. What a daemon does not do is
/// `LUNA_STATUS_UNSUPPORTED`: pinning, trimming, lists of save jobs and of LoRAs, folders of textual inversions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_connect(
    address: *const c_char,
    options: *const luna_connect_options,
    session: *mut luna_session,
) -> luna_status {
    boundary(|caller| {
        let place = caller.output("session", session)?;
        place.put(table::insert(Session::connect(caller, address, options)?));
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
        place.put(object::<Session>(session)?.stats()?);
        Ok(())
    })
}

/// Lists the models in memory, least recently used first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_list_residents(session: luna_session, list: *mut luna_list) -> luna_status {
    boundary(|caller| {
        let place = caller.output("list", list)?;
        place.put(list::open(object::<Session>(session)?.residents()?));
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
        let embedded = session.here("pinning")?;
        if embedded.registry.pin(embedded.find(id)?, yes(pinned)) {
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
        let fate = session.unload(id)?;
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
        object::<Session>(session)?.here("trimming")?.trim();
        Ok(())
    })
}

/// A text that must not be empty.
pub(crate) fn not_empty<'a>(what: &str, text: &'a str) -> Result<&'a str> {
    if text.is_empty() { Err(wrong(format!("{what} is empty")).into()) } else { Ok(text) }
}
