//! `forward` by a daemon.

use super::{connect, fallbacks, file_name, loras, model_name, rename, watched};
use crate::{
    args::ModeArg,
    commands::forward::{DenoiserOutcome, Made, StepOutcome},
    output::Output,
    settings::{DaemonAddress, Forward},
    tensor_file::StepFile,
};
use luna_core::{
    CancelToken, Error, ErrorKind, Result,
    protocol::{DenoiserInfo, ModelForward},
};
use std::time::Instant;

/// Runs every step of the file.
pub fn forward(
    settings: &Forward,
    daemon: &DaemonAddress,
    file: &StepFile,
    token: &CancelToken,
    output: &Output,
) -> Result<Made> {
    let client = connect(daemon)?;
    let start = Instant::now();
    let model = model_name(&client, &settings.model, None)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let entries = &settings.loras.entries;
    let request = ModelForward {
        model: Some(model),
        loras: loras(&client, entries)?,
        strict: settings.loras.strict,
        lora_mode: Some(mode(settings.mode).to_owned()),
        forwards: Some(file.steps.len()),
        attention: Some(settings.attention.name().to_owned()),
        precision: Some(settings.compute.precision.name().to_owned()),
        cache: None,
    };
    let options = watched("denoising", token, output);
    let (mut calls, mut predictions, mut last) = (Vec::new(), Vec::new(), None);
    for step in &file.steps {
        let input = step.input();
        let (prediction, answer) = client.model_forward(&input, &request, &options)?;
        calls.push(StepOutcome {
            shape: prediction.shape(),
            context_tokens: input.context.shape()[1],
            seconds: answer.reply.report.seconds,
            precision: answer.reply.report.precision.clone(),
            attention: answer.reply.report.attention.clone(),
            fallbacks: fallbacks(&answer.head.fallbacks),
        });
        predictions.push(prediction);
        last = Some(answer.reply);
    }
    let Some(mut last) = last else {
        return Err(Error::new(ErrorKind::InvalidInput, "the step file holds no steps").at(settings.input.display()));
    };
    last.loras.iter_mut().for_each(|loras| rename(&mut loras.coverage, entries));
    let model = DenoiserOutcome::of_daemon(file_name(&settings.model), &last.model, load_seconds);
    Ok(Made { model, loras: last.loras, calls, predictions })
}

impl DenoiserOutcome {
    /// A daemon's denoiser.
    fn of_daemon(name: String, info: &DenoiserInfo, load_seconds: f64) -> Self {
        Self {
            name,
            family: info.family.clone(),
            weight_bytes: info.weight_bytes,
            load_seconds,
            input_channels: info.input_channels,
            context_width: info.context_width,
            y_width: info.y_width,
            takes_guidance: info.takes_guidance,
        }
    }
}

/// The mode as the wire names it.
pub fn mode(mode: ModeArg) -> &'static str {
    match mode {
        ModeArg::Functional => "functional",
        ModeArg::Merged => "merged",
        ModeArg::Auto => "auto",
    }
}
