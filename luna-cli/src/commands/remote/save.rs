//! `save` by a daemon.

use super::connect;
use crate::{
    commands::{
        encode::read_pictures,
        save::{SaveOutcome, SavedPicture},
    },
    output::Output,
    settings::{DaemonAddress, Save},
};
use luna_core::{
    CancelToken, Error, ErrorKind, Progress, Result,
    client::{CallOptions, Client},
    picture::{BitDepth, Effort, Format, Metadata},
    protocol::{JobState, PictureState, SaveImageWish, SaveImagesAsync, SaveValues},
    save::Target,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How soon Ctrl-C is heard.
const TICK: Duration = Duration::from_millis(200);

/// Reads and saves all inputs; one that fails stops no other.
pub fn save(
    settings: &Save,
    daemon: &DaemonAddress,
    metadata: &Metadata,
    (token, output): (&CancelToken, &Output),
    outcome: &mut SaveOutcome,
) -> Result<()> {
    let client = connect(daemon)?;
    let request = request(settings, metadata)?;
    let jobs: Vec<_> = settings
        .inputs
        .iter()
        .map(|input| {
            (input, if token.is_cancelled() { Err(Error::cancelled()) } else { hand_in(&client, input, &request) })
        })
        .collect();
    let (show, total) = (output.progress("saving"), jobs.len());
    for (done, (input, job)) in jobs.into_iter().enumerate() {
        match job.and_then(|job| wait(&client, &job, token)) {
            Ok(state) => {
                state.pictures.iter().for_each(|picture| add(outcome, input, picture));
                show(Progress { done: done + 1, total });
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => outcome.cancel(Some(input), 0),
            Err(error) => outcome.fail(Some(input), 0, &error),
        }
    }
    Ok(())
}

fn request(settings: &Save, metadata: &Metadata) -> Result<SaveImagesAsync> {
    let output = match &settings.output {
        Target::Folder(folder) => {
            let absolute = std::path::absolute(folder).map_err(|error| Error::io("find the output folder", error))?;
            absolute.display().to_string()
        }
        store => store.to_string(),
    };
    let values = &settings.values;
    Ok(SaveImagesAsync {
        images: vec![wish(settings)],
        output: Some(output),
        folder: None,
        name: Some(settings.name.clone().into()),
        values: SaveValues {
            model_path: values.model_path.clone(),
            seed: values.seed,
            index: values.index,
            prompt: values.prompt.clone(),
        },
        metadata: metadata.entries().map(|(key, text)| (key.to_owned(), text.to_owned())).collect(),
        xmp: metadata.xmp().map(str::to_owned),
        gate: Some(settings.gate),
        if_exists: Some(settings.if_exists),
        durable: false,
        unix_seconds: u64::try_from(settings.time.unix_seconds()).ok(),
        utc_offset_minutes: settings.time.offset_minutes(),
    })
}

/// The format as the wire names it.
fn wish(settings: &Save) -> SaveImageWish {
    let png = |name: &str, effort: Effort| SaveImageWish {
        format: Some(name.to_owned()),
        level: match effort {
            Effort::Level(level) => Some(level),
            _ => None,
        },
        fast: effort == Effort::Fast,
        ..SaveImageWish::default()
    };
    let lossy = |name: &str, quality: Option<u8>| SaveImageWish {
        format: Some(name.to_owned()),
        quality,
        ..SaveImageWish::default()
    };
    let wish = match settings.format {
        Format::Png { effort, bits: BitDepth::Sixteen } => png("png16", effort),
        Format::WebpLossy { quality } => lossy("webp", Some(quality)),
        Format::WebpLossless => lossy("webp_lossless", None),
        Format::Jpeg { quality } => lossy("jpeg", Some(quality)),
        Format::Avif { quality } => lossy("avif", Some(quality)),
        Format::Png { effort, .. } => png("png", effort),
        _ => SaveImageWish::default(),
    };
    SaveImageWish { affix: settings.affix.clone(), subfolder: settings.subfolder, ..wish }
}

/// Reads a file's pictures and hands them over; the job's id.
fn hand_in(client: &Client, input: &Path, request: &SaveImagesAsync) -> Result<String> {
    let image = read_pictures(input)?;
    Ok(client.save_images(&[&image], request, &CallOptions::default())?.job_id)
}

fn wait(client: &Client, job: &str, token: &CancelToken) -> Result<JobState> {
    let mut cancelled = false;
    loop {
        let state = client.wait_for_job(job, TICK)?;
        if state.finished {
            return Ok(state);
        }
        if token.is_cancelled() && !cancelled {
            cancelled = true;
            client.job_cancel(job)?;
        }
    }
}

fn add(outcome: &mut SaveOutcome, input: &Path, picture: &PictureState) {
    let mut saved = SavedPicture::new(Some(input), picture.index);
    if let Some(file) = &picture.file {
        saved.path = Some(PathBuf::from(&file.path));
        (saved.bytes, saved.sha256) = (Some(file.bytes), Some(file.sha256.clone()));
        saved.milliseconds = Some(file.milliseconds);
    }
    if let Some(verdict) = &picture.verdict {
        (saved.score, saved.threshold) = (Some(verdict.score), Some(verdict.threshold));
    }
    match (picture.state.as_str(), &picture.error) {
        ("written", _) => {
            outcome.written += 1;
            saved.state = "written";
        }
        ("rejected", _) => {
            outcome.rejected += 1;
            saved.state = "rejected";
        }
        (_, Some(fault)) => return outcome.fail(Some(input), picture.index, &fault.clone().into()),
        _ => return outcome.cancel(Some(input), picture.index),
    }
    outcome.pictures.push(saved);
}
