//! Pictures saved in the background. Enters: pictures of the caller's, copied because they are saved after the call.
//! Leaves: a job's id.

use crate::{
    embedded::Embedded,
    error::{Failure, Result, wrong},
    handle::{Caller, boundary, object},
    options::{choose, yes},
    session::{Place, Session},
    status::luna_status,
    types::luna_session,
    view::luna_view,
};
use luna_core::{
    Image,
    files::IfExists,
    limits::check_at_most,
    picture::{BitDepth, Effort, Format, Metadata},
    pool::WhenFull,
    protocol::{SaveImageWish, SaveImagesAsync, SaveValues},
    save::{Gate, GateMode, JobId, Rejects, SaveConfig, SaveEvent, SaveImage, SaveJob, SavePool, Template, Timestamp},
};
use std::{
    ffi::c_char,
    sync::{Arc, PoisonError},
    time::SystemTime,
};

crate::handle::plain!(luna_save_image);
crate::handle::records!(luna_save_job);

/// The most pictures and texts of one job.
const MOST_PARTS: u64 = 1024;

/// A picture file format.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_format {
    /// PNG, 8 bits.
    Png = 0,
    /// PNG, 16 bits.
    Png16 = 1,
    /// WebP with loss.
    Webp = 2,
    /// WebP without loss.
    WebpLossless = 3,
    /// JPEG.
    Jpeg = 4,
}

/// What happens where a file of the name exists.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_if_exists {
    /// The next free number is added.
    Number = 0,
    /// The picture fails; the file stays.
    Refuse = 1,
    /// The picture takes its place.
    Replace = 2,
}

/// Which scores a picture must reach to be kept.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_gate {
    /// None.
    Disabled = 0,
    /// That of its variance.
    Variance = 1,
    /// That of its edges.
    EdgeDensity = 2,
    /// Each of them.
    Both = 3,
}

/// One picture of a save job, or a batch of one size.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_save_image {
    /// `[batch, height, width, channels]`: floats in 0..1, or bytes. Copied.
    pub pixels: *const luna_view,
    /// A word behind the name, such as `UPSCALED`; NULL for none.
    pub affix: *const c_char,
    /// A `luna_format`.
    pub format: i32,
    /// Quality of a lossy format, 1 to 100; 0 for 90.
    pub quality: i32,
    /// Compression level of a PNG, 1 to 9; 0 for 4.
    pub level: i32,
    /// Whether it goes into a folder named like its affix: 0 or 1.
    pub subfolder: u32,
}

/// Pictures to be saved. All zeros but `size` and `images` is a good choice.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_save_job {
    /// `sizeof(luna_save_job)`.
    pub size: usize,
    /// The pictures.
    pub images: *const luna_save_image,
    /// How many there are.
    pub image_count: usize,
    /// A template for folders below the session's output folder; NULL for none.
    pub folder: *const c_char,
    /// A template for the file's name, such as `%prompt:40%_%counter:5%`; NULL for the default.
    pub name: *const c_char,
    /// The model's path for templates, such as `sdxl/base.safetensors`; NULL for none.
    pub model_path: *const c_char,
    /// The prompt for templates; NULL for none.
    pub prompt: *const c_char,
    /// The seed for templates, if `has_seed` is 1.
    pub seed: u64,
    /// Whether there is a seed: 0 or 1.
    pub has_seed: u32,
    /// Minutes that local time is ahead of UTC, for `%time%`.
    pub utc_offset_minutes: i32,
    /// The caller's own number for templates.
    pub index: u64,
    /// Keys of the metadata in every file.
    pub metadata_keys: *const *const c_char,
    /// The texts to these keys.
    pub metadata_texts: *const *const c_char,
    /// How many there are.
    pub metadata_count: usize,
    /// A `luna_gate`.
    pub gate: i32,
    /// Whether pictures that the gate rejects are dropped, not kept in `_discarded`: 0 or 1.
    pub drop_rejects: u32,
    /// The least score that passes, 0..1; 0 for 0.3.
    pub gate_threshold: f64,
    /// A `luna_if_exists`.
    pub if_exists: i32,
    /// Whether a full queue is `LUNA_STATUS_BUSY` at once instead of a wait: 0 or 1.
    pub busy_when_full: u32,
    /// Whether the job is on the disk before the call returns, and survives the process: 0 or 1.
    pub durable: u32,
    /// 0.
    pub reserved: u32,
}

