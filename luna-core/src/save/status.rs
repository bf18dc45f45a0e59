//! What became of a job. Enters: nothing. Leaves: states, fates, events and counters, for callers to look at.

use std::{
    fmt,
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::gate::Verdict;
use crate::{Error, ErrorKind};

/// Names a job, across processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub(super) u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for JobId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(id) if digits => Ok(Self(id)),
            _ => Err(Error::new(ErrorKind::InvalidInput, "not a job id")
                .expected("16 hex digits")
                .found(format!("{text:?}"))),
        }
    }
}

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobState {
    /// No picture was begun.
    Queued,
    /// Some picture was begun, and some has no fate yet.
    Writing,
    /// Every picture was written.
    Done,
    /// Some picture failed; see each one's fate.
    Failed,
    /// None failed, and a gate rejected some.
    Rejected,
    /// None failed, and some were cancelled.
    Cancelled,
}

impl JobState {
    /// Whether every picture has its fate.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Writing)
    }

    /// The state's name in snake case, as JSON output and the wire carry it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Writing => "writing",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Written {
    /// Where it stands; in an object store its URL, such as `s3://bucket/prefix/name.png`.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its content.
    pub sha256: [u8; 32],
    /// How long it took to judge, encode and write it; zero where an earlier process did it.
    pub took: Duration,
    /// What the gate found, if there was one.
    pub verdict: Option<Verdict>,
}

impl Written {
    /// The SHA-256 in hex.
    pub fn sha256_hex(&self) -> String {
        self.sha256.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What became of one picture.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Fate {
    /// It waits.
    Waiting,
    /// It is worked on.
    Writing,
    /// It stands on the disk.
    Written(Written),
    /// The gate found it wanting.
    Rejected {
        /// The scores.
        verdict: Verdict,
        /// The file below `_discarded`, unless rejects are dropped.
        kept: Option<Written>,
    },
    /// It could not be saved, for this reason.
    Failed(Arc<Error>),
    /// The job was cancelled before it was written.
    Cancelled,
}

impl Fate {
    /// Whether it is settled.
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Writing)
    }
}

/// One picture of a job.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PictureStatus {
    /// Which of the job's images.
    pub image: usize,
    /// Which of that image's batch.
    pub index: usize,
    /// Its affix.
    pub affix: String,
    /// What became of it.
    pub fate: Fate,
}

/// A job as it stands.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JobStatus {
    /// Its id.
    pub id: JobId,
    /// When it was handed in, or found in the spool.
    pub submitted: SystemTime,
    /// Whether it would survive the process.
    pub durable: bool,
    /// Each picture, in order.
    pub pictures: Vec<PictureStatus>,
}

impl JobStatus {
    /// How far it has come, or how it ended.
    pub fn state(&self) -> JobState {
        let any = |test: fn(&Fate) -> bool| self.pictures.iter().any(|picture| test(&picture.fate));
        if any(|fate| !fate.is_final()) {
            return if any(|fate| !matches!(fate, Fate::Waiting)) { JobState::Writing } else { JobState::Queued };
        }
        if any(|fate| matches!(fate, Fate::Failed(_))) {
            JobState::Failed
        } else if any(|fate| matches!(fate, Fate::Cancelled)) {
            JobState::Cancelled
        } else if any(|fate| matches!(fate, Fate::Rejected { .. })) {
            JobState::Rejected
        } else {
            JobState::Done
        }
    }
}

/// Something that happened. Told from the thread that did it, under no lock.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SaveEvent {
    /// A job was taken in.
    Queued(JobId),
    /// A picture got its fate.
    Settled(JobId, PictureStatus),
    /// Every picture of a job has its fate.
    Finished(JobStatus),
    /// Writing failed and is tried again after a while.
    Retrying(JobId, Arc<Error>, Duration),
    /// A job in the spool could not be read; it was put aside under this path.
    Damaged(PathBuf, Arc<Error>),
    /// The pool started or ended a thread: before, after.
    Threads(usize, usize),
}

/// What the saver has done and is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SaveCounters {
    /// Jobs taken in, those found in the spool among them.
    pub jobs: u64,
    /// Jobs whose every picture has its fate.
    pub jobs_finished: u64,
    /// Pictures written.
    pub written: u64,
    /// Pictures that a gate rejected.
    pub rejected: u64,
    /// Pictures that failed.
    pub failed: u64,
    /// Pictures cancelled.
    pub cancelled: u64,
    /// Attempts after a failure.
    pub retries: u64,
    /// Bytes of files written, rejects among them.
    pub bytes_written: u64,
    /// The threads and their queue; its weight is bytes of pixels and metadata.
    pub pool: crate::pool::PoolCounters,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = JobId(0x1f);
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
        for text in ["", "1f", "+00000000000001f", "zz00000000000000"] {
            assert!(text.parse::<JobId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_state_follows_from_the_fates() {
        let failed = || Fate::Failed(Arc::new(Error::cancelled()));
        for (fates, state) in [
            (vec![Fate::Waiting, Fate::Waiting], JobState::Queued),
            (vec![Fate::Waiting, failed()], JobState::Writing),
            (vec![Fate::Cancelled, failed()], JobState::Failed),
            (vec![Fate::Cancelled], JobState::Cancelled),
        ] {
            let picture = |fate| PictureStatus { image: 0, index: 0, affix: String::new(), fate };
            let pictures = fates.into_iter().map(picture).collect();
            let status = JobStatus { id: JobId(1), submitted: SystemTime::now(), durable: false, pictures };
            assert_eq!(status.state(), state);
        }
    }
}
