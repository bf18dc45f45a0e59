//! The book of jobs: every picture's fate from the moment its job is taken in. Enters: fates. Leaves: statuses, for
//! those who ask and those who wait. It does no work and keeps finished jobs for a bounded time and number.

use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::status::{Fate, JobId, JobStatus, SaveCounters};
use crate::{CancelToken, Error, ErrorKind, Result};

/// Called once with the final status.
pub(super) type Callback = Box<dyn FnOnce(&JobStatus) + Send>;

pub(super) struct Ledger {
    book: Mutex<Book>,
    /// Told whenever a job is finished.
    finished: Condvar,
    keep: usize,
    keep_for: Duration,
}

#[derive(Default)]
struct Book {
    jobs: HashMap<JobId, Entry>,
    counters: SaveCounters,
}

struct Entry {
    status: JobStatus,
    cancel: CancelToken,
    callback: Option<Callback>,
    finished: Option<Instant>,
}

impl Ledger {
    pub(super) fn new(keep: usize, keep_for: Duration) -> Self {
        Self { book: Mutex::default(), finished: Condvar::new(), keep, keep_for }
    }

    /// Nothing that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an entry; finished ones that are too old or too many go.
    pub(super) fn open(&self, status: JobStatus, callback: Option<Callback>) -> CancelToken {
        let cancel = CancelToken::new();
        let mut book = self.lock();
        self.prune(&mut book);
        book.counters.jobs += 1;
        let entry = Entry { status, cancel: cancel.clone(), callback, finished: None };
        book.jobs.insert(entry.status.id, entry);
        cancel
    }

    /// Takes back an entry whose job was refused after all.
    pub(super) fn withdraw(&self, id: JobId) {
        let mut book = self.lock();
        book.jobs.remove(&id);
        book.counters.jobs -= 1;
    }

    fn prune(&self, book: &mut Book) {
        let mut finished: Vec<(Instant, JobId)> =
            book.jobs.iter().filter_map(|(id, entry)| Some((entry.finished?, *id))).collect();
        finished.sort_unstable();
        let surplus = finished.len().saturating_sub(self.keep);
        for (index, (since, id)) in finished.into_iter().enumerate() {
            if index < surplus || since.elapsed() > self.keep_for {
                book.jobs.remove(&id);
            }
        }
    }

    /// Writes down a fate; with the last one the job is finished, and its status is returned with its callback.
    pub(super) fn settle(&self, id: JobId, picture: usize, fate: Fate) -> Option<(JobStatus, Option<Callback>)> {
        let mut book = self.lock();
        count(&mut book.counters, &fate);
        let entry = book.jobs.get_mut(&id)?;
        entry.status.pictures[picture].fate = fate;
        if !entry.status.state().is_final() || entry.finished.is_some() {
            return None;
        }
        entry.finished = Some(Instant::now());
        let told = (entry.status.clone(), entry.callback.take());
        book.counters.jobs_finished += 1;
        self.prune(&mut book);
        drop(book);
        self.finished.notify_all();
        Some(told)
    }

    /// Opens a finished job's failed pictures again; `false` if it is not finished.
    pub(super) fn reopen(&self, id: JobId) -> Result<bool> {
        let mut book = self.lock();
        let entry = book.jobs.get_mut(&id).ok_or_else(|| unknown(id))?;
        if entry.finished.take().is_none() {
            return Ok(false);
        }
        for picture in &mut entry.status.pictures {
            if matches!(picture.fate, Fate::Failed(_)) {
                picture.fate = Fate::Waiting;
            }
        }
        book.counters.jobs_finished -= 1;
        Ok(true)
    }

    pub(super) fn begin(&self, id: JobId, picture: usize) {
        if let Some(entry) = self.lock().jobs.get_mut(&id) {
            entry.status.pictures[picture].fate = Fate::Writing;
        }
    }

    pub(super) fn status(&self, id: JobId) -> Result<JobStatus> {
        self.lock().jobs.get(&id).map(|entry| entry.status.clone()).ok_or_else(|| unknown(id))
    }

    /// Waits until the job is finished or the time is over, and returns its status either way.
    pub(super) fn wait(&self, id: JobId, timeout: Option<Duration>) -> Result<JobStatus> {
        let start = Instant::now();
        let mut book = self.lock();
        loop {
            let entry = book.jobs.get(&id).ok_or_else(|| unknown(id))?;
            if entry.finished.is_some() {
                return Ok(entry.status.clone());
            }
            book = match timeout.map(|timeout| timeout.saturating_sub(start.elapsed())) {
                Some(Duration::ZERO) => return Ok(entry.status.clone()),
                Some(left) => self.finished.wait_timeout(book, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.finished.wait(book).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Every job it knows, the latest first.
    pub(super) fn list(&self) -> Vec<JobStatus> {
        let mut book = self.lock();
        self.prune(&mut book);
        let mut all: Vec<_> = book.jobs.values().map(|entry| entry.status.clone()).collect();
        all.sort_by_key(|status| std::cmp::Reverse((status.submitted, status.id)));
        all
    }

    pub(super) fn cancel(&self, id: JobId) -> Result<()> {
        let token = self.lock().jobs.get(&id).map(|entry| entry.cancel.clone()).ok_or_else(|| unknown(id))?;
        token.cancel();
        Ok(())
    }

    pub(super) fn cancel_all(&self) {
        for entry in self.lock().jobs.values() {
            entry.cancel.cancel();
        }
    }

    /// Forgets a finished job.
    pub(super) fn forget(&self, id: JobId) -> Result<()> {
        let mut book = self.lock();
        match book.jobs.get(&id).ok_or_else(|| unknown(id))?.finished {
            Some(_) => drop(book.jobs.remove(&id)),
            None => {
                return Err(Error::new(ErrorKind::InvalidInput, format!("job {id} is not finished"))
                    .remedy("wait for it or cancel it first"));
            }
        }
        Ok(())
    }

    pub(super) fn token(&self, id: JobId) -> Result<CancelToken> {
        self.lock().jobs.get(&id).map(|entry| entry.cancel.clone()).ok_or_else(|| unknown(id))
    }

    pub(super) fn counters(&self) -> SaveCounters {
        self.lock().counters
    }

    pub(super) fn count_retry(&self) {
        self.lock().counters.retries += 1;
    }
}

fn count(counters: &mut SaveCounters, fate: &Fate) {
    match fate {
        Fate::Written(file) => {
            counters.written += 1;
            counters.bytes_written += file.bytes;
        }
        Fate::Rejected { kept, .. } => {
            counters.rejected += 1;
            counters.bytes_written += kept.as_ref().map_or(0, |file| file.bytes);
        }
        Fate::Failed(_) => counters.failed += 1,
        Fate::Cancelled => counters.cancelled += 1,
        Fate::Waiting | Fate::Writing => {}
    }
}

fn unknown(id: JobId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no job {id}")).remedy("finished jobs are kept for a while only")
}