impl Embedded {
    /// Its saver, started with the first job.
    pub(crate) fn saver(&self) -> Result<Arc<SavePool>> {
        let mut saver = self.saver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(saver) = &*saver {
            return Ok(saver.clone());
        }
        let Some(output) = &self.output else {
            return Err(wrong("this session has no output folder")
                .remedy("set `output_folder` in luna_open_options")
                .into());
        };
        let mut config = SaveConfig::new(output);
        config.spool = self.spool.clone();
        let log = self.log;
        config.listener = Some(Arc::new(move |event| tell(&log, event)));
        Ok(saver.insert(Arc::new(SavePool::new(config)?)).clone())
    }
}

fn tell(log: &crate::call::Log, event: &SaveEvent) {
    use crate::call::luna_log_level::{Error, Info, Warning};
    match event {
        SaveEvent::Retrying(id, error, after) => {
            log.tell(Warning, &format!("save job {id}: {error}; tried again after {} ms", after.as_millis()));
        }
        SaveEvent::Damaged(path, error) => {
            log.tell(Error, &format!("a save job was put aside at {}: {error}", path.display()));
        }
        SaveEvent::Finished(status) => {
            log.tell(Info, &format!("save job {}: {}", status.id, status.state().name()));
        }
        _ => {}
    }
}

/// A job's number, as callers know it.
pub(crate) fn number_of(id: JobId) -> u64 {
    u64::from_str_radix(&id.to_string(), 16).unwrap_or_default()
}

/// The job of a number.
pub(crate) fn job_of(number: u64) -> Result<JobId> {
    Ok(format!("{number:016x}").parse()?)
}

/// The name of a file format on the wire.
fn format_name(number: i32) -> Result<&'static str> {
    choose("picture format", number, &["png", "png16", "webp", "webp_lossless", "jpeg"])
}

/// The job as a request to a daemon, with its pictures.
fn remote(caller: &Caller, asked: &luna_save_job) -> Result<(Vec<Image>, SaveImagesAsync)> {
    let text = |what: &str, text: *const c_char| Ok::<_, Failure>(caller.optional_text(what, text)?.map(str::to_owned));
    check_at_most("images in a job", asked.image_count as u64, MOST_PARTS)?;
    let (mut pictures, mut wishes) = (Vec::new(), Vec::new());
    for image in caller.slice("images", asked.images, asked.image_count)? {
        pictures.push(crate::picture::image(caller, "pixels", image.pixels)?.0);
        format(image)?;
        let (stated, lossy) = (|number: i32| u8::try_from(number).ok().filter(|&number| number > 0), [2, 4]);
        wishes.push(SaveImageWish {
            format: Some(format_name(image.format)?.to_owned()),
            quality: stated(image.quality).filter(|_| lossy.contains(&image.format)),
            level: stated(image.level).filter(|_| image.format < 2),
            affix: text("affix", image.affix)?.unwrap_or_default(),
            subfolder: yes(image.subfolder),
            ..SaveImageWish::default()
        });
    }
    check_at_most("metadata texts", asked.metadata_count as u64, MOST_PARTS)?;
    let keys = caller.texts("metadata_keys", asked.metadata_keys, asked.metadata_count)?;
    let texts = caller.texts("metadata_texts", asked.metadata_texts, asked.metadata_count)?;
    let request = SaveImagesAsync {
        images: wishes,
        folder: text("folder", asked.folder)?,
        name: text("name", asked.name)?,
        values: SaveValues {
            model_path: text("model_path", asked.model_path)?,
            seed: yes(asked.has_seed).then_some(asked.seed),
            index: Some(asked.index),
            prompt: text("prompt", asked.prompt)?,
        },
        metadata: keys.into_iter().map(str::to_owned).zip(texts.into_iter().map(str::to_owned)).collect(),
        gate: Some(gate(asked)?),
        if_exists: Some(if_exists(asked)?),
        durable: yes(asked.durable),
        utc_offset_minutes: asked.utc_offset_minutes,
        ..SaveImagesAsync::default()
    };
    Ok((pictures, request))
}

fn if_exists(job: &luna_save_job) -> Result<IfExists> {
    choose("answer to an existing file", job.if_exists, &[IfExists::Number, IfExists::Refuse, IfExists::Replace])
}

