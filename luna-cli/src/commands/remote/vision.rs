//! `vision` by a daemon.

use super::{connect, fallbacks, file_name, model_name, watched};
use crate::{
    commands::vision::{Made, Subject, VisionModelOutcome},
    output::Output,
    settings::{DaemonAddress, Vision},
};
use luna_core::{CancelToken, Image, Result, protocol::EncodeVision, vision::Region};

/// Encodes all inputs as one batch.
pub fn vision(
    settings: &Vision,
    daemon: &DaemonAddress,
    subject: &Subject,
    token: &CancelToken,
    output: &Output,
) -> Result<Made> {
    let client = connect(daemon)?;
    let region = |part: &Region| [part.top, part.left, part.height, part.width];
    let request = EncodeVision {
        model: Some(model_name(&client, &settings.model, None)?),
        regions: settings.regions.iter().map(region).collect(),
        precision: Some(settings.compute.precision.name().to_owned()),
        outputs: Vec::new(),
    };
    let options = watched("encoding", token, output);
    let (features, answer) = match subject {
        Subject::Prepared(pixels) => client.encode_pixel_values(pixels, &request, &options)?,
        Subject::Images(images) => client.encode_vision(&images.iter().collect::<Vec<&Image>>(), &request, &options)?,
    };
    let named = [
        ("last_hidden_state", features.last_hidden_state),
        ("penultimate", features.penultimate),
        ("pooler_output", features.pooler_output),
        ("image_embeds", features.image_embeds),
    ];
    let info = answer.reply.model;
    Ok(Made {
        features: named.into_iter().filter_map(|(name, features)| Some((name, features?))).collect(),
        model: VisionModelOutcome {
            name: file_name(&settings.model),
            kind: info.kind,
            image_size: info.image_size,
            patch_size: info.patch_size,
            layers: info.layers,
            channels: info.channels,
        },
        precision: answer.reply.precision,
        seconds: answer.reply.seconds,
        fallbacks: fallbacks(&answer.head.fallbacks),
    })
}
