//! The daemon's state at a moment, cheap to take. Enters: nothing. Leaves: models, pools, queues, counters, memory, clients.

use super::{Daemon, counters::CommandCounters, pools::PoolKind};
use luna_core::{memory, protocol::ModelInfo};
use serde::Serialize;
use std::collections::BTreeMap;

/// Everything that `get_status` tells and that those who watch show.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// `ok`, or `draining`.
    pub status: &'static str,
    pub version: &'static str,
    pub pid: u32,
    pub device: String,
    pub precision: String,
    pub threads: usize,
    pub uptime_seconds: f64,
    pub total_requests: u64,
    pub connections: usize,
    pub clients: Vec<ClientSnapshot>,
    pub memory: MemorySnapshot,
    pub pools: Vec<PoolSnapshot>,
    pub models: Vec<ModelInfo>,
    pub commands: BTreeMap<&'static str, CommandCounters>,
}

/// Bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MemorySnapshot {
    pub resident: Option<u64>,
    pub peak_resident: Option<u64>,
    pub available: Option<u64>,
    /// Weights of the models in memory.
    pub models: u64,
    /// The most that they may take.
    pub models_budget: u64,
}

/// A pool.
#[derive(Debug, Clone, Serialize)]
pub struct PoolSnapshot {
    #[serde(rename = "type")]
    pub name: &'static str,
    pub active_workers: usize,
    pub busy_workers: usize,
    pub min_workers: usize,
    pub max_workers: usize,
    pub worker_ids: Vec<usize>,
    pub queue_depth: usize,
    /// Requests that may wait or run at once.
    pub queue_bound: u64,
    pub total_requests: u64,
    pub refused: u64,
    pub panicked: u64,
}

/// A connection.
#[derive(Debug, Clone, Serialize)]
pub struct ClientSnapshot {
    pub connection: u64,
    pub name: String,
    /// Its requests that wait or run.
    pub under_way: usize,
    /// Bytes of requests and answers that its client has under way, on all its connections.
    pub bytes: u64,
}

impl Daemon {
    /// The state at this moment.
    pub fn snapshot(&self) -> Snapshot {
        let clients = self.clients.peers().into_iter().map(|peer| ClientSnapshot {
            connection: peer.number,
            name: peer.client().name.clone(),
            under_way: peer.jobs().len(),
            bytes: peer.client().bytes(),
        });
        let mut clients: Vec<_> = clients.collect();
        clients.sort_by_key(|client| client.connection);
        Snapshot {
            status: if self.is_draining() { "draining" } else { "ok" },
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            device: self.runtime.device().to_string(),
            precision: self.settings.compute.precision.to_string(),
            threads: self.runtime.threads(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            total_requests: self.counters.requests(),
            connections: self.clients.connections(),
            clients,
            memory: MemorySnapshot {
                resident: memory::resident(),
                peak_resident: memory::peak_resident(),
                available: memory::available(),
                models: self.registry.bytes(),
                models_budget: self.settings.model_bytes,
            },
            pools: PoolKind::ALL.into_iter().map(|kind| self.pool_snapshot(kind)).collect(),
            models: self.models(),
            commands: self.counters.of_commands(),
        }
    }

    fn pool_snapshot(&self, kind: PoolKind) -> PoolSnapshot {
        let pool = self.pools.get(kind);
        let counters = pool.counters();
        let workers = &pool.scaling().threads;
        PoolSnapshot {
            name: kind.name(),
            active_workers: counters.threads,
            busy_workers: counters.busy,
            min_workers: *workers.start(),
            max_workers: *workers.end(),
            worker_ids: pool.workers(),
            queue_depth: counters.waiting,
            queue_bound: self.settings.pools.get(kind.name()).queue,
            total_requests: counters.finished,
            refused: counters.refused,
            panicked: counters.panicked,
        }
    }
}
