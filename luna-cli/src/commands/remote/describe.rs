//! `describe` by a daemon.

use super::{connect, fallbacks, file_name, forward::mode, loras, model_name, rename, watched};
use crate::{
    commands::{
        describe::{Made, Shown},
        encode::read_pictures,
    },
    output::Output,
    settings::{DaemonAddress, Describe, Subject},
    tensor_file::{PreparedPictures, PreparedPrompt, read_vlm_input},
};
use luna_core::{
    CancelToken, Image, Result,
    client::CallOptions,
    protocol::{SamplingWish, VlmGenerate},
    vlm::{Piece, Sampling},
};

/// Answers one question.
pub fn describe(
    settings: &Describe,
    daemon: &DaemonAddress,
    shown: &Shown,
    token: &CancelToken,
    output: &Output,
) -> Result<Made> {
    let client = connect(daemon)?;
    let Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed } = settings.sampling;
    let model = match &settings.mmproj {
        None => model_name(&client, &settings.model, None)?,
        Some(projector) => client.put_vlm(&settings.model, projector)?.model_id,
    };
    let entries = &settings.loras.entries;
    let request = VlmGenerate {
        model: Some(model),
        loras: loras(&client, entries)?,
        strict: settings.loras.strict,
        lora_mode: Some(mode(settings.mode).to_owned()),
        max_tokens: Some(settings.max_tokens),
        sampling: Some(SamplingWish { temperature, top_k, top_p, min_p, repetition_penalty, seed }),
        stop: settings.stop.clone(),
        precision: Some(settings.compute.precision.name().to_owned()),
        stream: settings.stream,
        ..VlmGenerate::default()
    };
    let options =
        if settings.stream { CallOptions::default().cancelled_by(token) } else { watched("tokens", token, output) };
    let mut listener = |piece: Piece| shown.show(piece.text);
    let answer = match &settings.subject {
        Subject::Inputs(path) => {
            let PreparedPrompt { ids, pictures } = read_vlm_input(path)?;
            let request = VlmGenerate { ids: Some(ids), ..request };
            match &pictures {
                PreparedPictures::Patches(patches) => {
                    client.vlm_generate_prepared(patches, &request, &options, &mut listener)?
                }
                PreparedPictures::Whole(pixels) => {
                    client.vlm_generate_pixels(pixels, &request, &options, &mut listener)?
                }
            }
        }
        Subject::Question { images, question } => {
            let images: Vec<Image> = images.iter().map(|path| read_pictures(path)).collect::<Result<_>>()?;
            let (prompt, system) = (Some(question.prompt.clone()), question.system.clone());
            let request = VlmGenerate { prompt, system, ..request };
            client.vlm_generate(&images.iter().collect::<Vec<_>>(), &request, &options, &mut listener)?
        }
    };
    let mut generated = answer.reply;
    generated.loras.iter_mut().for_each(|loras| rename(&mut loras.coverage, entries));
    Ok(Made { model: file_name(&settings.model), fallbacks: fallbacks(&answer.head.fallbacks), generated })
}
