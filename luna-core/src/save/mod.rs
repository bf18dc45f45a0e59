//! Pictures saved in the background, and every fate known. Enters: jobs of pictures. Leaves: files below one output
//! folder or store prefix, and for each picture where it went or why not. It knows no model and no caller.
//!
//! ```
//! use luna_core::{picture::Format, save::{JobState, Picture, SaveConfig, SaveImage, SaveJob, SavePool, Template}};
//! # let folder = tempfile::tempdir()?;
//! # let output = folder.path();
//! let pool = SavePool::new(SaveConfig::new(output))?;
//! let pixels = Picture::from_u8([1, 2, 2, 3], vec![128; 12])?;
//! let mut job = SaveJob::new(vec![SaveImage::new(pixels, Format::PNG)]);
//! job.name = Template::parse("moon_%counter:3%")?;
//! let id = pool.submit(job)?;
//! assert_eq!(pool.wait(id, None)?.state(), JobState::Done);
//! assert!(output.join("moon_001.png").is_file());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod clock;
mod config;
mod gate;
mod job;
mod ledger;
mod name;
mod root;
mod spool;
mod status;
mod target;
mod template;
mod worker;

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    Error, ErrorKind, Result,
    pool::{Pool, Task},
};
pub use clock::Timestamp;
pub use config::{SaveConfig, SaveListener};
pub use gate::{Gate, GateMode, Rejects, Verdict};
pub use job::{Picture, SaveImage, SaveJob};
pub use status::{Fate, JobId, JobState, JobStatus, PictureStatus, SaveCounters, SaveEvent, Written};
pub use target::{StoreTarget, Target};
pub use template::{NameValues, Template};

use ledger::{Callback, Ledger};
use root::Root;
use spool::Spool;
use worker::{Work, can_pass};

/// Saves pictures in the background. Dropping it finishes what was handed in; see [`SavePool::cancel_all`].
pub struct SavePool {
    saver: Arc<Saver>,
    pool: Pool,
}

/// What the workers share.
struct Saver {
    root: Root,
    spool: Option<Spool>,
    ledger: Ledger,
    encoders: rayon::ThreadPool,
    retry_delays: Vec<Duration>,
    listener: Option<SaveListener>,
}

impl SavePool {
    /// Opens the output folder and the spool (a store is first asked when a picture is written), starts the threads, and goes on with the durable jobs that an earlier
    /// process left.
    ///
    /// # Errors
    /// `InvalidInput` for impossible settings, `Busy` if another process has the spool, `Io` with the system's reason.
    pub fn new(config: SaveConfig) -> Result<Self> {
        let spool = config.spool.as_deref().map(|folder| Spool::open(folder, config.queue_bytes)).transpose()?;
        let encoders = config.encoders.or_else(|| std::thread::available_parallelism().ok());
        let encoders = rayon::ThreadPoolBuilder::new()
            .num_threads(encoders.map_or(1, std::num::NonZeroUsize::get))
            .thread_name(|index| format!("luna-encode-{index}"))
            .build()
            .map_err(|error| Error::new(ErrorKind::Io, format!("cannot start threads: {error}")).source(error))?;
        let saver = Arc::new(Saver {
            root: Root::open(&config.root)?,
            spool,
            ledger: Ledger::new(config.keep_results, config.keep_results_for),
            encoders,
            retry_delays: config.retry_delays,
            listener: config.listener,
        });
        let theirs = Arc::downgrade(&saver);
        let pool = Pool::new("save", config.scaling, config.queue_bytes, move |scaled| {
            if let Some(saver) = theirs.upgrade() {
                saver.tell(&SaveEvent::Threads(scaled.from, scaled.to));
            }
        })?;
        let pool = Self { saver, pool };
        pool.recover()?;
        Ok(pool)
    }

    /// Takes a job in and returns its id. The pixels are moved, not copied; a durable job is on the disk on return.
    ///
    /// # Errors
    /// `InvalidInput` for anything in the job that could never be saved (nothing of it is saved then), `Busy` for a
    /// full queue if the job does not wait, `LimitExceeded` for more than the queue may ever hold, `Cancelled` once the
    /// pool is closing, `Io` if a durable job cannot be kept.
    pub fn submit(&self, job: SaveJob) -> Result<JobId> {
        self.take_in(job, None)
    }

    /// As [`SavePool::submit`]; `finished` is called once with the final status, from a thread of the pool.
    ///
    /// # Errors
    /// As [`SavePool::submit`]; `finished` is not called then.
    pub fn submit_then(&self, job: SaveJob, finished: impl FnOnce(&JobStatus) + Send + 'static) -> Result<JobId> {
        self.take_in(job, Some(Box::new(finished)))
    }

