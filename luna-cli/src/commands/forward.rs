//! `forward`: one step of a sampler, from a step file to a prediction.

use super::{
    encode::{refuse_if_cancelled, refuse_same_file},
    loras,
    outcome::{FallbackOutcome, runtime},
    remote,
};
use crate::{
    output::Output,
    settings,
    tensor_file::{StepFile, read_steps, write_predictions},
};
use luna_core::{
    CancelToken, Limits, Prediction, Result,
    checkpoint::Checkpoint,
    diffusion::{Denoiser, ForwardOptions, LoadOptions, Predicted},
    memory,
    protocol::LoraOutcome,
};
use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf, time::Instant};

/// What `forward` did.
#[derive(Serialize)]
pub struct ForwardOutcome {
    pub input: PathBuf,
    pub output: PathBuf,
    /// Whose names and signs the input and the output have.
    pub layout: &'static str,
    /// Tensors of the input that mean nothing here.
    pub ignored: Vec<String>,
    pub model: DenoiserOutcome,
    /// What became of the LoRAs, where any were given.
    pub loras: Option<LoraOutcome>,
    /// One, or one for each item where items are called one by one.
    pub calls: Vec<StepOutcome>,
    pub peak_memory_bytes: Option<u64>,
}

/// Which denoiser did it.
#[derive(Serialize)]
pub struct DenoiserOutcome {
    pub name: String,
    pub family: String,
    pub weight_bytes: u64,
    pub load_seconds: f64,
    pub input_channels: usize,
    pub context_width: usize,
    pub y_width: Option<usize>,
    pub takes_guidance: bool,
}

impl DenoiserOutcome {
    pub fn of(name: String, denoiser: &Denoiser, load_seconds: f64) -> Self {
        let facts = denoiser.facts();
        Self {
            name,
            family: denoiser.family().name().to_owned(),
            weight_bytes: denoiser.weight_bytes(),
            load_seconds,
            input_channels: facts.input_channels,
            context_width: facts.context_width,
            y_width: facts.y_width.map(|width| width.get()),
            takes_guidance: facts.takes_guidance,
        }
    }
}

/// How one call was done.
#[derive(Serialize)]
pub struct StepOutcome {
    /// `[batch, channels, height, width]`.
    pub shape: [usize; 4],
    /// Tokens of each item's context.
    pub context_tokens: usize,
    pub seconds: f64,
    pub precision: String,
    pub attention: String,
    /// What was done otherwise than asked for.
    pub fallbacks: Vec<FallbackOutcome>,
}

/// Runs every step of the file.
pub fn run(settings: &settings::Forward, token: &CancelToken, output: &Output) -> Result<ForwardOutcome> {
    [&settings.input, &settings.model].into_iter().try_for_each(|path| refuse_same_file(path, &settings.output))?;
    let file = read_steps(&settings.input)?;
    let made = match &settings.daemon {
        None => here(settings, &file, token, output)?,
        Some(daemon) => remote::forward(settings, daemon, &file, token, output)?,
    };
    let Made { model, loras, calls, predictions } = made;
    output.finish_progress();
    refuse_if_cancelled(token)?;
    let metadata = BTreeMap::from([("model".to_owned(), model.name.clone())]);
    write_predictions(&settings.output, file.layout, &predictions, &metadata, settings.if_exists)?;
    Ok(ForwardOutcome {
        input: settings.input.clone(),
        output: settings.output.clone(),
        layout: file.layout.name(),
        ignored: file.ignored,
        model,
        loras,
        calls,
        peak_memory_bytes: memory::peak_resident(),
    })
}

/// Predictions, wherever they were made.
pub struct Made {
    pub model: DenoiserOutcome,
    pub loras: Option<LoraOutcome>,
    pub calls: Vec<StepOutcome>,
    pub predictions: Vec<Prediction>,
}

fn here(settings: &settings::Forward, file: &StepFile, token: &CancelToken, output: &Output) -> Result<Made> {
    let runtime = runtime(&settings.compute)?;
    let precision = settings.compute.precision;
    let start = Instant::now();
    let checkpoint = Checkpoint::open(&settings.model, &Limits::default())?;
    let load = LoadOptions { attention: settings.attention, precision };
    let denoiser = Denoiser::load(&checkpoint, &runtime, &load)?;
    drop(checkpoint);
    let load_seconds = start.elapsed().as_secs_f64();
    let call = output.watched_call("denoising", token);
    let prepared =
        loras::prepare(&denoiser, &settings.loras, loras::apply_mode(settings.mode, file.steps.len()), &call)?;
    let (patches, loras) = prepared.unzip();
    let options = ForwardOptions { precision, patches, call, ..Default::default() };
    let mut calls = Vec::new();
    let mut predictions = Vec::new();
    for step in &file.steps {
        let input = step.input();
        let Predicted { prediction, report, .. } = denoiser.forward(&input, &options)?;
        calls.push(StepOutcome {
            shape: prediction.shape(),
            context_tokens: input.context.shape()[1],
            seconds: report.elapsed.as_secs_f64(),
            precision: report.precision.name().to_owned(),
            attention: report.attention.name().to_owned(),
            fallbacks: report.fallbacks.iter().map(FallbackOutcome::from).collect(),
        });
        predictions.push(prediction);
    }
    let name = settings.model.file_name().unwrap_or(settings.model.as_os_str()).to_string_lossy().into_owned();
    Ok(Made { model: DenoiserOutcome::of(name, &denoiser, load_seconds), loras, calls, predictions })
}
