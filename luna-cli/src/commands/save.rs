//! `save`: pictures to files below a folder, in the background.

use super::{encode::read_pictures, remote, text_file::read_text};
use crate::{output::Output, settings};
use luna_core::{
    CancelToken, Error, ErrorKind, Progress, Result,
    picture::Metadata,
    pool::Scaling,
    save::{
        Fate, JobId, JobStatus, PictureStatus, SaveConfig, SaveEvent, SaveImage, SaveJob, SavePool, Verdict, Written,
    },
};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// How soon Ctrl-C is heard.
const TICK: Duration = Duration::from_millis(50);
/// Files above this would not be metadata.
const MOST_METADATA: u64 = 64 << 20;

/// What `save` did.
#[derive(Serialize)]
pub struct SaveOutcome {
    /// A folder, or a store's URL.
    pub output: String,
    pub pictures: Vec<SavedPicture>,
    pub written: usize,
    pub rejected: usize,
    pub failed: usize,
    /// Pictures that Ctrl-C came before.
    pub cancelled: usize,
    /// Pictures that an earlier run had left in the spool, and that this one finished.
    pub recovered: usize,
    pub seconds: f64,
    /// Retries and other things worth knowing.
    pub notes: Vec<String>,
    /// The kind of the first failure.
    #[serde(skip)]
    pub failure: Option<ErrorKind>,
}

/// One picture's fate.
#[derive(Serialize)]
pub struct SavedPicture {
    /// The file it was read from; none for one that an earlier run had left in the spool.
    pub input: Option<PathBuf>,
    /// Which of the file's pictures.
    pub index: usize,
    /// `written`, `rejected`, `failed` or `cancelled`.
    pub state: &'static str,
    pub path: Option<PathBuf>,
    pub bytes: Option<u64>,
    pub sha256: Option<String>,
    pub milliseconds: Option<f64>,
    pub score: Option<f64>,
    pub threshold: Option<f64>,
    pub error: Option<String>,
}

/// Reads and saves all inputs; one that fails stops no other.
pub fn run(settings: &settings::Save, token: &CancelToken, output: &Output) -> Result<SaveOutcome> {
    let start = Instant::now();
    let metadata = read_metadata(&settings.metadata)?;
    let mut outcome = SaveOutcome::new(settings);
    match &settings.daemon {
        None => here(settings, &metadata, token, output, &mut outcome)?,
        Some(daemon) => remote::save(settings, daemon, &metadata, (token, output), &mut outcome)?,
    }
    output.finish_progress();
    if outcome.cancelled > 0 {
        outcome.failure = Some(ErrorKind::Cancelled);
    }
    outcome.seconds = start.elapsed().as_secs_f64();
    Ok(outcome)
}

fn here(
    settings: &settings::Save,
    metadata: &Metadata,
    token: &CancelToken,
    output: &Output,
    outcome: &mut SaveOutcome,
) -> Result<()> {
    let (sender, told) = std::sync::mpsc::channel();
    let pool = SavePool::new(config(settings, output, sender))?;
    // What is in the book before anything was handed in is what an earlier run left.
    let recovered: Vec<JobId> = pool.list().iter().map(|status| status.id).collect();
    let mut jobs: Vec<(Option<&Path>, Result<JobId>)> = recovered.iter().map(|id| (None, Ok(*id))).collect();
    for input in &settings.inputs {
        let job =
            if token.is_cancelled() { Err(Error::cancelled()) } else { hand_in(&pool, settings, input, metadata) };
        jobs.push((Some(input), job));
    }
    for (input, job) in jobs {
        match job.and_then(|id| wait(&pool, id, token)) {
            Ok(status) => status.pictures.iter().for_each(|picture| outcome.add(input, picture)),
            Err(error) if error.kind() == ErrorKind::Cancelled => outcome.cancel(input, 0),
            Err(error) => outcome.fail(input, 0, &error),
        }
    }
    pool.close();
    outcome.notes = told.try_iter().collect();
    Ok(())
}

fn config(settings: &settings::Save, output: &Output, notes: std::sync::mpsc::Sender<String>) -> SaveConfig {
    let mut config = SaveConfig::new(settings.output.clone());
    config.spool = settings.spool.clone();
    if let Some(threads) = settings.threads {
        let mut scaling = Scaling::default();
        scaling.threads = threads.get()..=threads.get();
        config.scaling = scaling;
    }
    let show = output.progress("saving");
    let (done, total) = (AtomicUsize::new(0), settings.inputs.len());
    config.listener = Some(Arc::new(move |event: &SaveEvent| match event {
        SaveEvent::Finished(_) => {
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            show(Progress { done, total: total.max(done) });
        }
        SaveEvent::Retrying(_, error, delay) => {
            let _ = notes.send(format!("{error}; tried again after {} ms", delay.as_millis()));
        }
        SaveEvent::Damaged(path, error) => {
            let _ = notes.send(format!("{error}; put aside as {}", path.display()));
        }
        _ => {}
    }));
    config
}

