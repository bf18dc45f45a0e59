//! The pools of workers, by cost. Enters: settings. Leaves: pools and their bounds. A worker is a thread; models and the
//! threads that compute are shared by all.

use super::events::{DaemonEvent, Events, Scaled};
use crate::settings::DaemonSettings;
use luna_core::{
    Result,
    pool::{Pool, Scaling},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A pool, by the cost of what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PoolKind {
    /// Opening and reading model files.
    Load,
    Text,
    Vae,
    Vision,
    Diffusion,
}

impl PoolKind {
    pub const ALL: [Self; 5] = [Self::Load, Self::Text, Self::Vae, Self::Vision, Self::Diffusion];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Text => "text",
            Self::Vae => "vae",
            Self::Vision => "vision",
            Self::Diffusion => "diffusion",
        }
    }

    /// The least that a rough request of this kind needs beyond its model, below which no further worker starts.
    const fn memory(self) -> u64 {
        match self {
            Self::Load => 0,
            Self::Text | Self::Vision => 256 << 20,
            Self::Vae | Self::Diffusion => 1 << 30,
        }
    }
}

/// All of them.
pub struct Pools {
    pools: Vec<Pool>,
    working: AtomicU64,
}

/// A request that a worker is at, until its answer is handed over.
pub struct Working<'a>(&'a AtomicU64);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Pools {
    pub fn new(settings: &DaemonSettings, events: &Arc<Events>) -> Result<Self> {
        let start = |kind: PoolKind| {
            let bounds = settings.pools.get(kind.name());
            let mut scaling = Scaling::default();
            (scaling.threads, scaling.idle, scaling.memory) = (bounds.workers.clone(), settings.idle, kind.memory());
            let events = events.clone();
            Pool::new(kind.name(), scaling, bounds.queue, move |scaled| {
                let (up, worker, workers) = (scaled.to > scaled.from, scaled.worker, scaled.to);
                events.tell(DaemonEvent::Scaled(Scaled { pool: kind.name(), up, worker, workers }));
            })
        };
        let pools = PoolKind::ALL.into_iter().map(start).collect::<Result<_>>()?;
        Ok(Self { pools, working: AtomicU64::new(0) })
    }

    pub fn get(&self, kind: PoolKind) -> &Pool {
        &self.pools[kind as usize]
    }

    /// Milliseconds after which a refused request may find room: a rough half of what the queue holds now.
    pub fn retry_hint(&self, kind: PoolKind) -> u64 {
        let counters = self.get(kind).counters();
        (20 * (counters.waiting as u64 + 1) / counters.threads.max(1) as u64).clamp(20, 2_000)
    }

    /// Requests that wait or run.
    pub fn under_way(&self) -> u64 {
        // A request leaves its queue before its answer is handed over: look there first.
        let waiting: u64 = self.pools.iter().map(|pool| pool.counters().weight).sum();
        waiting + self.working.load(Ordering::SeqCst)
    }

    /// Counts a request that a worker is at.
    pub fn working(&self) -> Working<'_> {
        self.working.fetch_add(1, Ordering::SeqCst);
        Working(&self.working)
    }
}
