//! The daemon's state at a moment, cheap to take. Enters: nothing. Leaves: models, pools, queues, counters, memory, clients.

use super::{Daemon, counters::CommandCounters, pools::PoolKind, watch::GpuSnapshot};
use luna_core::{
    Device, memory,
    protocol::{LoraStats, ModelInfo},
    save::SavePool,
};
use serde::Serialize;
use std::{collections::BTreeMap, net::SocketAddr};

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
    /// Where it can be watched.
    pub watch: Option<SocketAddr>,
    pub connections: usize,
    pub clients: Vec<ClientSnapshot>,
    pub memory: MemorySnapshot,
    /// NVIDIA GPUs of this machine, whether the daemon uses them or not.
    pub gpus: Vec<GpuSnapshot>,
    /// The one that it computes on.
    #[serde(skip)]
    pub gpu: Option<u32>,
    pub pools: Vec<PoolSnapshot>,
    /// Save jobs, where there is an output folder.
    pub saves: Option<SaveSnapshot>,
    pub loras: LoraStats,
    pub models: Vec<ModelInfo>,
    pub commands: BTreeMap<&'static str, CommandSnapshot>,
}

/// A command.
#[derive(Debug, Clone, Serialize)]
pub struct CommandSnapshot {
    #[serde(flatten)]
    pub counters: CommandCounters,
    /// Times within which half, and 19 of 20, of its requests were answered, since the start.
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
}

/// Bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MemorySnapshot {
    pub resident: Option<u64>,
    pub peak_resident: Option<u64>,
    pub available: Option<u64>,
    /// Of the system, or of the container.
    pub total: Option<u64>,
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

/// What became of clients' pictures.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SaveSnapshot {
    pub jobs: u64,
    pub jobs_finished: u64,
    pub written: u64,
    pub rejected: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub retries: u64,
    pub bytes_written: u64,
    /// Bytes of pixels that wait or are worked on.
    pub queue_bytes: u64,
}

impl SaveSnapshot {
    fn of(pool: &SavePool) -> Self {
        let counters = pool.counters();
        Self {
            jobs: counters.jobs,
            jobs_finished: counters.jobs_finished,
            written: counters.written,
            rejected: counters.rejected,
            failed: counters.failed,
            cancelled: counters.cancelled,
            retries: counters.retries,
            bytes_written: counters.bytes_written,
            queue_bytes: counters.pool.weight,
        }
    }
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

impl Snapshot {
    /// Bytes in use and in all where models are computed: of the GPU by all processes, or of this process and the system.
    pub fn device_memory(&self) -> (Option<u64>, Option<u64>) {
        match self.gpu {
            None => (self.memory.resident, self.memory.total),
            Some(index) => {
                let gpu = self.gpus.iter().find(|gpu| gpu.index == index);
                (gpu.map(|gpu| gpu.used), gpu.map(|gpu| gpu.total))
            }
        }
    }
}

impl Daemon {
    /// The GPU that it computes on, as the driver counts them.
    fn gpu(&self) -> Option<u32> {
        match self.settings.compute.device {
            Device::Cuda(ordinal) => u32::try_from(ordinal).ok(),
            _ => None,
        }
    }

    /// Bytes that are free where models are computed.
    pub fn memory_available(&self) -> Option<u64> {
        match self.gpu() {
            None => memory::available(),
            Some(index) => self.gpus.snapshots().into_iter().find(|gpu| gpu.index == index).map(|gpu| gpu.free),
        }
    }

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
            watch: self.watched_at.get().copied(),
            connections: self.clients.connections(),
            clients,
            memory: MemorySnapshot {
                resident: memory::resident(),
                peak_resident: memory::peak_resident(),
                available: memory::available(),
                total: memory::total(),
                models: self.registry.bytes(),
                models_budget: self.settings.model_bytes,
            },
            gpus: self.gpus.snapshots(),
            gpu: self.gpu(),
            pools: PoolKind::ALL
                .into_iter()
                .map(|kind| self.pool_snapshot(kind))
                .chain([self.save_pool_snapshot()])
                .collect(),
            saves: self.saves.pool().map(SaveSnapshot::of),
            loras: self.loras.stats(),
            models: self.models(),
            commands: self.commands_snapshot(),
        }
    }

    fn commands_snapshot(&self) -> BTreeMap<&'static str, CommandSnapshot> {
        let commands = self.counters.of_commands().into_iter().map(|(name, counters)| {
            let (p50_ms, p95_ms) = (counters.latency.quantile(0.5), counters.latency.quantile(0.95));
            (name, CommandSnapshot { counters, p50_ms, p95_ms })
        });
        commands.collect()
    }

    /// The saver's threads. Its queue is bounded in bytes, not in jobs.
    fn save_pool_snapshot(&self) -> PoolSnapshot {
        let bounds = self.settings.pools.get("save");
        let counters = self.saves.pool().map(|pool| pool.counters().pool).unwrap_or_default();
        PoolSnapshot {
            name: "save",
            active_workers: counters.threads,
            busy_workers: counters.busy,
            min_workers: *bounds.workers.start(),
            max_workers: *bounds.workers.end(),
            worker_ids: (0..counters.threads).collect(),
            queue_depth: counters.waiting,
            queue_bound: bounds.queue,
            total_requests: counters.finished,
            refused: counters.refused,
            panicked: counters.panicked,
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
