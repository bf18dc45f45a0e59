//! Durable jobs on the disk. Enters: jobs, and notes of what was done to their pictures. Leaves: after a restart, the
//! jobs that have no end yet and their notes. It writes no pictures itself.
//!
//! A job is one zstd file, `ID.job`: a header's length, the header as JSON, the pixels. Beside it lies `ID.log`, a
//! line of JSON for each [`Note`]. The job file is the truth: where it is gone, the job is over.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    clock::Timestamp,
    gate::{Gate, Verdict},
    job::{Picture, SaveImage, SaveJob, Values},
    status::JobId,
    template::{NameValues, Template},
};
use crate::{
    Error, ErrorKind, Image, Limits, Result,
    files::{AtomicFile, IfExists, sync_folder},
    limits::check_at_most,
    picture::{Format, Metadata},
};

/// The fastest level that still finds something in noise.
const ZSTD_LEVEL: i32 = 1;
const MAGIC: &[u8; 8] = b"LUNAJOB1";

pub(super) struct Spool {
    folder: PathBuf,
    most_bytes: u64,
    /// Held as long as the spool is open; the system lets go of it when the process dies.
    _lock: fs::File,
}

/// What happened to picture `picture` of a job, written before the next step begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) picture: usize,
    pub(super) step: Step,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    /// An attempt begins; what earlier ones left is void.
    Begin,
    /// The whole file lies under this hidden name, relative to the output folder; a store has none.
    Ready(ReadyFile),
    /// It is about to be moved to this name, or put under it.
    Try(PathBuf),
    /// It was moved to, or put under, the name tried last.
    Written,
    /// The gate rejected it, and nothing was to be kept.
    Dropped(Verdict),
    /// The job was cancelled before.
    Cancelled,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ReadyFile {
    pub(super) hidden: PathBuf,
    pub(super) bytes: u64,
    pub(super) sha256: [u8; 32],
    pub(super) verdict: Option<Verdict>,
    pub(super) rejected: bool,
}