/// Reads a file's pictures and queues them; waits where too many wait already.
fn hand_in(pool: &SavePool, settings: &settings::Save, input: &Path, metadata: &Metadata) -> Result<JobId> {
    let mut image = SaveImage::new(read_pictures(input)?, settings.format);
    image.affix = settings.affix.clone();
    image.subfolder = settings.subfolder;
    let mut job = SaveJob::new(vec![image]);
    job.name = settings.name.clone();
    job.values = settings.values.clone();
    job.metadata = metadata.clone();
    job.gate = settings.gate;
    job.if_exists = settings.if_exists;
    job.time = settings.time;
    job.durable = settings.spool.is_some();
    pool.submit(job)
}

fn wait(pool: &SavePool, id: JobId, token: &CancelToken) -> Result<JobStatus> {
    loop {
        let status = pool.wait(id, Some(TICK))?;
        if status.state().is_final() {
            return Ok(status);
        }
        if token.is_cancelled() {
            pool.cancel_all();
        }
    }
}

fn read_metadata(source: &settings::MetadataSource) -> Result<Metadata> {
    let mut metadata = Metadata::none();
    for (key, file) in &source.files {
        metadata = metadata.with(key, &read_text(file, MOST_METADATA)?).map_err(|error| error.at(file.display()))?;
    }
    for (key, text) in &source.texts {
        metadata = metadata.with(key, text)?;
    }
    match &source.xmp {
        Some(file) => metadata.with_xmp(&read_text(file, MOST_METADATA)?).map_err(|error| error.at(file.display())),
        None => Ok(metadata),
    }
}

impl SaveOutcome {
    fn new(settings: &settings::Save) -> Self {
        Self {
            output: settings.output.to_string(),
            pictures: Vec::new(),
            written: 0,
            rejected: 0,
            failed: 0,
            cancelled: 0,
            recovered: 0,
            seconds: 0.0,
            notes: Vec::new(),
            failure: None,
        }
    }

    fn add(&mut self, input: Option<&Path>, picture: &PictureStatus) {
        self.recovered += usize::from(input.is_none());
        let empty = SavedPicture::new(input, picture.index);
        let saved = match &picture.fate {
            Fate::Written(file) => {
                self.written += 1;
                SavedPicture { state: "written", ..empty.of(file) }
            }
            Fate::Rejected { verdict, kept } => {
                self.rejected += 1;
                let saved = match kept {
                    Some(file) => empty.of(file),
                    None => empty,
                };
                SavedPicture { state: "rejected", ..saved.judged(verdict) }
            }
            Fate::Failed(error) => return self.fail(input, picture.index, error),
            _ => return self.cancel(input, picture.index),
        };
        self.pictures.push(saved);
    }

    /// A picture that was not to be saved any more.
    pub fn cancel(&mut self, input: Option<&Path>, index: usize) {
        self.cancelled += 1;
        self.pictures.push(SavedPicture { state: "cancelled", ..SavedPicture::new(input, index) });
    }

    /// A picture that could not be saved.
    pub fn fail(&mut self, input: Option<&Path>, index: usize, error: &Error) {
        self.failed += 1;
        self.failure.get_or_insert(error.kind());
        let error = Some(error.to_string());
        self.pictures.push(SavedPicture { state: "failed", error, ..SavedPicture::new(input, index) });
    }
}

impl SavedPicture {
    /// Nothing is known yet.
    pub fn new(input: Option<&Path>, index: usize) -> Self {
        Self {
            input: input.map(Path::to_owned),
            index,
            state: "",
            path: None,
            bytes: None,
            sha256: None,
            milliseconds: None,
            score: None,
            threshold: None,
            error: None,
        }
    }

    fn of(self, file: &Written) -> Self {
        let saved = Self {
            path: Some(file.path.clone()),
            bytes: Some(file.bytes),
            sha256: Some(file.sha256_hex()),
            milliseconds: Some(file.took.as_secs_f64() * 1e3),
            ..self
        };
        match &file.verdict {
            Some(verdict) => saved.judged(verdict),
            None => saved,
        }
    }

    fn judged(self, verdict: &Verdict) -> Self {
        Self { score: Some(verdict.score), threshold: Some(verdict.threshold), ..self }
    }
}
