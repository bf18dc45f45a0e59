//! What became of save jobs. Enters: a job's id. Leaves: its state, and each picture's fate.

use crate::{
    error::Result,
    handle::{boundary, c_string, object},
    list::{self, Item},
    save::{job_of, number_of},
    session::Session,
    status::luna_status,
    types::{luna_list, luna_session},
};
use luna_core::save::{Fate, JobState, JobStatus, PictureStatus, Written};
use std::{
    ffi::{CString, c_char},
    ptr,
    time::Duration,
};

crate::handle::records!(luna_save_status, luna_save_picture);

/// How far a save job has come. From `LUNA_SAVE_STATE_DONE` on it is finished.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_save_state {
    /// No picture was begun.
    Queued = 0,
    /// Some picture was begun, and some has no fate yet.
    Writing = 1,
    /// Every picture was written.
    Done = 2,
    /// Some picture failed.
    Failed = 3,
    /// None failed, and a gate rejected some.
    Rejected = 4,
    /// None failed, and some were cancelled.
    Cancelled = 5,
}

/// A save job as it stands.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_save_status {
    /// `sizeof(luna_save_status)`, set by the caller.
    pub size: usize,
    /// The job's number.
    pub id: u64,
    /// A `luna_save_state`.
    pub state: i32,
    /// Whether it would survive the process: 0 or 1.
    pub durable: u32,
    /// Its pictures.
    pub pictures: u64,
    /// How many of them were written.
    pub written: u64,
    /// How many failed.
    pub failed: u64,
    /// How many a gate rejected.
    pub rejected: u64,
    /// How many were cancelled.
    pub cancelled: u64,
}

/// One picture of a save job.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_save_picture {
    /// `sizeof(luna_save_picture)`, set by the caller.
    pub size: usize,
    /// Which of the job's images.
    pub image: u64,
    /// Which of that image's batch.
    pub index: u64,
    /// What became of it: a `luna_save_state`.
    pub state: i32,
    /// Why it failed: a `luna_status`; 0 if it did not.
    pub status: i32,
    /// The file that was written; NULL if none was. A rejected picture that is kept has one.
    pub path: *const c_char,
    /// The file's SHA-256, 64 hexadecimal digits; NULL if none was written.
    pub sha256: *const c_char,
    /// The file's bytes.
    pub bytes: u64,
    /// Why it failed, as a sentence; NULL if it did not.
    pub error: *const c_char,
    /// The gate's score; NaN if there was no gate.
    pub score: f64,
}

struct PictureItem {
    status: PictureStatus,
    path: Option<CString>,
    sha256: Option<CString>,
    error: Option<CString>,
}

const fn written(fate: &Fate) -> Option<&Written> {
    match fate {
        Fate::Written(written) | Fate::Rejected { kept: Some(written), .. } => Some(written),
        _ => None,
    }
}

const fn state_of(fate: &Fate) -> luna_save_state {
    match fate {
        Fate::Waiting => luna_save_state::Queued,
        Fate::Writing => luna_save_state::Writing,
        Fate::Written(_) => luna_save_state::Done,
        Fate::Rejected { .. } => luna_save_state::Rejected,
        Fate::Cancelled => luna_save_state::Cancelled,
        _ => luna_save_state::Failed,
    }
}

impl PictureItem {
    fn new(status: PictureStatus) -> Self {
        let file = written(&status.fate);
        Self {
            path: file.map(|file| c_string(&file.path.to_string_lossy())),
            sha256: file.map(|file| c_string(&file.sha256_hex())),
            error: match &status.fate {
                Fate::Failed(error) => Some(c_string(&error.to_string())),
                _ => None,
            },
            status,
        }
    }
}

impl Item for PictureItem {
    type Record = luna_save_picture;

    fn record(&self) -> luna_save_picture {
        let text = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        let verdict = match &self.status.fate {
            Fate::Written(written) => written.verdict,
            Fate::Rejected { verdict, .. } => Some(*verdict),
            _ => None,
        };
        luna_save_picture {
            size: 0,
            image: self.status.image as u64,
            index: self.status.index as u64,
            state: state_of(&self.status.fate) as i32,
            status: match &self.status.fate {
                Fate::Failed(error) => luna_status::of(error.kind()) as i32,
                _ => 0,
            },
            path: text(&self.path),
            sha256: text(&self.sha256),
            bytes: written(&self.status.fate).map_or(0, |file| file.bytes),
            error: text(&self.error),
            score: verdict.map_or(f64::NAN, |verdict| verdict.score),
        }
    }
}

fn told(status: &JobStatus) -> luna_save_status {
    let count = |state: luna_save_state| {
        status.pictures.iter().filter(|picture| state_of(&picture.fate) == state).count() as u64
    };
    luna_save_status {
        size: 0,
        id: number_of(status.id),
        state: match status.state() {
            JobState::Queued => luna_save_state::Queued,
            JobState::Writing => luna_save_state::Writing,
            JobState::Done => luna_save_state::Done,
            JobState::Rejected => luna_save_state::Rejected,
            JobState::Cancelled => luna_save_state::Cancelled,
            _ => luna_save_state::Failed,
        } as i32,
        durable: status.durable.into(),
        pictures: status.pictures.len() as u64,
        written: count(luna_save_state::Done),
        failed: count(luna_save_state::Failed),
        rejected: count(luna_save_state::Rejected),
        cancelled: count(luna_save_state::Cancelled),
    }
}

struct JobItem(JobStatus);

impl Item for JobItem {
    type Record = luna_save_status;

    fn record(&self) -> luna_save_status {
        told(&self.0)
    }
}

/// Waits until a save job is finished, or for at most so many milliseconds, and tells how it stands then. A timeout of 0
/// does not wait; a negative one waits for as long as it takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_save_wait(
    session: luna_session,
    id: u64,
    timeout_ms: i64,
    status: *mut luna_save_status,
) -> luna_status {
    boundary(|caller| {
        let mut place = caller.report(status)?;
        let saver = object::<Session>(session)?.saver()?;
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        place.put(told(&saver.wait(job_of(id)?, timeout)?));
        Ok(())
    })
}

/// Lists the pictures of a save job with what became of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_save_list_pictures(session: luna_session, id: u64, list: *mut luna_list) -> luna_status {
    boundary(|caller| {
        let place = caller.output("list", list)?;
        let status = object::<Session>(session)?.saver()?.status(job_of(id)?)?;
        place.put(list::open(status.pictures.into_iter().map(PictureItem::new).collect()));
        Ok(())
    })
}

/// One picture of such a list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_list_picture(
    list: luna_list,
    index: usize,
    picture: *mut luna_save_picture,
) -> luna_status {
    boundary(|caller| list::item::<PictureItem>(caller, list, index, picture))
}

/// Lists the save jobs that wait, are worked on or are still remembered, the latest first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_save_list_jobs(session: luna_session, list: *mut luna_list) -> luna_status {
    boundary(|caller| {
        let place = caller.output("list", list)?;
        let jobs = object::<Session>(session)?.saver()?.list();
        place.put(list::open(jobs.into_iter().map(JobItem).collect()));
        Ok(())
    })
}

/// One job of such a list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_list_job(list: luna_list, index: usize, status: *mut luna_save_status) -> luna_status {
    boundary(|caller| list::item::<JobItem>(caller, list, index, status))
}

/// Cancels what has not been written of a save job.
#[unsafe(no_mangle)]
pub extern "C" fn luna_save_cancel(session: luna_session, id: u64) -> luna_status {
    boundary(|_| -> Result<()> { Ok(object::<Session>(session)?.saver()?.cancel(job_of(id)?)?) })
}