fn format(image: &luna_save_image) -> Result<Format> {
    let percent = |number: i32| u8::try_from(if number == 0 { 90 } else { number });
    let range = |what: &str, number: i32| wrong(format!("the {what} is out of range")).found(number.to_string());
    let quality = percent(image.quality).map_err(|_| range("quality", image.quality))?;
    let level = if image.level == 0 { 4 } else { image.level };
    let effort = Effort::Level(u8::try_from(level).map_err(|_| range("PNG level", level))?);
    let formats = [
        Format::Png { effort, bits: BitDepth::Eight },
        Format::Png { effort, bits: BitDepth::Sixteen },
        Format::WebpLossy { quality },
        Format::WebpLossless,
        Format::Jpeg { quality },
    ];
    choose("picture format", image.format, &formats)
}

fn images(caller: &Caller, job: &luna_save_job) -> Result<Vec<SaveImage>> {
    check_at_most("images in a job", job.image_count as u64, MOST_PARTS)?;
    let images = caller.slice("images", job.images, job.image_count)?.iter();
    images
        .map(|image| {
            let mut saved = SaveImage::new(crate::picture::image(caller, "pixels", image.pixels)?.0, format(image)?);
            saved.affix = caller.optional_text("affix", image.affix)?.unwrap_or_default().to_owned();
            saved.subfolder = yes(image.subfolder);
            Ok(saved)
        })
        .collect()
}

fn metadata(caller: &Caller, job: &luna_save_job) -> Result<Metadata> {
    check_at_most("metadata texts", job.metadata_count as u64, MOST_PARTS)?;
    let keys = caller.texts("metadata_keys", job.metadata_keys, job.metadata_count)?;
    let texts = caller.texts("metadata_texts", job.metadata_texts, job.metadata_count)?;
    let add = |metadata: Metadata, (key, text): (&&str, &&str)| metadata.with(key, text);
    Ok(keys.iter().zip(&texts).try_fold(Metadata::none(), add)?)
}

fn gate(job: &luna_save_job) -> Result<Gate> {
    let modes = [GateMode::Disabled, GateMode::Variance, GateMode::EdgeDensity, GateMode::Both];
    let mut gate = Gate::new(choose("gate", job.gate, &modes)?);
    if job.gate_threshold != 0.0 {
        gate.threshold = job.gate_threshold;
    }
    gate.rejects = if yes(job.drop_rejects) { Rejects::Drop } else { Rejects::Keep };
    Ok(gate)
}

fn job(caller: &Caller, asked: &luna_save_job) -> Result<SaveJob> {
    let mut job = SaveJob::new(images(caller, asked)?);
    if let Some(folder) = caller.optional_text("folder", asked.folder)? {
        job.folder = Template::parse(folder)?;
    }
    if let Some(name) = caller.optional_text("name", asked.name)? {
        job.name = Template::parse(name)?;
    }
    job.values.model_path = caller.optional_text("model_path", asked.model_path)?.map(str::to_owned);
    job.values.prompt = caller.optional_text("prompt", asked.prompt)?.map(str::to_owned);
    job.values.seed = yes(asked.has_seed).then_some(asked.seed);
    job.values.index = Some(asked.index);
    job.metadata = metadata(caller, asked)?;
    job.gate = gate(asked)?;
    job.if_exists = if_exists(asked)?;
    job.when_full = if yes(asked.busy_when_full) { WhenFull::Busy } else { WhenFull::Wait };
    job.durable = yes(asked.durable);
    job.time = Timestamp::new(SystemTime::now(), asked.utc_offset_minutes);
    Ok(job)
}

/// Takes pictures in to be saved below the session's output folder, or a daemon's, and returns before they are. `id` gets the job's
/// number, which is never given twice.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_save_submit(
    session: luna_session,
    save_job: *const luna_save_job,
    id: *mut u64,
) -> luna_status {
    boundary(|caller| {
        let place = caller.output("id", id)?;
        caller.value("job", save_job.cast::<usize>())?;
        let session = object::<Session>(session)?;
        let asked = caller.options(save_job)?;
        let id = match session.place() {
            Place::Here(embedded) => embedded.saver()?.submit(job(caller, &asked)?)?,
            Place::There(daemon) => {
                let (images, request) = remote(caller, &asked)?;
                daemon.save(&images, &request)?.parse()?
            }
        };
        place.put(number_of(id));
        Ok(())
    })
}
