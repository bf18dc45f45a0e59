//! One picture saved. Enters: a job and which of its pictures. Leaves: that picture's fate. It takes each picture
//! through NaN check, gate, encoder and disk, tries again where that can help, and for durable jobs notes every step so
//! that another process can go on where this one died.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use super::{
    Saver,
    gate::{Rejects, Verdict},
    job::{Planned, SaveJob},
    root::{Content, DISCARDED, Traces, Way},
    spool::{Note, ReadyFile, Step},
    status::{Fate, JobId, SaveEvent, Written},
};
use crate::{CancelToken, Error, ErrorKind, Result, picture::encode, pool::Admission};

/// How soon a sleeping worker hears of a cancellation.
const NAP: Duration = Duration::from_millis(20);

/// A job on its way.
pub(super) struct Work {
    pub(super) id: JobId,
    pub(super) job: SaveJob,
    pub(super) plan: Vec<Planned>,
    pub(super) cancel: CancelToken,
    /// Room in the queue, held as long as the pixels are.
    pub(super) _admission: Option<Admission>,
}

impl Saver {
    /// Saves a picture, or finishes what the notes of an earlier process say of it, and returns its fate; never panics.
    pub(super) fn save(&self, work: &Work, picture: usize, notes: &[Note]) -> Fate {
        let fate = catch_unwind(AssertUnwindSafe(|| self.attempts(work, picture, notes)));
        fate.unwrap_or_else(|_| {
            Fate::Failed(Arc::new(Error::new(ErrorKind::Internal, "saving a picture panicked; please report it")))
        })
    }

    fn attempts(&self, work: &Work, picture: usize, notes: &[Note]) -> Fate {
        let mut delays = self.retry_delays.iter();
        // The notes tell of the time before the first attempt only.
        let mut resumed = notes.is_empty();
        loop {
            let found = if resumed { Ok(None) } else { self.resume(work, picture, notes) };
            resumed |= found.is_ok();
            let saved = match found {
                Ok(None) if work.cancel.is_cancelled() => Err(Error::cancelled()),
                Ok(None) => self.attempt(work, picture),
                Ok(Some(fate)) => Ok(fate),
                Err(error) => Err(error),
            };
            let error = match saved {
                Ok(fate) => return fate,
                Err(error) if error.kind() == ErrorKind::Cancelled => return self.cancelled(work, picture),
                Err(error) => Arc::new(error.at(format!("picture {} of {}", picture + 1, work.plan.len()))),
            };
            let Some(&delay) = delays.next().filter(|_| can_pass(&error)) else {
                self.clear(work, picture);
                return Fate::Failed(error);
            };
            self.ledger.count_retry();
            self.tell(&SaveEvent::Retrying(work.id, error, delay));
            let since = Instant::now();
            while since.elapsed() < delay && !work.cancel.is_cancelled() {
                std::thread::sleep(NAP.min(delay.saturating_sub(since.elapsed())));
            }
        }
    }

    fn cancelled(&self, work: &Work, picture: usize) -> Fate {
        if let Err(error) = self.note(work, picture, &[Step::Cancelled]) {
            return Fate::Failed(Arc::new(error));
        }
        self.clear(work, picture);
        Fate::Cancelled
    }

    fn attempt(&self, work: &Work, picture: usize) -> Result<Fate> {
        let start = Instant::now();
        let planned = &work.plan[picture];
        let pixels = work.job.images[planned.image].pixels.pixels(planned.index)?;
        pixels.check_finite()?;
        let verdict = work.job.gate.judge(&pixels);
        let rejected = verdict.filter(|verdict| !verdict.passed);
        if let (Some(verdict), Rejects::Drop) = (rejected, work.job.gate.rejects) {
            self.note(work, picture, &[Step::Dropped(verdict)])?;
            return Ok(Fate::Rejected { verdict, kept: None });
        }
        let bytes = self.encoders.install(|| encode(&pixels, planned.format, &work.job.metadata))?;
        if work.cancel.is_cancelled() {
            return Err(Error::cancelled());
        }
        let mut written = self.write(work, picture, &bytes, (verdict, rejected.is_some()))?;
        written.took = start.elapsed();
        Ok(fate_of(written, rejected.is_some()))
    }

