//! Deadlines of requests. Enters: jobs and moments. Leaves: jobs cancelled when their moment has come.

use super::{Daemon, job::Job};
use luna_core::{Error, Result, protocol::Reason};
use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

/// How often the watch looks whether its daemon is still there.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Default)]
pub struct Deadlines {
    jobs: Mutex<Jobs>,
    changed: Condvar,
}

#[derive(Default)]
struct Jobs {
    by_moment: BTreeMap<(Instant, u64), Weak<Job>>,
    added: u64,
}

impl Deadlines {
    pub fn add(&self, moment: Instant, job: &Arc<Job>) {
        let mut jobs = self.lock();
        jobs.added += 1;
        let number = jobs.added;
        jobs.by_moment.insert((moment, number), Arc::downgrade(job));
        self.changed.notify_all();
    }

    /// Waits for a while, or until a moment has come, and takes out the jobs whose moment that is.
    fn wait(&self) -> Vec<Arc<Job>> {
        let jobs = self.lock();
        let now = Instant::now();
        let next = jobs.by_moment.keys().next().map_or(LOOK, |(moment, _)| moment.saturating_duration_since(now));
        let pause = next.min(LOOK);
        let mut jobs = self.changed.wait_timeout(jobs, pause).unwrap_or_else(PoisonError::into_inner).0;
        let now = Instant::now();
        jobs.by_moment.retain(|_, job| job.strong_count() > 0);
        let mut due = Vec::new();
        while let Some(entry) = jobs.by_moment.first_entry().filter(|entry| entry.key().0 <= now) {
            due.extend(entry.remove().upgrade());
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the watch, which ends with its daemon.
pub fn watch(daemon: &Arc<Daemon>) -> Result<()> {
    let daemon = Arc::downgrade(daemon);
    let watch = move || {
        while let Some(daemon) = daemon.upgrade() {
            for job in daemon.deadlines.wait() {
                job.cancel(&daemon, Some(Reason::Deadline));
            }
        }
    };
    let started = thread::Builder::new().name("luna-deadlines".to_owned()).spawn(watch);
    started.map(drop).map_err(|error| Error::io("start a thread", error))
}