#[derive(Serialize, Deserialize)]
struct Header {
    images: Vec<ImageHeader>,
    folder: Template,
    name: Template,
    values: NameValues,
    metadata: Metadata,
    gate: Gate,
    if_exists: IfExists,
    time: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct ImageHeader {
    shape: [usize; 4],
    float: bool,
    affix: String,
    format: Format,
    subfolder: bool,
}

impl Spool {
    /// Opens the folder, made if it is missing, for this process alone.
    pub(super) fn open(folder: &Path, most_bytes: u64) -> Result<Self> {
        let refused = |error| Error::io(format!("open the spool {}", folder.display()), error);
        fs::create_dir_all(folder).map_err(refused)?;
        let lock = fs::OpenOptions::new().write(true).create(true).truncate(false).open(folder.join("lock"));
        let lock = lock.map_err(refused)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(Error::new(ErrorKind::Busy, format!("the spool {} is in use", folder.display()))
                    .remedy("give each process a spool of its own"));
            }
            Err(fs::TryLockError::Error(error)) => return Err(refused(error)),
        }
        Ok(Self { folder: folder.to_owned(), most_bytes, _lock: lock })
    }

    fn job_path(&self, id: JobId) -> PathBuf {
        self.folder.join(format!("{id}.job"))
    }

    fn log_path(&self, id: JobId) -> PathBuf {
        self.folder.join(format!("{id}.log"))
    }

    fn refused<'a>(&'a self, what: &'a str, id: JobId) -> impl Fn(std::io::Error) -> Error + 'a {
        move |error| Error::io(format!("{what} job {id} in the spool {}", self.folder.display()), error)
    }

    /// Puts a job on the disk, whole or not at all.
    pub(super) fn add(&self, id: JobId, job: &SaveJob) -> Result<()> {
        let refused = self.refused("keep", id);
        let header = serde_json::to_vec(&Header::of(job))
            .map_err(|error| Error::new(ErrorKind::Internal, format!("a job cannot be described: {error}")))?;
        let mut file = AtomicFile::create(&self.job_path(id), IfExists::Refuse)?;
        let mut write = || {
            let mut out = zstd::Encoder::new(&mut file, ZSTD_LEVEL)?;
            out.include_checksum(true)?;
            out.write_all(MAGIC)?;
            out.write_all(&(header.len() as u64).to_le_bytes())?;
            out.write_all(&header)?;
            for image in &job.images {
                write_values(&mut out, image.pixels.values())?;
            }
            out.finish().map(drop)
        };
        write().map_err(refused)?;
        file.commit().map(drop)
    }

    /// The jobs that have no end yet.
    pub(super) fn list(&self) -> Result<Vec<JobId>> {
        let refused = |error| Error::io(format!("list the spool {}", self.folder.display()), error);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(refused)? {
            let path = entry.map_err(refused)?.path();
            let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            match (id, path.extension().and_then(|extension| extension.to_str())) {
                (Some(id), Some("job")) => ids.push(id),
                // A log without its job is what an end left that was cut short.
                (Some(id), Some("log")) if !self.job_path(id).exists() => drop(fs::remove_file(path)),
                // So is a file that never got its name, on systems where it has one before.
                (None, Some("part")) => drop(fs::remove_file(path)),
                _ => {}
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// A job without its pixels: shapes stand, values are empty.
    pub(super) fn describe(&self, id: JobId) -> Result<SaveJob> {
        let (header, _) = self.open_job(id)?;
        let images = header.images.iter().map(|image| image.with(Picture::unread(image.shape))).collect();
        Ok(header.into_job(images))
    }

    /// Reads a job back.
    pub(super) fn load(&self, id: JobId) -> Result<SaveJob> {
        let (header, mut input) = self.open_job(id)?;
        let mut images = Vec::with_capacity(header.images.len());
        for image in &header.images {
            let mut bytes = Vec::new();
            input.by_ref().take(image.bytes()).read_to_end(&mut bytes).map_err(|error| damaged(id, &error))?;
            images.push(image.with(image.picture(bytes).map_err(|error| damaged(id, &error))?));
        }
        // Reading to the end checks the sum.
        if input.read(&mut [0]).map_err(|error| damaged(id, &error))? != 0 {
            return Err(damaged(id, &"it goes on after its end"));
        }
        Ok(header.into_job(images))
    }

    /// Reads a job's header; the pixels follow in what is returned with it.
    fn open_job(&self, id: JobId) -> Result<(Header, impl Read)> {
        let file = fs::File::open(self.job_path(id)).map_err(self.refused("read", id))?;
        let mut input = zstd::Decoder::new(file).map_err(|error| damaged(id, &error))?;
        let mut start = [0; 16];
        input.read_exact(&mut start).map_err(|error| damaged(id, &error))?;
        let (magic, len) = start.split_at(8);
        if magic != MAGIC {
            return Err(damaged(id, &"it begins with other bytes"));
        }
        let len = u64::from_le_bytes(len.try_into().unwrap_or_default());
        check_at_most("bytes in a spooled job's header", len, self.most_bytes.min(Limits::default().header_bytes))?;
        let mut header = Vec::new();
        input.by_ref().take(len).read_to_end(&mut header).map_err(|error| damaged(id, &error))?;
        let header: Header = serde_json::from_slice(&header).map_err(|error| damaged(id, &error))?;
        let bytes = header.images.iter().fold(0u64, |sum, image| sum.saturating_add(image.bytes()));
        check_at_most("bytes in a spooled job", bytes, self.most_bytes)?;
        Ok((header, input))
    }

    /// Adds notes to a job's log; they are on the disk when this returns.
    pub(super) fn note(&self, id: JobId, picture: usize, steps: &[Step]) -> Result<()> {
        let refused = self.refused("note what became of", id);
        let mut lines = Vec::new();
        for step in steps {
            let note = Note { picture, step: step.clone() };
            serde_json::to_writer(&mut lines, &note)
                .map_err(|error| Error::new(ErrorKind::Internal, format!("a note cannot be written: {error}")))?;
            lines.push(b'\n');
        }
        let path = self.log_path(id);
        let mut log = fs::OpenOptions::new().append(true).create(true).open(&path).map_err(&refused)?;
        log.write_all(&lines).and_then(|()| log.sync_data()).map_err(&refused)
    }

    /// The notes of a job, in order. A line that was cut short by the end of a process ends them.
    pub(super) fn notes(&self, id: JobId) -> Result<Vec<Note>> {
        let file = match fs::File::open(self.log_path(id)) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.refused("read the notes of", id)(error)),
        };
        let mut notes = Vec::new();
        for line in BufReader::new(file).split(b'\n') {
            let line = line.map_err(self.refused("read the notes of", id))?;
            match serde_json::from_slice(&line) {
                Ok(note) => notes.push(note),
                Err(_) => break,
            }
        }
        Ok(notes)
    }

    /// Ends a job: first its file goes, then its notes.
    pub(super) fn remove(&self, id: JobId) -> Result<()> {
        let refused = self.refused("end", id);
        for path in [self.job_path(id), self.log_path(id)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(refused(error)),
                _ => sync_folder(&self.folder).map_err(&refused)?,
            }
        }
        Ok(())
    }

    /// Puts a job aside that cannot be read; returns where.
    pub(super) fn put_aside(&self, id: JobId) -> Result<PathBuf> {
        let aside = self.folder.join(format!("{id}.damaged"));
        fs::rename(self.job_path(id), &aside).map_err(self.refused("put aside", id))?;
        Ok(aside)
    }
}

