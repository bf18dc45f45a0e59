//! Pictures saved by a daemon.

use super::{CallOptions, Client, vision::Pictures};
use crate::{
    Image, Result,
    protocol::{JobAccepted, JobCancel, JobState, JobStatus, SaveImagesAsync},
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// How often a job is asked about: ever more rarely.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

impl Client {
    /// Hands pictures over to be saved, and returns as soon as the daemon has taken them in. It is not asked again by
    /// itself where the connection is lost: the pictures might be saved twice.
    ///
    /// # Errors
    /// As [`Client::call`], with the kinds of [`crate::save::SavePool::submit`].
    pub fn save_images(
        &self,
        images: &[&Image],
        request: &SaveImagesAsync,
        options: &CallOptions,
    ) -> Result<JobAccepted> {
        let pictures = Pictures::new(images);
        Ok(self.call_with(request, &pictures.tensors(images), options)?.reply)
    }

    /// A save job as it stands.
    ///
    /// # Errors
    /// As [`Client::call`]; `NotFound` for a job that was never there, or finished too long ago.
    pub fn job_status(&self, job_id: &str) -> Result<JobState> {
        Ok(self.call(&JobStatus { job_id: job_id.to_owned() }, &[])?.reply)
    }

    /// Waits until a job is finished, or for at most `most`, and returns it as it stands then.
    ///
    /// # Errors
    /// As [`Client::job_status`].
    pub fn wait_for_job(&self, job_id: &str, most: Duration) -> Result<JobState> {
        let until = Instant::now() + most;
        let mut pause = FIRST_PAUSE;
        loop {
            let state = self.job_status(job_id)?;
            let left = until.saturating_duration_since(Instant::now());
            if state.finished || left.is_zero() {
                return Ok(state);
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Cancels what has not been written of a job.
    ///
    /// # Errors
    /// As [`Client::job_status`].
    pub fn job_cancel(&self, job_id: &str) -> Result<JobState> {
        Ok(self.call(&JobCancel { job_id: job_id.to_owned() }, &[])?.reply)
    }
}