    fn write(
        &self,
        work: &Work,
        picture: usize,
        bytes: &[u8],
        (verdict, rejected): (Option<Verdict>, bool),
    ) -> Result<Written> {
        let sha256: [u8; 32] = Sha256::digest(bytes).into();
        let len = bytes.len() as u64;
        let ready = ReadyFile { hidden: PathBuf::new(), bytes: len, sha256, verdict, rejected };
        let place = |way: &Way<'_>| self.root.place(way, &Content { bytes, ready: ready.clone() });
        let path = self.on_its_way(work, picture, rejected, place)?;
        Ok(Written { path, bytes: len, sha256, took: Duration::ZERO, verdict })
    }

    /// Tells `call` where a picture goes and how it is known.
    fn on_its_way<T>(&self, work: &Work, picture: usize, rejected: bool, call: impl FnOnce(&Way<'_>) -> T) -> T {
        let name = &work.plan[picture].name;
        let mut folders = name.folders.clone();
        folders.extend(rejected.then(|| DISCARDED.to_owned()));
        let note = |step| self.note(work, picture, &[step]);
        call(&Way {
            folders: &folders,
            name,
            if_exists: work.job.if_exists,
            mark: &format!("{}-{picture}", work.id),
            note: work.job.durable.then_some(&note),
        })
    }

    fn note(&self, work: &Work, picture: usize, steps: &[Step]) -> Result<()> {
        match &self.spool {
            Some(spool) if work.job.durable => spool.note(work.id, picture, steps),
            _ => Ok(()),
        }
    }

    /// What a failed or cancelled attempt left.
    fn clear(&self, work: &Work, picture: usize) {
        self.on_its_way(work, picture, false, |way| self.root.clear(way));
    }

    /// What an earlier process did to a picture, by its notes: its fate, or `None` if it is still to be saved.
    fn resume(&self, work: &Work, picture: usize, notes: &[Note]) -> Result<Option<Fate>> {
        let (mut ready, mut tried, mut written) = (None, None, false);
        for note in notes.iter().filter(|note| note.picture == picture) {
            match &note.step {
                Step::Begin => (ready, tried, written) = (None, None, false),
                Step::Ready(file) => ready = Some(file),
                Step::Try(path) => tried = Some(path.as_path()),
                Step::Written => written = true,
                Step::Dropped(verdict) => return Ok(Some(Fate::Rejected { verdict: *verdict, kept: None })),
                Step::Cancelled => return Ok(Some(Fate::Cancelled)),
            }
        }
        let Some(ready) = ready else { return Ok(None) };
        let traces = Traces { ready, tried, written, cancelled: work.cancel.is_cancelled() };
        let path = self.on_its_way(work, picture, ready.rejected, |way| self.root.resume(way, &traces))?;
        let ReadyFile { bytes, sha256, verdict, rejected, .. } = ready.clone();
        let took = Duration::ZERO;
        Ok(path.map(|path| fate_of(Written { path, bytes, sha256, took, verdict }, rejected)))
    }
}

fn fate_of(written: Written, rejected: bool) -> Fate {
    match written.verdict {
        Some(verdict) if rejected => Fate::Rejected { verdict, kept: Some(written) },
        _ => Fate::Written(written),
    }
}

/// Whether the system's reason may be gone in a while. A vanished folder is made again at the next attempt.
pub(super) fn can_pass(error: &Error) -> bool {
    use io::ErrorKind as Io;
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| {
        !matches!(
            source.kind(),
            Io::PermissionDenied
                | Io::ReadOnlyFilesystem
                | Io::NotADirectory
                | Io::IsADirectory
                | Io::InvalidFilename
                | Io::InvalidInput
                | Io::FileTooLarge
                | Io::AlreadyExists
                | Io::Unsupported
        )
    })
}
