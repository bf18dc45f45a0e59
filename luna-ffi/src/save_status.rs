//! What became of save jobs. Enters: a job's id. Leaves: its state, and each picture's fate.

use crate::{
    error::Result,
    handle::{boundary, c_string, object},
    list::{self, Item},
    save::{job_of, number_of},
    session::{Place, Session},
    status::luna_status,
    types::{luna_list, luna_session},
};
use luna_core::{
    protocol::{self, PictureState},
    save::{Fate, JobState, JobStatus, PictureStatus, Written},
};
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
    image: u64,
    index: u64,
    state: luna_save_state,
    status: i32,
    path: Option<CString>,
    sha256: Option<CString>,
    bytes: u64,
    error: Option<CString>,
    score: f64,
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

/// A state by the name that the wire has for pictures and jobs.
fn state_named(name: &str) -> luna_save_state {
    match name {
        "waiting" | "queued" => luna_save_state::Queued,
        "writing" => luna_save_state::Writing,
        "written" | "done" => luna_save_state::Done,
        "rejected" => luna_save_state::Rejected,
        "cancelled" => luna_save_state::Cancelled,
        _ => luna_save_state::Failed,
    }
}

impl PictureItem {
    fn here(status: &PictureStatus) -> Self {
        let (file, verdict) = (
            written(&status.fate),
            match &status.fate {
                Fate::Written(written) => written.verdict,
                Fate::Rejected { verdict, .. } => Some(*verdict),
                _ => None,
            },
        );
        let error = if let Fate::Failed(error) = &status.fate { Some(error) } else { None };
        Self {
            image: status.image as u64,
            index: status.index as u64,
            state: state_of(&status.fate),
            status: error.map_or(0, |error| luna_status::of(error.kind()) as i32),
            path: file.map(|file| c_string(&file.path.to_string_lossy())),
            sha256: file.map(|file| c_string(&file.sha256_hex())),
            bytes: file.map_or(0, |file| file.bytes),
            error: error.map(|error| c_string(&error.to_string())),
            score: verdict.map_or(f64::NAN, |verdict| verdict.score),
        }
    }

    fn there(told: &PictureState) -> Self {
        Self {
            image: told.image as u64,
            index: told.index as u64,
            state: state_named(&told.state),
            status: told.error.as_ref().map_or(0, |fault| luna_status::of(fault.kind()) as i32),
            path: told.file.as_ref().map(|file| c_string(&file.path)),
            sha256: told.file.as_ref().map(|file| c_string(&file.sha256)),
            bytes: told.file.as_ref().map_or(0, |file| file.bytes),
            error: told.error.as_ref().map(|fault| c_string(&fault.to_string())),
            score: told.verdict.map_or(f64::NAN, |verdict| verdict.score),
        }
    }
}

impl Item for PictureItem {
    type Record = luna_save_picture;

    fn record(&self) -> luna_save_picture {
        let text = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        luna_save_picture {
            size: 0,
            image: self.image,
            index: self.index,
            state: self.state as i32,
            status: self.status,
            path: text(&self.path),
            sha256: text(&self.sha256),
            bytes: self.bytes,
            error: text(&self.error),
            score: self.score,
        }
    }
}

/// A job as the header has it, from its pictures' states.
fn record(id: u64, state: luna_save_state, durable: bool, states: &[luna_save_state]) -> luna_save_status {
    let count = |wanted: luna_save_state| states.iter().filter(|state| **state == wanted).count() as u64;
    luna_save_status {
        size: 0,
        id,
        state: state as i32,
        durable: durable.into(),
        pictures: states.len() as u64,
        written: count(luna_save_state::Done),
        failed: count(luna_save_state::Failed),
        rejected: count(luna_save_state::Rejected),
        cancelled: count(luna_save_state::Cancelled),
    }
}

fn told(status: &JobStatus) -> luna_save_status {
    let states: Vec<_> = status.pictures.iter().map(|picture| state_of(&picture.fate)).collect();
    let state = match status.state() {
        JobState::Queued => luna_save_state::Queued,
        JobState::Writing => luna_save_state::Writing,
        JobState::Done => luna_save_state::Done,
        JobState::Rejected => luna_save_state::Rejected,
        JobState::Cancelled => luna_save_state::Cancelled,
        _ => luna_save_state::Failed,
    };
    record(number_of(status.id), state, status.durable, &states)
}

fn told_remotely(id: u64, job: &protocol::JobState) -> luna_save_status {
    let states: Vec<_> = job.pictures.iter().map(|picture| state_named(&picture.state)).collect();
    record(id, state_named(&job.state), job.durable, &states)
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
        let (session, job) = (object::<Session>(session)?, job_of(id)?);
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        place.put(match session.place() {
            Place::Here(embedded) => told(&embedded.saver()?.wait(job, timeout)?),
            Place::There(daemon) => told_remotely(id, &daemon.wait_for_job(&job.to_string(), timeout)?),
        });
        Ok(())
    })
}

/// Lists the pictures of a save job with what became of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_save_list_pictures(session: luna_session, id: u64, list: *mut luna_list) -> luna_status {
    boundary(|caller| {
        let place = caller.output("list", list)?;
        let (session, job) = (object::<Session>(session)?, job_of(id)?);
        let items = match session.place() {
            Place::Here(embedded) => embedded.saver()?.status(job)?.pictures.iter().map(PictureItem::here).collect(),
            Place::There(daemon) => {
                daemon.client.job_status(&job.to_string())?.pictures.iter().map(PictureItem::there).collect()
            }
        };
        place.put(list::open::<PictureItem>(items));
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
        let jobs = object::<Session>(session)?.here("a list of save jobs")?.saver()?.list();
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
    boundary(|_| -> Result<()> {
        let (session, job) = (object::<Session>(session)?, job_of(id)?);
        match session.place() {
            Place::Here(embedded) => Ok(embedded.saver()?.cancel(job)?),
            Place::There(daemon) => Ok(daemon.client.job_cancel(&job.to_string()).map(drop)?),
        }
    })
}
