//! A daemon's save jobs.

use super::Daemon;
use crate::error::Result;
use luna_core::{
    Image,
    protocol::{PictureState, SaveImagesAsync},
};

/// Hands pictures over, and gives the job's id.
pub(crate) fn submit(daemon: &Daemon, images: &[Image], request: &SaveImagesAsync) -> Result<String> {
    let images: Vec<&Image> = images.iter().collect();
    Ok(daemon.client.save_images(&images, request, &Default::default())?.job_id)
}

/// Whether a picture has its fate, and which.
pub(crate) fn state_name(picture: &PictureState) -> &str {
    &picture.state
}
