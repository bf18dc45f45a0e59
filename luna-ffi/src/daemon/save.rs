//! A daemon's save jobs.

use super::Daemon;
use crate::error::Result;
use luna_core::{
    Image,
    protocol::{JobState, SaveImagesAsync},
};
use std::time::Duration;

/// As good as for ever.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

impl Daemon {
    /// Hands pictures over, and gives the job's id.
    pub(crate) fn save(&self, images: &[Image], request: &SaveImagesAsync) -> Result<String> {
        let images: Vec<&Image> = images.iter().collect();
        Ok(self.client.save_images(&images, request, &Default::default())?.job_id)
    }

    /// A job when it is finished, or after this time.
    pub(crate) fn wait_for_job(&self, id: &str, most: Option<Duration>) -> Result<JobState> {
        Ok(self.client.wait_for_job(id, most.unwrap_or(A_YEAR))?)
    }
}
