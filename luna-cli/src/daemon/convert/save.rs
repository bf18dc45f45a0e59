//! Save jobs: pictures and names in, fates out.

use luna_core::{
    Error, ErrorKind, Image, Result,
    picture::{BitDepth, Effort, Format, Metadata},
    pool::WhenFull,
    protocol::{
        Dtype, Fault, JobState, Message, PictureState, SaveImageWish, SaveImagesAsync, SaveValues, SavedFile, Tensor,
    },
    save::{
        Fate, JobStatus, NameValues, Picture, PictureStatus, SaveImage, SaveJob, Template, Timestamp, Verdict, Written,
    },
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A job of a request's pictures. `below` are the folders between the daemon's output folder and the request's.
pub fn save_job(request: &SaveImagesAsync, message: &Message, below: &str) -> Result<SaveJob> {
    let usual = SaveImageWish::default();
    let image = |index: usize| {
        let tensor = message.tensor(&format!("image_{index}"))?;
        save_image(tensor, request.images.get(index).unwrap_or(&usual))
    };
    if request.images.len() > message.tensors().len() {
        return Err(Error::new(ErrorKind::InvalidInput, "`images` describes more pictures than there are")
            .expected(format!("at most {}", message.tensors().len()))
            .found(request.images.len().to_string()));
    }
    let mut job = SaveJob::new((0..message.tensors().len()).map(image).collect::<Result<_>>()?);
    let folder = request.folder.as_deref().unwrap_or_default();
    // What stands in the output folder's own name are no tokens.
    let below = below.replace('%', "%%");
    let parts: Vec<&str> = [below.as_str(), folder].into_iter().filter(|part| !part.is_empty()).collect();
    if !parts.is_empty() {
        job.folder = Template::parse(&parts.join("/"))?;
    }
    if let Some(name) = &request.name {
        job.name = Template::parse(name)?;
    }
    job.values = values(&request.values);
    job.metadata = metadata(request)?;
    job.gate = request.gate.unwrap_or_default();
    job.if_exists = request.if_exists.unwrap_or(job.if_exists);
    job.when_full = WhenFull::Busy;
    job.durable = request.durable;
    let now = request.unix_seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    job.time = Timestamp::new(now.unwrap_or_else(SystemTime::now), request.utc_offset_minutes);
    Ok(job)
}

fn values(SaveValues { model_path, seed, index, prompt }: &SaveValues) -> NameValues {
    let mut values = NameValues::default();
    (values.model_path, values.seed, values.index) = (model_path.clone(), *seed, *index);
    values.prompt.clone_from(prompt);
    values
}

fn metadata(request: &SaveImagesAsync) -> Result<Metadata> {
    let mut metadata = Metadata::none();
    for (key, text) in &request.metadata {
        metadata = metadata.with(key, text)?;
    }
    request.xmp.as_deref().map_or(Ok(metadata.clone()), |packet| metadata.clone().with_xmp(packet))
}

fn save_image(tensor: Tensor, wish: &SaveImageWish) -> Result<SaveImage> {
    let shape = tensor.sides("[batch, height, width, channels]")?;
    let pixels = match tensor.dtype() {
        Dtype::U8 => Picture::from_u8(shape, tensor.view().bytes.to_vec())?,
        _ => Picture::from(Image::new(shape, tensor.values()?)?),
    };
    let mut image = SaveImage::new(pixels, format(wish)?);
    image.affix.clone_from(&wish.affix);
    image.subfolder = wish.subfolder;
    Ok(image)
}

fn format(wish: &SaveImageWish) -> Result<Format> {
    let name = wish.format.as_deref().unwrap_or("png");
    let wrong = |message: String| Error::new(ErrorKind::InvalidInput, message);
    let png = matches!(name, "png" | "png16");
    let lossy = matches!(name, "webp" | "jpeg" | "avif");
    if (wish.level.is_some() || wish.fast) && !png || wish.quality.is_some() && !lossy {
        return Err(wrong(format!("an option of another format than `{name}` is given"))
            .expected("`level` and `fast` with png and png16, `quality` with webp, jpeg and avif"));
    }
    let effort = match (wish.fast, wish.level) {
        (true, Some(_)) => return Err(wrong("`fast` and `level` exclude each other".to_owned())),
        (true, None) => Effort::Fast,
        (false, level) => level.map_or(Effort::default(), Effort::Level),
    };
    let quality = wish.quality.unwrap_or(if name == "avif" { 80 } else { 90 });
    let format = match name {
        "png" => Format::Png { effort, bits: BitDepth::Eight },
        "png16" => Format::Png { effort, bits: BitDepth::Sixteen },
        "webp" => Format::WebpLossy { quality },
        "webp_lossless" => Format::WebpLossless,
        "jpeg" => Format::Jpeg { quality },
        "avif" => Format::Avif { quality },
        other => {
            return Err(wrong("no such picture format".to_owned())
                .expected("`png`, `png16`, `webp`, `webp_lossless`, `jpeg` or `avif`")
                .found(format!("`{other}`")));
        }
    };
    format.check().map(|()| format)
}

/// A job as it stands.
pub fn job_state(status: &JobStatus) -> JobState {
    JobState {
        job_id: status.id.to_string(),
        state: status.state().name().to_owned(),
        finished: status.state().is_final(),
        durable: status.durable,
        pictures: status.pictures.iter().map(picture_state).collect(),
    }
}

fn picture_state(picture: &PictureStatus) -> PictureState {
    let (state, file, verdict, error): (_, Option<&Written>, Option<Verdict>, _) = match &picture.fate {
        Fate::Waiting => ("waiting", None, None, None),
        Fate::Writing => ("writing", None, None, None),
        Fate::Written(file) => ("written", Some(file), file.verdict, None),
        Fate::Rejected { verdict, kept } => ("rejected", kept.as_ref(), Some(*verdict), None),
        Fate::Failed(error) => ("failed", None, None, Some(Fault::of(error))),
        _ => ("cancelled", None, None, None),
    };
    PictureState {
        image: picture.image,
        index: picture.index,
        state: state.to_owned(),
        file: file.map(saved_file),
        verdict,
        error,
    }
}

fn saved_file(file: &Written) -> SavedFile {
    SavedFile {
        path: file.path.display().to_string(),
        bytes: file.bytes,
        sha256: file.sha256_hex(),
        milliseconds: file.took.as_secs_f64() * 1e3,
    }
}
