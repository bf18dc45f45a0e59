//! `vision`: pictures to hidden states and embeddings.

use super::{
    encode::{read_pictures, refuse_if_cancelled, refuse_same_file},
    outcome::{FallbackOutcome, runtime},
    remote,
};
use crate::{
    output::Output,
    settings,
    tensor_file::{is_tensor_file, read_pixel_values, write_features},
};
use luna_core::{
    CancelToken, Error, ErrorKind, Image, Result, memory,
    vision::{Features, PictureView, PixelValues, VisionModel, VisionOptions},
};
use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf};

/// What `vision` did.
#[derive(Serialize)]
pub struct VisionOutcome {
    pub inputs: Vec<PathBuf>,
    pub output: PathBuf,
    pub model: VisionModelOutcome,
    /// Whether the input was preprocessed already.
    pub preprocessed: bool,
    /// Name → shape of what was written.
    pub tensors: BTreeMap<&'static str, Vec<usize>>,
    pub precision: String,
    pub seconds: f64,
    /// What was done otherwise than asked for.
    pub fallbacks: Vec<FallbackOutcome>,
    pub peak_memory_bytes: Option<u64>,
}

/// Which encoder did it.
#[derive(Serialize)]
pub struct VisionModelOutcome {
    pub name: String,
    pub kind: String,
    pub image_size: usize,
    pub patch_size: usize,
    pub layers: usize,
    pub channels: usize,
}

/// Encodes all inputs as one batch.
pub fn run(settings: &settings::Vision, token: &CancelToken, output: &Output) -> Result<VisionOutcome> {
    settings.inputs.iter().try_for_each(|input| refuse_same_file(input, &settings.output))?;
    let subject = Subject::read(settings)?;
    let made = match &settings.daemon {
        None => here(settings, &subject, token, output)?,
        Some(daemon) => remote::vision(settings, daemon, &subject, token, output)?,
    };
    output.finish_progress();
    refuse_if_cancelled(token)?;
    let features: Vec<_> = made.features.iter().map(|(name, features)| (*name, features)).collect();
    write_features(&settings.output, &features, &made.model.name, settings.if_exists)?;
    Ok(VisionOutcome {
        inputs: settings.inputs.clone(),
        output: settings.output.clone(),
        preprocessed: matches!(subject, Subject::Prepared(_)),
        tensors: features.iter().map(|(name, features)| (*name, features.shape().to_vec())).collect(),
        model: made.model,
        precision: made.precision,
        seconds: made.seconds,
        fallbacks: made.fallbacks,
        peak_memory_bytes: memory::peak_resident(),
    })
}

/// What is encoded.
pub enum Subject {
    Images(Vec<Image>),
    /// Preprocessed already.
    Prepared(PixelValues),
}

impl Subject {
    fn read(settings: &settings::Vision) -> Result<Self> {
        for input in settings.inputs.iter().filter(|input| is_tensor_file(input)) {
            let Some(pixels) = read_pixel_values(input)? else { continue };
            if settings.inputs.len() > 1 || !settings.regions.is_empty() {
                return Err(Error::new(ErrorKind::InvalidInput, "pixel values go in alone and whole")
                    .at(input.display())
                    .expected("one file with `pixel_values` and no --crop")
                    .remedy("encode them by themselves"));
            }
            return Ok(Self::Prepared(pixels));
        }
        Ok(Self::Images(settings.inputs.iter().map(|path| read_pictures(path)).collect::<Result<_>>()?))
    }
}

/// Features, wherever they were made.
pub struct Made {
    pub features: Vec<(&'static str, Features)>,
    pub model: VisionModelOutcome,
    pub precision: String,
    pub seconds: f64,
    pub fallbacks: Vec<FallbackOutcome>,
}

fn here(settings: &settings::Vision, subject: &Subject, token: &CancelToken, output: &Output) -> Result<Made> {
    let runtime = runtime(&settings.compute)?;
    let model = VisionModel::open(&settings.model, &runtime)?;
    let options = VisionOptions { precision: settings.compute.precision, call: output.watched_call("encoding", token) };
    let encoded = match subject {
        Subject::Prepared(pixels) => model.encode_pixels(pixels, &options)?,
        Subject::Images(images) => {
            let parts = |image| settings.regions.iter().map(move |&part| PictureView::part(image, part));
            let views: Vec<PictureView> = match &*settings.regions {
                [] => images.iter().map(PictureView::whole).collect(),
                _ => images.iter().flat_map(parts).collect(),
            };
            model.encode(&views, &options)?
        }
    };
    let info = model.info();
    let features = [
        ("last_hidden_state", Some(encoded.last_hidden_state)),
        ("penultimate", Some(encoded.penultimate)),
        ("pooler_output", encoded.pooler_output),
        ("image_embeds", encoded.image_embeds),
    ];
    Ok(Made {
        features: features.into_iter().filter_map(|(name, features)| Some((name, features?))).collect(),
        model: VisionModelOutcome {
            name: settings.model.file_name().unwrap_or(settings.model.as_os_str()).to_string_lossy().into_owned(),
            kind: info.kind.name().to_owned(),
            image_size: info.image_size,
            patch_size: info.patch_size,
            layers: info.layers,
            channels: info.channels,
        },
        precision: encoded.precision.name().to_owned(),
        seconds: encoded.elapsed.as_secs_f64(),
        fallbacks: encoded.fallbacks.iter().map(FallbackOutcome::from).collect(),
    })
}