    fn take_in(&self, job: SaveJob, callback: Option<Callback>) -> Result<JobId> {
        let id = new_id();
        let plan = job.plan(&id.to_string())?;
        let spool = self.saver.spool.as_ref().filter(|_| job.durable);
        if job.durable && spool.is_none() {
            return Err(Error::new(ErrorKind::InvalidInput, "there is no spool for durable jobs")
                .remedy("give the pool a spool folder, or save without durability"));
        }
        let admission = self.pool.admit(job.bytes(), job.when_full)?;
        if let Some(spool) = spool {
            spool.add(id, &job)?;
        }
        let cancel = self.saver.ledger.open(new_status(id, &job, &plan), callback);
        let work = Arc::new(Work { id, job, plan, cancel, _admission: Some(admission) });
        // Told first, so that no one hears of an end before the beginning.
        self.saver.tell(&SaveEvent::Queued(id));
        let tasks = (0..work.plan.len()).map(|picture| {
            let (saver, work) = (Arc::clone(&self.saver), Arc::clone(&work));
            let task = move || {
                saver.ledger.begin(work.id, picture);
                let fate = saver.save(&work, picture, &[]);
                saver.settle(&work, picture, fate);
            };
            Box::new(task) as Task
        });
        if let Err(error) = self.pool.push(tasks) {
            self.saver.ledger.withdraw(id);
            if let Some(spool) = spool {
                spool.remove(id)?;
            }
            return Err(error);
        }
        Ok(id)
    }

    /// A job as it stands.
    ///
    /// # Errors
    /// `NotFound` for a job that was never there, or finished too long ago.
    pub fn status(&self, id: JobId) -> Result<JobStatus> {
        self.saver.ledger.status(id)
    }

    /// Waits until a job is finished, or for at most `timeout`, and returns it as it stands then.
    ///
    /// # Errors
    /// As [`SavePool::status`].
    pub fn wait(&self, id: JobId, timeout: Option<Duration>) -> Result<JobStatus> {
        self.saver.ledger.wait(id, timeout)
    }

    /// Every job that waits, is worked on or is still remembered, the latest first.
    pub fn list(&self) -> Vec<JobStatus> {
        self.saver.ledger.list()
    }

    /// Cancels what has not been written of a job.
    ///
    /// # Errors
    /// As [`SavePool::status`].
    pub fn cancel(&self, id: JobId) -> Result<()> {
        self.saver.ledger.cancel(id)
    }

    /// Cancels what has not been written of any job.
    pub fn cancel_all(&self) {
        self.saver.ledger.cancel_all();
    }

    /// Forgets a finished job. A durable one that failed is given up with that; else the next process tries it again.
    ///
    /// # Errors
    /// As [`SavePool::status`]; `InvalidInput` if it is not finished.
    pub fn forget(&self, id: JobId) -> Result<()> {
        self.saver.ledger.forget(id)?;
        match &self.saver.spool {
            Some(spool) => spool.remove(id),
            None => Ok(()),
        }
    }

    /// Tries the failed pictures of a durable job again, after the reason was removed.
    ///
    /// # Errors
    /// As [`SavePool::status`]; `InvalidInput` if it is not finished, or its pictures are kept no more.
    pub fn retry(&self, id: JobId) -> Result<()> {
        let status = self.status(id)?;
        let kept = self.saver.spool.as_ref().is_some_and(|spool| spool.list().is_ok_and(|ids| ids.contains(&id)));
        if status.state() != JobState::Failed || !kept {
            return Err(Error::new(ErrorKind::InvalidInput, format!("job {id} cannot be tried again"))
                .expected("a durable job that failed for a reason of the system's"));
        }
        if self.saver.ledger.reopen(id)? {
            self.go_on(id)?;
        }
        Ok(())
    }

    /// What it has done and is doing.
    pub fn counters(&self) -> SaveCounters {
        SaveCounters { pool: self.pool.counters(), ..self.saver.ledger.counters() }
    }

    /// Takes no more jobs, and returns when all are finished.
    pub fn close(&self) {
        self.pool.close();
    }

    /// Takes in what an earlier process left in the spool.
    fn recover(&self) -> Result<()> {
        let Some(spool) = &self.saver.spool else { return Ok(()) };
        for id in spool.list()? {
            match spool.describe(id).and_then(|job| Ok(new_status(id, &job, &job.plan(&id.to_string())?))) {
                Ok(status) => {
                    self.saver.ledger.open(status, None);
                    self.saver.tell(&SaveEvent::Queued(id));
                    self.go_on(id)?;
                }
                Err(error) if error.kind() == ErrorKind::Io => return Err(error),
                Err(error) => self.saver.put_aside(id, &Arc::new(error)),
            }
        }
        Ok(())
    }

