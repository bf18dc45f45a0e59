//! `vision`: pictures to hidden states and embeddings.

use super::{
    encode::{read_pictures, refuse_if_cancelled, refuse_same_file},
    outcome::{FallbackOutcome, runtime},
};
use crate::{
    output::Output,
    settings,
    tensor_file::{is_tensor_file, read_pixel_values, write_features},
};
use luna_core::{
    CancelToken, Error, ErrorKind, Image, Result, memory,
    vision::{Encoded, PictureView, VisionModel, VisionOptions},
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
    pub precision: &'static str,
    pub seconds: f64,
    /// What was done otherwise than asked for.
    pub fallbacks: Vec<FallbackOutcome>,
    pub peak_memory_bytes: Option<u64>,
}

/// Which encoder did it.
#[derive(Serialize)]
pub struct VisionModelOutcome {
    pub name: String,
    pub kind: &'static str,
    pub image_size: usize,
    pub patch_size: usize,
    pub layers: usize,
    pub channels: usize,
}

/// Encodes all inputs as one batch.
pub fn run(settings: &settings::Vision, token: &CancelToken, output: &Output) -> Result<VisionOutcome> {
    settings.inputs.iter().try_for_each(|input| refuse_same_file(input, &settings.output))?;
    let runtime = runtime(&settings.compute)?;
    let model = VisionModel::open(&settings.model, &runtime)?;
    let options = VisionOptions { precision: settings.compute.precision, call: output.watched_call("encoding", token) };
    let (encoded, preprocessed) = encode(settings, &model, &options)?;
    output.finish_progress();
    refuse_if_cancelled(token)?;
    let features = [
        ("last_hidden_state", Some(&encoded.last_hidden_state)),
        ("penultimate", Some(&encoded.penultimate)),
        ("pooler_output", encoded.pooler_output.as_ref()),
        ("image_embeds", encoded.image_embeds.as_ref()),
    ];
    let features: Vec<_> = features.into_iter().filter_map(|(name, features)| Some((name, features?))).collect();
    let name = settings.model.file_name().unwrap_or(settings.model.as_os_str()).to_string_lossy().into_owned();
    write_features(&settings.output, &features, &name, settings.if_exists)?;
    let info = model.info();
    Ok(VisionOutcome {
        inputs: settings.inputs.clone(),
        output: settings.output.clone(),
        model: VisionModelOutcome {
            name,
            kind: info.kind.name(),
            image_size: info.image_size,
            patch_size: info.patch_size,
            layers: info.layers,
            channels: info.channels,
        },
        preprocessed,
        tensors: features.iter().map(|(name, features)| (*name, features.shape().to_vec())).collect(),
        precision: encoded.precision.name(),
        seconds: encoded.elapsed.as_secs_f64(),
        fallbacks: encoded.fallbacks.iter().map(FallbackOutcome::from).collect(),
        peak_memory_bytes: memory::peak_resident(),
    })
}

/// Whether the input was preprocessed already is told beside the result.
fn encode(settings: &settings::Vision, model: &VisionModel, options: &VisionOptions) -> Result<(Encoded, bool)> {
    for input in settings.inputs.iter().filter(|input| is_tensor_file(input)) {
        let Some(pixels) = read_pixel_values(input)? else { continue };
        if settings.inputs.len() > 1 || !settings.regions.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "pixel values go in alone and whole")
                .at(input.display())
                .expected("one file with `pixel_values` and no --crop")
                .remedy("encode them by themselves"));
        }
        return Ok((model.encode_pixels(&pixels, options)?, true));
    }
    let images: Vec<Image> = settings.inputs.iter().map(|path| read_pictures(path)).collect::<Result<_>>()?;
    let views: Vec<PictureView> = match &*settings.regions {
        [] => images.iter().map(PictureView::whole).collect(),
        regions => images.iter().flat_map(|image| regions.iter().map(|&part| PictureView::part(image, part))).collect(),
    };
    Ok((model.encode(&views, options)?, false))
}
