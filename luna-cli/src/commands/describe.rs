//! `describe`: pictures and a prompt to text.

use super::{
    encode::read_pictures,
    loras,
    outcome::{FallbackOutcome, runtime},
    remote,
};
use crate::{
    daemon::convert,
    output::Output,
    settings::{self, Subject},
    tensor_file::{PreparedPictures, PreparedPrompt, read_vlm_input},
};
use luna_core::{
    CancelToken, Error, Image, Result, memory,
    protocol::{LoraOutcome, VlmGenerated},
    vlm::{GenerateOptions, Piece, VlmInput, VlmLoadOptions, VlmModel},
};
use serde::Serialize;
use std::sync::{Mutex, PoisonError};

/// What `describe` did.
#[derive(Serialize)]
pub struct DescribeOutcome {
    pub model: String,
    pub family: String,
    /// `None` where the model has no tokenizer.
    pub text: Option<String>,
    pub ids: Vec<u32>,
    pub prompt_tokens: usize,
    pub picture_tokens: usize,
    pub finish: String,
    pub precision: String,
    pub prompt_seconds: f64,
    pub generation_seconds: f64,
    /// After the first token.
    pub tokens_per_second: Option<f64>,
    pub cache_bytes: u64,
    /// What became of the LoRAs, where any were given.
    pub loras: Option<LoraOutcome>,
    /// What was done otherwise than asked for.
    pub fallbacks: Vec<FallbackOutcome>,
    pub peak_memory_bytes: Option<u64>,
    /// Whether a person is to see the ids.
    #[serde(skip)]
    pub show_ids: bool,
    /// Whether a person has seen the text already.
    #[serde(skip)]
    pub streamed: bool,
}

/// Answers one question.
pub fn run(settings: &settings::Describe, token: &CancelToken, output: &Output) -> Result<DescribeOutcome> {
    let shown = Shown { stream: settings.stream, output, token, failed: Mutex::new(None) };
    let made = match &settings.daemon {
        None => here(settings, &shown, token, output),
        Some(daemon) => remote::describe(settings, daemon, &shown, token, output),
    };
    output.finish_progress();
    if let Some(error) = shown.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    Ok(outcome(settings, made?))
}

/// Where pieces are shown while they are generated, if they are.
pub struct Shown<'a> {
    stream: bool,
    output: &'a Output,
    token: &'a CancelToken,
    failed: Mutex<Option<Error>>,
}

impl Shown<'_> {
    /// Shows a piece. Where that fails nobody reads: generation is cancelled.
    pub fn show(&self, text: &str) {
        if self.stream
            && let Err(error) = self.output.stream(text)
        {
            self.token.cancel();
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }
}

/// An answer, wherever it was made.
pub struct Made {
    pub model: String,
    pub generated: VlmGenerated,
    pub fallbacks: Vec<FallbackOutcome>,
}

fn here(settings: &settings::Describe, shown: &Shown, token: &CancelToken, output: &Output) -> Result<Made> {
    let runtime = runtime(&settings.compute)?;
    let load = VlmLoadOptions { projector: settings.mmproj.clone(), ..VlmLoadOptions::default() };
    let model = VlmModel::open_with(&settings.model, &runtime, &load)?;
    let call =
        if settings.stream { luna_core::Call::new().cancelled_by(token) } else { output.watched_call("tokens", token) };
    let mode = loras::apply_mode(settings.mode, settings.max_tokens);
    let (lora, loras) = loras::prepare_vlm(&model, &settings.loras, mode, &call)?.unzip();
    let options = GenerateOptions {
        max_tokens: settings.max_tokens,
        sampling: settings.sampling,
        stop: settings.stop.clone(),
        precision: settings.compute.precision,
        lora,
        call,
        ..GenerateOptions::default()
    };
    let input = prepare(settings, &model)?;
    let generated = model.generate(&input, &options, &mut |piece: Piece| shown.show(piece.text))?;
    let name = settings.model.file_name().unwrap_or(settings.model.as_os_str()).to_string_lossy().into_owned();
    Ok(Made {
        fallbacks: generated.fallbacks.iter().map(FallbackOutcome::from).collect(),
        generated: convert::vlm_generated(&name, &model, generated, loras),
        model: name,
    })
}

fn prepare(settings: &settings::Describe, model: &VlmModel) -> Result<VlmInput> {
    match &settings.subject {
        Subject::Inputs(path) => {
            let PreparedPrompt { ids, pictures } = read_vlm_input(path)?;
            let patches = match pictures {
                PreparedPictures::Patches(patches) => patches,
                PreparedPictures::Whole(pixels) => model.cut(&pixels)?,
            };
            Ok(VlmInput { ids, patches })
        }
        Subject::Question { images, question } => {
            let images: Vec<Image> = images.iter().map(|path| read_pictures(path)).collect::<Result<_>>()?;
            model.prompt(&question.messages(images.iter().map(Image::batch).sum()), &images)
        }
    }
}

fn outcome(settings: &settings::Describe, Made { model, generated, fallbacks }: Made) -> DescribeOutcome {
    let generation_seconds = generated.generation_seconds;
    let after_first = generated.ids.len().saturating_sub(1);
    let speed = (after_first > 0 && generation_seconds > 0.0).then(|| after_first as f64 / generation_seconds);
    DescribeOutcome {
        model,
        family: generated.model.family,
        prompt_tokens: generated.prompt_tokens,
        picture_tokens: generated.picture_tokens,
        finish: generated.finish,
        precision: generated.precision,
        prompt_seconds: generated.prompt_seconds,
        generation_seconds,
        tokens_per_second: speed,
        cache_bytes: generated.cache_bytes,
        loras: generated.loras,
        fallbacks,
        peak_memory_bytes: memory::peak_resident(),
        // Without a tokenizer there is nothing else to show.
        show_ids: settings.ids || generated.text.is_none(),
        streamed: settings.stream,
        text: generated.text,
        ids: generated.ids,
    }
}
