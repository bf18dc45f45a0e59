//! One picture saved. Enters: a job and which of its pictures. Leaves: that picture's fate. It takes each picture
//! through NaN check, gate, encoder and disk, tries again where that can help, and for durable jobs notes every step so
//! that another process can go on where this one died.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use super::{
    Saver,
    gate::{Rejects, Verdict},
    job::{Planned, SaveJob},
    root::{DISCARDED, Finished},
    spool::{Note, ReadyFile, Step},
    status::{Fate, JobId, SaveEvent, Written},
};
use crate::{
    CancelToken, Error, ErrorKind, Result,
    files::{Scratch, same_file},
    picture::encode,
    pool::Admission,
};

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

/// What is to be written, and where.
struct Target {
    folders: Vec<String>,
    verdict: Option<Verdict>,
    rejected: bool,
}

impl Saver {
    /// Saves a picture and returns its fate; never panics.
    pub(super) fn save(&self, work: &Work, picture: usize) -> Fate {
        let fate = catch_unwind(AssertUnwindSafe(|| self.attempts(work, picture)));
        fate.unwrap_or_else(|_| {
            Fate::Failed(Arc::new(Error::new(ErrorKind::Internal, "saving a picture panicked; please report it")))
        })
    }

    fn attempts(&self, work: &Work, picture: usize) -> Fate {
        let mut delays = self.retry_delays.iter();
        loop {
            if work.cancel.is_cancelled() {
                return self.cancelled(work, picture);
            }
            let error = match self.attempt(work, picture) {
                Ok(fate) => return fate,
                Err(error) if error.kind() == ErrorKind::Cancelled => return self.cancelled(work, picture),
                Err(error) => Arc::new(error.at(format!("picture {} of {}", picture + 1, work.plan.len()))),
            };
            let Some(&delay) = delays.next().filter(|_| can_pass(&error)) else {
                self.remove_hidden(work, picture);
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
        self.remove_hidden(work, picture);
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
        let mut folders = planned.name.folders.clone();
        folders.extend(rejected.map(|_| DISCARDED.to_owned()));
        let target = Target { folders, verdict, rejected: rejected.is_some() };
        let mut written = self.write(work, picture, &bytes, target)?;
        written.took = start.elapsed();
        Ok(fate_of(written, rejected.is_some()))
    }

    fn write(&self, work: &Work, picture: usize, bytes: &[u8], target: Target) -> Result<Written> {
        let Target { folders, verdict, rejected } = target;
        let folder = self.root.folder(&folders)?;
        let sha256: [u8; 32] = Sha256::digest(bytes).into();
        let mut written =
            Written { path: PathBuf::new(), bytes: bytes.len() as u64, sha256, took: Duration::ZERO, verdict };
        let scratch = if work.job.durable {
            let hidden = folder.join(hidden_name(work.id, picture));
            self.note(work, picture, &[Step::Begin])?;
            let scratch = self.root.write(&folder, bytes, Some(&hidden))?;
            let hidden = self.root.relative(&hidden).to_owned();
            let ready = ReadyFile { hidden, bytes: written.bytes, sha256, verdict, rejected };
            self.note(work, picture, &[Step::Ready(ready)])?;
            scratch
        } else {
            self.root.write(&folder, bytes, None)?
        };
        written.path = self.publish(work, picture, scratch, &folder)?;
        Ok(written)
    }

    fn publish(&self, work: &Work, picture: usize, scratch: Scratch, folder: &Path) -> Result<PathBuf> {
        let finished = Finished { scratch, folder, name: &work.plan[picture].name, if_exists: work.job.if_exists };
        let path = self
            .root
            .publish(finished, |path| self.note(work, picture, &[Step::Try(self.root.relative(path).to_owned())]))?;
        // Not to be lost, but the move itself says the same to those who look for it.
        let _ = self.note(work, picture, &[Step::Written]);
        Ok(path)
    }

    fn note(&self, work: &Work, picture: usize, steps: &[Step]) -> Result<()> {
        match &self.spool {
            Some(spool) if work.job.durable => spool.note(work.id, picture, steps),
            _ => Ok(()),
        }
    }

    /// What a failed or cancelled attempt left under its hidden name.
    fn remove_hidden(&self, work: &Work, picture: usize) {
        if !work.job.durable {
            return;
        }
        let folders = &work.plan[picture].name.folders;
        let folder = self.root.absolute(&folders.iter().collect::<PathBuf>());
        // The hidden file must not be taken for one that was moved to its name.
        if self.note(work, picture, &[Step::Begin]).is_ok() {
            for folder in [folder.join(DISCARDED), folder] {
                let _ = std::fs::remove_file(folder.join(hidden_name(work.id, picture)));
            }
        }
    }

    /// What an earlier process did to a picture, by its notes: its fate, or `None` if it is still to be saved. A
    /// file that was finished but not moved is moved now.
    pub(super) fn resume(&self, work: &Work, picture: usize, notes: &[Note]) -> Result<Option<Fate>> {
        let mut ready = None;
        let mut tried = None;
        for note in notes.iter().filter(|note| note.picture == picture) {
            match &note.step {
                Step::Begin => (ready, tried) = (None, None),
                Step::Ready(file) => ready = Some(file),
                Step::Try(path) => tried = Some(path),
                Step::Written => {}
                Step::Dropped(verdict) => return Ok(Some(Fate::Rejected { verdict: *verdict, kept: None })),
                Step::Cancelled => return Ok(Some(Fate::Cancelled)),
            }
        }
        let Some(ready) = ready else { return Ok(None) };
        let hidden = self.root.absolute(&ready.hidden);
        let tried = tried.map(|path| self.root.absolute(path));
        let path = match tried {
            // Linked to its name, and not yet unlinked from the hidden one.
            Some(path) if same_file(&hidden, &path) => {
                std::fs::remove_file(&hidden)
                    .map_err(|error| Error::io(format!("remove {}", hidden.display()), error))?;
                path
            }
            // Cancelled meanwhile: `save` clears it away.
            _ if hidden.exists() && work.cancel.is_cancelled() => return Ok(None),
            _ if hidden.exists() => {
                let folder = hidden.parent().unwrap_or(Path::new("")).to_owned();
                let scratch = Scratch::resume(&hidden);
                let scratch = scratch.map_err(|error| Error::io(format!("open {}", hidden.display()), error))?;
                self.publish(work, picture, scratch, &folder)?
            }
            // The hidden file is gone because it was moved, unless its whole folder is gone.
            Some(path) if path.exists() || hidden.parent().is_some_and(Path::is_dir) => path,
            _ => return Ok(None),
        };
        let ReadyFile { bytes, sha256, verdict, rejected, .. } = ready.clone();
        Ok(Some(fate_of(Written { path, bytes, sha256, took: Duration::ZERO, verdict }, rejected)))
    }
}

fn fate_of(written: Written, rejected: bool) -> Fate {
    match written.verdict {
        Some(verdict) if rejected => Fate::Rejected { verdict, kept: Some(written) },
        _ => Fate::Written(written),
    }
}

fn hidden_name(id: JobId, picture: usize) -> String {
    format!(".luna-{id}-{picture}.part")
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
