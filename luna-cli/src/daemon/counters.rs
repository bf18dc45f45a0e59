//! How often each command was asked, how it ended and how long it took. Enters: answers. Leaves: numbers.

use luna_core::{
    ErrorKind,
    protocol::{Fault, Reason},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Upper bounds of the latency buckets in milliseconds; a last one has no bound.
pub const BUCKETS_MS: [f64; 13] =
    [0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 5_000.0, 10_000.0, 60_000.0, 300_000.0];

/// The counters of one command.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct CommandCounters {
    /// Requests answered.
    pub requests: u64,
    /// Those among them that failed, but for the following.
    pub errors: u64,
    /// Refused because too much waited.
    pub busy: u64,
    /// Cancelled, by the client or by a deadline.
    pub cancelled: u64,
    /// Done otherwise than asked for.
    pub fallbacks: u64,
    /// Sum of the times that requests waited.
    pub queue_ms: f64,
    /// Sum of the times that requests were worked on.
    pub compute_ms: f64,
    /// Requests whose whole time was within each of [`BUCKETS_MS`] and no earlier one; the last has no bound.
    pub latency: [u64; BUCKETS_MS.len() + 1],
}

#[derive(Default)]
pub struct Counters(Mutex<BTreeMap<&'static str, CommandCounters>>);

impl Counters {
    pub fn count(
        &self,
        command: &'static str,
        [queue_ms, compute_ms]: [f64; 2],
        fallbacks: usize,
        fault: Option<&Fault>,
    ) {
        let mut commands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counters = commands.entry(command).or_default();
        counters.requests += 1;
        counters.queue_ms += queue_ms;
        counters.compute_ms += compute_ms;
        counters.fallbacks += fallbacks as u64;
        let whole = queue_ms + compute_ms;
        counters.latency[BUCKETS_MS.iter().position(|&bound| whole <= bound).unwrap_or(BUCKETS_MS.len())] += 1;
        match fault.map(|fault| (fault.kind(), fault.reason)) {
            None => {}
            Some((ErrorKind::Busy, _)) => counters.busy += 1,
            Some((ErrorKind::Cancelled, _) | (_, Some(Reason::Deadline))) => counters.cancelled += 1,
            Some(_) => counters.errors += 1,
        }
    }

    pub fn of_commands(&self) -> BTreeMap<&'static str, CommandCounters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests answered, of all commands.
    pub fn requests(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(|counters| counters.requests).sum()
    }
}