    /// Queues a spooled job. It weighs nothing, as its pixels are read only when its turn has come.
    fn go_on(&self, id: JobId) -> Result<()> {
        let saver = Arc::clone(&self.saver);
        self.pool.push([Box::new(move || saver.go_on(id)) as Task])
    }
}

impl Saver {
    fn tell(&self, event: &SaveEvent) {
        if let Some(listener) = &self.listener {
            // A listener's panic is its own affair.
            let _ = catch_unwind(AssertUnwindSafe(|| listener(event)));
        }
    }

    /// Writes a fate down and tells of it; the job's last one ends the job.
    fn settle(&self, work: &Work, picture: usize, fate: Fate) {
        let told = self.listener.is_some().then(|| fate.clone());
        let finished = self.ledger.settle(work.id, picture, fate);
        if let (Some(fate), Ok(status)) = (told, self.ledger.status(work.id)) {
            let picture = PictureStatus { fate, ..status.pictures[picture].clone() };
            self.tell(&SaveEvent::Settled(work.id, picture));
        }
        let Some((status, callback)) = finished else { return };
        if let Some(spool) = self.spool.as_ref().filter(|_| work.job.durable && !may_be_tried_again(&status)) {
            // What is left in the spool then is found finished at the next start, and removed.
            let _ = spool.remove(work.id);
        }
        self.finished(status, callback);
    }

    /// Works off a spooled job, picture by picture.
    fn go_on(&self, id: JobId) {
        let Some(spool) = &self.spool else { return };
        let read = || {
            let job = spool.load(id)?;
            let plan = job.plan(&id.to_string())?;
            Ok((Work { id, job, plan, cancel: self.ledger.token(id)?, _admission: None }, spool.notes(id)?))
        };
        let (work, notes) = match read() {
            Ok(read) => read,
            Err(error) => return self.give_up(id, error),
        };
        let Ok(status) = self.ledger.status(id) else { return };
        for (picture, _) in status.pictures.iter().enumerate().filter(|(_, picture)| !picture.fate.is_final()) {
            self.ledger.begin(id, picture);
            let fate = self.save(&work, picture, &notes);
            self.settle(&work, picture, fate);
        }
    }

    /// A spooled job cannot be read: damaged ones are put aside, others stay for the next start.
    fn give_up(&self, id: JobId, error: Error) {
        let error = Arc::new(error);
        if error.kind() != ErrorKind::Io {
            self.put_aside(id, &error);
        }
        let Ok(status) = self.ledger.status(id) else { return };
        for (picture, _) in status.pictures.iter().enumerate().filter(|(_, picture)| !picture.fate.is_final()) {
            if let Some((status, callback)) = self.ledger.settle(id, picture, Fate::Failed(Arc::clone(&error))) {
                self.finished(status, callback);
            }
        }
    }

    fn put_aside(&self, id: JobId, error: &Arc<Error>) {
        if let Some(Ok(aside)) = self.spool.as_ref().map(|spool| spool.put_aside(id)) {
            self.tell(&SaveEvent::Damaged(aside, Arc::clone(error)));
        }
    }

    fn finished(&self, status: JobStatus, callback: Option<Callback>) {
        if let Some(callback) = callback {
            let _ = catch_unwind(AssertUnwindSafe(|| callback(&status)));
        }
        self.tell(&SaveEvent::Finished(status));
    }
}

/// Whether a failed picture may yet be saved, once the system's reason is gone.
fn may_be_tried_again(status: &JobStatus) -> bool {
    status.pictures.iter().any(|picture| match &picture.fate {
        Fate::Failed(error) => can_pass(error) || matches!(error.kind(), ErrorKind::Io | ErrorKind::OutOfMemory),
        _ => false,
    })
}

fn new_status(id: JobId, job: &SaveJob, plan: &[job::Planned]) -> JobStatus {
    let picture = |planned: &job::Planned| PictureStatus {
        image: planned.image,
        index: planned.index,
        affix: job.images[planned.image].affix.clone(),
        fate: Fate::Waiting,
    };
    JobStatus { id, submitted: SystemTime::now(), durable: job.durable, pictures: plan.iter().map(picture).collect() }
}

/// Not used before, here or in another process: from the clock and a key that the system draws for each process.
fn new_id() -> JobId {
    let mut hasher = blake3::Hasher::new();
    for part in [RandomState::new().hash_one(0), RandomState::new().hash_one(1), std::process::id().into()] {
        hasher.update(&part.to_le_bytes());
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    hasher.update(&now.as_nanos().to_le_bytes());
    let mut id = [0; 8];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    JobId(u64::from_le_bytes(id))
}

impl fmt::Debug for SavePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SavePool({:?})", self.counters())
    }
}

#[cfg(test)]
mod tests;
