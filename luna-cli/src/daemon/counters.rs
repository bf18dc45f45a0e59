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
pub const BUCKETS_MS: [f64; 21] = [
    0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 10e3, 20e3, 60e3, 120e3,
    300e3,
];

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
    pub latency: Histogram,
}

impl CommandCounters {
    /// How requests ended, each of them in one way.
    pub fn outcomes(&self) -> [(&'static str, u64); 4] {
        let done = self.requests - self.errors - self.busy - self.cancelled;
        [("ok", done), ("error", self.errors), ("busy", self.busy), ("cancelled", self.cancelled)]
    }
}

/// How many fell into each of [`BUCKETS_MS`]; the last has no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Histogram([u64; BUCKETS_MS.len() + 1]);

impl Histogram {
    fn count(&mut self, milliseconds: f64) {
        let bucket = BUCKETS_MS.iter().position(|&bound| milliseconds <= bound).unwrap_or(BUCKETS_MS.len());
        self.0[bucket] += 1;
    }

    /// What fell into the buckets, in order.
    pub fn buckets(&self) -> &[u64] {
        &self.0
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// What has been counted since an earlier moment.
    pub fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|bucket| self.0[bucket].saturating_sub(earlier.0[bucket])))
    }

    /// The time within which this part (0..1) of all fell, in milliseconds, supposing that each bucket is filled evenly.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let wanted = part * self.total() as f64;
        let mut below = 0;
        for (bucket, &count) in self.0.iter().enumerate() {
            if count > 0 && (below + count) as f64 >= wanted {
                let least = if bucket == 0 { 0.0 } else { BUCKETS_MS[bucket - 1] };
                // Of what lies beyond the last bound no more is known.
                let most = BUCKETS_MS.get(bucket).copied().unwrap_or(least);
                return Some(least + (most - least) * ((wanted - below as f64) / count as f64).clamp(0.0, 1.0));
            }
            below += count;
        }
        None
    }
}

/// All commands together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    pub requests: u64,
    pub errors: u64,
    pub busy: u64,
    /// Times of what workers did: what is answered at once would hide it.
    pub work: Histogram,
}

#[derive(Default)]
pub struct Counters(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    commands: BTreeMap<&'static str, CommandCounters>,
    work: Histogram,
}

impl Counters {
    pub fn count(
        &self,
        command: &'static str,
        [queue_ms, compute_ms]: [f64; 2],
        fallbacks: usize,
        fault: Option<&Fault>,
    ) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = queue_ms + compute_ms;
        // What no worker does never waits.
        if queue_ms > 0.0 {
            counted.work.count(whole);
        }
        let counters = counted.commands.entry(command).or_default();
        counters.requests += 1;
        counters.queue_ms += queue_ms;
        counters.compute_ms += compute_ms;
        counters.fallbacks += fallbacks as u64;
        counters.latency.count(whole);
        match fault.map(|fault| (fault.kind(), fault.reason)) {
            None => {}
            Some((ErrorKind::Busy, _)) => counters.busy += 1,
            Some((ErrorKind::Cancelled, _) | (_, Some(Reason::Deadline))) => counters.cancelled += 1,
            Some(_) => counters.errors += 1,
        }
    }

    pub fn of_commands(&self) -> BTreeMap<&'static str, CommandCounters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).commands.clone()
    }

    pub fn totals(&self) -> Totals {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = Totals { work: counted.work, ..Totals::default() };
        for counters in counted.commands.values() {
            totals.requests += counters.requests;
            totals.errors += counters.errors;
            totals.busy += counters.busy;
        }
        totals
    }

    /// Requests answered, of all commands.
    pub fn requests(&self) -> u64 {
        self.totals().requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for _ in 0..90 {
            histogram.count(7.0);
        }
        let earlier = histogram;
        for _ in 0..10 {
            histogram.count(150.0);
        }
        let (median, high) = (histogram.quantile(0.5).unwrap(), histogram.quantile(0.99).unwrap());
        assert!((5.0..=10.0).contains(&median) && (100.0..=200.0).contains(&high), "{median} {high}");
        assert_eq!(histogram.since(&earlier).total(), 10);
        assert!(histogram.since(&earlier).quantile(0.01).unwrap() >= 100.0);
        histogram.count(1e9);
        assert_eq!(histogram.quantile(1.0), BUCKETS_MS.last().copied());
    }

    #[test]
    fn what_is_answered_at_once_is_no_work() {
        let counters = Counters::default();
        counters.count("ping", [0.0, 0.01], 0, None);
        counters.count("vae_encode", [0.2, 12.0], 1, None);
        let busy = Fault::from(luna_core::Error::new(ErrorKind::Busy, "full"));
        counters.count("vae_encode", [0.0, 0.0], 0, Some(&busy));
        let totals = counters.totals();
        assert_eq!((totals.requests, totals.busy, totals.errors, totals.work.total()), (3, 1, 0, 1));
        let encode = &counters.of_commands()["vae_encode"];
        assert_eq!((encode.requests, encode.fallbacks, encode.latency.total()), (2, 1, 2));
    }
}
