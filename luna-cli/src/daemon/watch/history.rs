//! The last minutes, second by second. Enters: snapshots and counters. Leaves: samples, so that a page that is opened now
//! shows what came before.

use super::messages::Scaling;
use crate::daemon::{counters::Totals, status::Snapshot};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

/// Samples kept: five minutes.
const SAMPLES: usize = 300;
/// Comings and goings of workers kept.
const SCALINGS: usize = 100;

/// One second.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Seconds since 1970.
    pub time: f64,
    /// Bytes.
    pub resident: Option<u64>,
    pub models: u64,
    pub gpus_used: Vec<u64>,
    /// Requests answered in this second; those that failed and those told `busy` among them.
    pub requests: u64,
    pub errors: u64,
    pub busy: u64,
    /// Times of what workers finished in this second, waiting included; none if they finished nothing.
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub pools: Vec<PoolSample>,
}

/// A pool in one second.
#[derive(Debug, Clone, Serialize)]
pub struct PoolSample {
    pub name: &'static str,
    pub workers: usize,
    pub busy: usize,
    pub queue: usize,
}

impl Sample {
    pub fn new(time: f64, snapshot: &Snapshot, totals: &Totals, earlier: &Totals) -> Self {
        let work = totals.work.since(&earlier.work);
        Self {
            time,
            resident: snapshot.memory.resident,
            models: snapshot.memory.models,
            gpus_used: snapshot.gpus.iter().map(|gpu| gpu.used).collect(),
            requests: totals.requests.saturating_sub(earlier.requests),
            errors: totals.errors.saturating_sub(earlier.errors),
            busy: totals.busy.saturating_sub(earlier.busy),
            p50_ms: work.quantile(0.5),
            p95_ms: work.quantile(0.95),
            pools: snapshot
                .pools
                .iter()
                .map(|pool| PoolSample {
                    name: pool.name,
                    workers: pool.active_workers,
                    busy: pool.busy_workers,
                    queue: pool.queue_depth,
                })
                .collect(),
        }
    }
}

#[derive(Default)]
pub struct History {
    samples: VecDeque<Sample>,
    scalings: VecDeque<Scaling>,
    /// Workers' comings and goings by pool and direction, since the start.
    pub scaled: BTreeMap<(&'static str, &'static str), u64>,
    totals: Totals,
}

impl History {
    pub fn add(&mut self, sample: Sample, totals: Totals) {
        self.samples.push_back(sample);
        self.samples.drain(..self.samples.len().saturating_sub(SAMPLES));
        self.totals = totals;
    }

    pub fn add_scaling(&mut self, scaling: Scaling) {
        *self.scaled.entry((scaling.pool, scaling.event)).or_default() += 1;
        self.scalings.push_back(scaling);
        self.scalings.drain(..self.scalings.len().saturating_sub(SCALINGS));
    }

    /// The counters at the last sample.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    pub fn last(&self) -> Option<&Sample> {
        self.samples.back()
    }

    pub fn samples(&self) -> &VecDeque<Sample> {
        &self.samples
    }

    pub fn scalings(&self) -> &VecDeque<Scaling> {
        &self.scalings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_last_of_everything_and_counts_all() {
        let mut history = History::default();
        let sample = |time| Sample {
            time,
            resident: None,
            models: 0,
            gpus_used: Vec::new(),
            requests: 0,
            errors: 0,
            busy: 0,
            p50_ms: None,
            p95_ms: None,
            pools: Vec::new(),
        };
        let scaled = crate::daemon::events::Scaled { pool: "text", up: true, worker: 1, workers: 2 };
        for second in 0..1000 {
            history.add(sample(f64::from(second)), Totals { requests: 7, ..Totals::default() });
            history.add_scaling(Scaling::new(scaled, None, f64::from(second)));
        }
        assert_eq!((history.samples().len(), history.samples()[0].time), (SAMPLES, 700.0));
        assert_eq!((history.scalings().len(), history.last().unwrap().time), (SCALINGS, 999.0));
        assert_eq!((history.scaled[&("clip", "scale_up")], history.totals().requests), (1000, 7));
    }
}
