//! The daemon: one copy of each model for every process on the machine. Enters: settings. Leaves: a server that speaks
//! `luna_core::protocol`, and beside it one for those who watch. It prints nothing
//! and reads no environment.
//!
//! A connection has a thread that reads requests and one that writes answers. What is quick is answered by the reader;
//! all else becomes a [`job::Job`] in the queue of the pool whose cost it has.
// A fault is made once a request, and only where something went wrong: a box for it would be noise.
#![allow(clippy::result_large_err)]

mod clients;
mod connection;
pub mod convert;
mod counters;
mod deadlines;
mod events;
mod handlers;
mod job;
mod listener;
mod loras;
mod models;
mod near;
mod outbox;
mod pools;
mod reply;
mod roots;
mod saves;
mod status;
mod watch;

#[cfg(test)]
mod tests;

pub use listener::Running;
pub use watch::Watch;

use crate::settings::DaemonSettings;
use clients::Clients;
use counters::Counters;
use deadlines::Deadlines;
use events::Events;
use loras::Loras;
use luna_core::{
    Result, Runtime,
    diffusion::FirstBlockCache,
    registry::Registry,
    text::{ConditioningCache, EmbeddingFolders},
    tokenizer::ClipTokenizer,
};
use models::Models;
use pools::Pools;
use roots::Roots;
use saves::Saves;
use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};
use watch::Gpus;

/// What samplings may leave behind for their next step, all clients' together.
const FIRST_BLOCK_BYTES: usize = 512 << 20;

/// What all connections and workers share.
pub struct Daemon {
    settings: DaemonSettings,
    runtime: Runtime,
    registry: Registry,
    models: Models,
    roots: Roots,
    embeddings: Option<EmbeddingFolders>,
    conditionings: ConditioningCache,
    /// CLIP's vocabulary, once it is asked for without a model.
    clip_tokenizer: OnceLock<Arc<ClipTokenizer>>,
    loras: Loras,
    first_blocks: FirstBlockCache,
    saves: Saves,
    pools: Pools,
    clients: Clients,
    counters: Counters,
    deadlines: Deadlines,
    events: Arc<Events>,
    gpus: Gpus,
    /// Where it can be watched, once it can.
    watched_at: OnceLock<SocketAddr>,
    /// The name of its door for clients on this machine, once there is one.
    near: OnceLock<String>,
    started: Instant,
    draining: AtomicBool,
}

impl Daemon {
    /// Starts the workers. Nothing listens yet.
    ///
    /// # Errors
    /// As `Runtime::new`; `InvalidInput` for impossible limits, `NotFound` for a root that is missing.
    pub fn new(settings: DaemonSettings) -> Result<Arc<Self>> {
        let events = Arc::new(Events::default());
        let daemon = Arc::new(Self {
            runtime: Runtime::new(settings.compute.device, settings.compute.threads)?,
            registry: Registry::new(settings.model_bytes),
            models: Models::default(),
            roots: Roots::new(&settings.model_roots)?,
            embeddings: match settings.embeddings.is_empty() {
                true => None,
                false => Some(EmbeddingFolders::new(&settings.embeddings)?),
            },
            conditionings: ConditioningCache::new(settings.conditioning_bytes),
            clip_tokenizer: OnceLock::new(),
            loras: Loras::new(&settings)?,
            first_blocks: FirstBlockCache::new(FIRST_BLOCK_BYTES),
            saves: Saves::new(&settings, &events)?,
            pools: Pools::new(&settings, &events)?,
            clients: Clients::new(settings.client_bytes),
            counters: Counters::default(),
            deadlines: Deadlines::default(),
            events,
            gpus: Gpus::find(),
            watched_at: OnceLock::new(),
            near: OnceLock::new(),
            started: Instant::now(),
            draining: AtomicBool::new(false),
            settings,
        });
        deadlines::watch(&daemon)?;
        Ok(daemon)
    }

    /// What requests of a client that say nothing get.
    fn defaults(&self, client: &clients::Client) -> convert::Defaults {
        convert::Defaults { precision: self.settings.compute.precision, attention: client.attention() }
    }

    /// Gives a model a name before anybody asks for it. Its path is the owner's and need not lie below a root.
    ///
    /// # Errors
    /// As `Checkpoint::open`.
    pub fn register(&self, path: &std::path::Path, name: Option<&str>) -> Result<()> {
        let real =
            path.canonicalize().map_err(|error| luna_core::Error::io(format!("open {}", path.display()), error))?;
        self.register_path(&real, name, models::Reading::default()).map(drop).map_err(luna_core::Error::from)
    }

    /// Takes no new work from now on; what was accepted is finished.
    pub fn drain(&self) {
        if !self.draining.swap(true, Ordering::SeqCst) {
            self.events.tell(events::DaemonEvent::Draining);
        }
    }

    /// Whether it takes no new work.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }
}