impl Header {
    fn of(job: &SaveJob) -> Self {
        let image = |image: &SaveImage| ImageHeader {
            shape: image.pixels.shape(),
            float: matches!(image.pixels.values(), Values::F32(_)),
            affix: image.affix.clone(),
            format: image.format,
            subfolder: image.subfolder,
        };
        Self {
            images: job.images.iter().map(image).collect(),
            folder: job.folder.clone(),
            name: job.name.clone(),
            values: job.values.clone(),
            metadata: job.metadata.clone(),
            gate: job.gate,
            if_exists: job.if_exists,
            time: job.time,
        }
    }

    fn into_job(self, images: Vec<SaveImage>) -> SaveJob {
        SaveJob {
            folder: self.folder,
            name: self.name,
            values: self.values,
            metadata: self.metadata,
            gate: self.gate,
            if_exists: self.if_exists,
            time: self.time,
            durable: true,
            ..SaveJob::new(images)
        }
    }
}

impl ImageHeader {
    fn with(&self, pixels: Picture) -> SaveImage {
        SaveImage { pixels, affix: self.affix.clone(), format: self.format, subfolder: self.subfolder }
    }

    fn picture(&self, bytes: Vec<u8>) -> Result<Picture> {
        if !self.float {
            return Picture::from_u8(self.shape, bytes);
        }
        let values = bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
        Image::new(self.shape, values.collect()).map(Picture::from)
    }

    fn bytes(&self) -> u64 {
        let count = self.shape.iter().fold(1u64, |product, &side| product.saturating_mul(side as u64));
        count.saturating_mul(if self.float { 4 } else { 1 })
    }
}

fn write_values(out: &mut impl Write, values: &Values) -> std::io::Result<()> {
    match values {
        Values::U8(values) => out.write_all(values),
        Values::F32(values) => {
            let mut bytes = Vec::with_capacity(1 << 16);
            for part in values.chunks(1 << 14) {
                bytes.clear();
                bytes.extend(part.iter().flat_map(|value| value.to_le_bytes()));
                out.write_all(&bytes)?;
            }
            Ok(())
        }
    }
}

fn damaged(id: JobId, why: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidFile, format!("job {id} in the spool is damaged: {why}"))
}
