//! `text`: prompts to conditioning.

use super::{
    encode::{refuse_if_cancelled, refuse_same_file},
    loras::{patch, stack},
    outcome::{CallOutcome, FallbackOutcome, runtime},
    remote,
    text_file::read_text,
};
use crate::{
    output::Output,
    settings::{self, PromptSource, TextInput},
    tensor_file::{Named, read_tokens, write_conditionings},
};
use luna_core::{
    CancelToken, Conditioning, Limits, PictureSizes, Result, Runtime, memory,
    protocol::TextLoraOutcome,
    text::{
        Conditioner, EmbeddingFolders, EmbeddingProblem, EncodedPrompt, EncoderKind, Prompt, TextLoadOptions,
        TextModel, TextOptions,
    },
    tokenizer::{LoraTag, LoraTags},
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

/// What a person should know about the model that is used where none is named.
const DEMONSTRATION: &str = "a small demonstration model with random weights; its output means nothing";

/// What `text` did.
#[derive(Serialize)]
pub struct TextOutcome {
    pub output: PathBuf,
    /// What the conditioning is for.
    pub recipe: String,
    pub encoders: Vec<EncoderOutcome>,
    /// Set for a model that is not for real work.
    pub caution: Option<&'static str>,
    pub prompts: Vec<PromptOutcome>,
    /// What became of each LoRA on each model.
    pub loras: Vec<TextLoraOutcome>,
    /// Tags that could not be read; they are left out.
    pub malformed_tags: Vec<String>,
    /// Different sequences that the encoders read, all in one batch; empty prompts that weights are measured against
    /// are among them.
    pub sequences: usize,
    pub clip_skip: Option<usize>,
    pub attention: &'static str,
    /// Time to open and load the encoders.
    pub load_seconds: f64,
    pub call: CallOutcome,
    pub peak_memory_bytes: Option<u64>,
}

/// One of the text encoders.
#[derive(Serialize)]
pub struct EncoderOutcome {
    pub encoder: String,
    /// The file's name without its folder, or `demo`.
    pub model: String,
    pub layers: usize,
    pub channels: usize,
    pub vocabulary: usize,
    /// Tensors of the encoder that it has no use for.
    pub unused_tensors: Vec<String>,
}

/// What became of one prompt, or of a file of tokens.
#[derive(Serialize)]
pub struct PromptOutcome {
    /// The tensor in the file: `cond` or `uncond`.
    pub tensor: &'static str,
    /// `[batch, tokens, channels]`.
    pub shape: [usize; 3],
    /// `[batch, channels]`.
    pub pooled_shape: Option<[usize; 2]>,
    /// Whether a mask was written.
    pub masked: bool,
    /// Whether it was there already.
    pub cached: bool,
    /// Textual inversions that were left out.
    pub embedding_problems: Vec<EmbeddingProblemOutcome>,
}

/// A textual inversion that was left out.
#[derive(Serialize, PartialEq, Clone)]
pub struct EmbeddingProblemOutcome {
    pub kind: String,
    pub name: String,
    pub encoder: String,
    pub message: String,
}

impl From<&EmbeddingProblem> for EmbeddingProblemOutcome {
    fn from(problem: &EmbeddingProblem) -> Self {
        Self {
            kind: problem.kind().to_owned(),
            name: problem.name().to_owned(),
            encoder: problem.encoder().name().to_owned(),
            message: problem.to_string(),
        }
    }
}

/// Encodes the prompts as one batch.
pub fn run(settings: &settings::Text, token: &CancelToken, output: &Output) -> Result<TextOutcome> {
    let mut input = Input::read(settings)?;
    let tags = input.take_tags(settings);
    let made = match &settings.daemon {
        None => here(settings, &input, &tags.tags, token, output)?,
        Some(daemon) => remote::text(settings, daemon, &input, &tags.tags, (token, output))?,
    };
    output.finish_progress();
    let named = input.named(&made.prompts);
    refuse_if_cancelled(token)?;
    let caution = settings.encoders.files.is_empty().then_some(DEMONSTRATION);
    write_conditionings(&settings.output, &named, &metadata(settings, &made, caution), settings.if_exists)?;
    Ok(TextOutcome {
        output: settings.output.clone(),
        prompts: named.iter().zip(&made.prompts).map(|(named, prompt)| prompt_outcome(named, prompt)).collect(),
        recipe: made.recipe,
        encoders: made.encoders,
        caution,
        loras: made.loras,
        malformed_tags: tags.malformed,
        sequences: made.sequences,
        clip_skip: settings.clip_skip.map(|layer| layer.get()),
        attention: settings.attention.name(),
        load_seconds: made.load_seconds,
        call: made.call,
        peak_memory_bytes: memory::peak_resident(),
    })
}

/// Conditionings, wherever they were made.
pub struct Made {
    pub recipe: String,
    /// What each model is called.
    pub models: Vec<String>,
    pub encoders: Vec<EncoderOutcome>,
    pub prompts: Vec<PromptMade>,
    pub loras: Vec<TextLoraOutcome>,
    pub sequences: usize,
    pub load_seconds: f64,
    pub call: CallOutcome,
}

/// One prompt's conditioning.
pub struct PromptMade {
    pub conditioning: Arc<Conditioning>,
    pub cached: bool,
    pub problems: Vec<EmbeddingProblemOutcome>,
}

fn here(
    settings: &settings::Text,
    input: &Input,
    tags: &[LoraTag],
    token: &CancelToken,
    output: &Output,
) -> Result<Made> {
    let folders = embedding_folders(&settings.reading)?;
    let runtime = runtime(&settings.compute)?;
    let start = Instant::now();
    let encoders = TextEncoders::load(&settings.encoders, &runtime)?;
    let conditioner = encoders.conditioner(settings.encoders.recipe)?;
    let conditioner = match &folders {
        Some(folders) => conditioner.with_embeddings(folders),
        None => conditioner,
    };
    let load_seconds = start.elapsed().as_secs_f64();
    let mut options = TextOptions {
        precision: settings.compute.precision,
        attention: settings.attention,
        clip_skip: settings.clip_skip,
        syntax: settings.reading.syntax,
        t5_mask: settings.t5_mask,
        t5_tokens: settings.reading.t5_tokens,
        call: output.watched_call("encoding", token),
        ..TextOptions::default()
    };
    let loras = patch(&stack(&settings.loras, tags)?, settings.loras.strict, &encoders.models, &mut options)?;
    let encoded = match input {
        Input::Prompts(prompts) => conditioner.encode(prompts, &options)?,
        Input::Tokens(tokens) => conditioner.encode_ids(tokens, &options)?,
    };
    let prompt = |prompt: &EncodedPrompt| PromptMade {
        conditioning: prompt.conditioning.clone(),
        cached: prompt.cached,
        problems: prompt.problems.iter().map(EmbeddingProblemOutcome::from).collect(),
    };
    let fallback = |fallback: &luna_core::text::Fallback| FallbackOutcome {
        name: fallback.name().to_owned(),
        message: fallback.to_string(),
    };
    Ok(Made {
        recipe: conditioner.recipe().name().to_owned(),
        models: encoders.models.iter().map(|(_, name)| name.clone()).collect(),
        encoders: encoders.outcomes(&conditioner),
        prompts: encoded.prompts.iter().map(prompt).collect(),
        loras,
        sequences: encoded.sequences,
        load_seconds,
        call: CallOutcome {
            seconds: encoded.elapsed.as_secs_f64(),
            precision: settings.compute.precision.name().to_owned(),
            tiling: None,
            fallbacks: encoded.fallbacks.iter().map(fallback).collect(),
        },
    })
}

/// What is encoded.
pub enum Input {
    /// The negative one is the second.
    Prompts(Vec<Prompt>),
    Tokens(Vec<luna_core::text::TokenIds>),
}

impl Input {
    fn read(settings: &settings::Text) -> Result<Self> {
        match &settings.input {
            TextInput::Tokens(file) => {
                refuse_same_file(file, &settings.output)?;
                Ok(Self::Tokens(read_tokens(file)?))
            }
            TextInput::Prompts { positive, negative } => {
                let sources = [Some(positive), negative.as_ref()].into_iter().flatten();
                let prompts = sources.map(|source| {
                    let prompt = Prompt::new(read_prompt(source)?);
                    Ok(settings.sizes.iter().fold(prompt, |prompt, &sizes| prompt.sized(sizes)))
                });
                Ok(Self::Prompts(prompts.collect::<Result<_>>()?))
            }
        }
    }

    /// Takes the tags out of the prompts, where that was asked for.
    fn take_tags(&mut self, settings: &settings::Text) -> LoraTags {
        let mut all = LoraTags::default();
        if let (Self::Prompts(prompts), true) = (self, settings.tags) {
            for prompt in prompts {
                let found = prompt.take_lora_tags();
                all.tags.extend(found.tags);
                all.malformed.extend(found.malformed);
            }
        }
        all
    }

    /// What goes into the file, and under which name.
    fn named<'a>(&self, made: &'a [PromptMade]) -> Vec<Named<'a>> {
        let all: Vec<&Conditioning> = made.iter().map(|prompt| &*prompt.conditioning).collect();
        match self {
            Self::Tokens(_) => vec![Named { prefix: "", rows: all }],
            Self::Prompts(_) => {
                ["", "un"].into_iter().zip(all).map(|(prefix, row)| Named { prefix, rows: vec![row] }).collect()
            }
        }
    }
}

/// Text encoders in memory.
pub struct TextEncoders {
    /// With what to call each.
    models: Vec<(TextModel, String)>,
}

impl TextEncoders {
    /// Loads the files, or the demonstration model where there is none.
    ///
    /// # Errors
    /// As [`TextModel::open_with`].
    pub fn load(encoders: &settings::Encoders, runtime: &Runtime) -> Result<Self> {
        if encoders.files.is_empty() {
            let models = vec![(TextModel::demo(runtime)?, "demo".to_owned())];
            return Ok(Self { models });
        }
        let shared = TextLoadOptions { clip_tokenizer: Some(Default::default()), ..TextLoadOptions::default() };
        let open = |(kind, path): &(Option<EncoderKind>, PathBuf)| {
            let tokenizer = encoders.tokenizer.clone();
            let options = TextLoadOptions { kind: *kind, tokenizer, ..shared.clone() };
            Ok((TextModel::open_with(path, runtime, &options)?, name(path)))
        };
        Ok(Self { models: encoders.files.iter().map(open).collect::<Result<_>>()? })
    }

    /// Puts them together.
    ///
    /// # Errors
    /// As [`Conditioner::new`] and [`Conditioner::with_recipe`].
    pub fn conditioner(&self, recipe: Option<luna_core::text::Recipe>) -> Result<Conditioner<'_>> {
        let models: Vec<&TextModel> = self.models.iter().map(|(model, _)| model).collect();
        match recipe {
            Some(recipe) => Conditioner::with_recipe(&models, recipe),
            None => Conditioner::new(&models),
        }
    }

    fn outcomes(&self, used: &Conditioner) -> Vec<EncoderOutcome> {
        let used: Vec<EncoderKind> = used.encoders().collect();
        let all = self.models.iter().flat_map(|(model, name)| model.encoders().map(move |encoder| (encoder, name)));
        all.filter(|(encoder, _)| used.contains(&encoder.kind))
            .map(|(encoder, name)| EncoderOutcome {
                encoder: encoder.kind.name().to_owned(),
                model: name.clone(),
                layers: encoder.layers,
                channels: encoder.channels,
                vocabulary: encoder.vocabulary,
                unused_tensors: encoder.unused,
            })
            .collect()
    }
}

fn prompt_outcome(named: &Named, prompt: &PromptMade) -> PromptOutcome {
    let [_, tokens, channels] = prompt.conditioning.shape();
    let batch = named.rows.len();
    PromptOutcome {
        tensor: if named.prefix.is_empty() { "cond" } else { "uncond" },
        shape: [batch, tokens, channels],
        pooled_shape: prompt.conditioning.pooled_channels().map(|channels| [batch, channels]),
        masked: prompt.conditioning.mask().is_some(),
        cached: prompt.cached,
        embedding_problems: prompt.problems.clone(),
    }
}

/// What a denoiser, or a person who finds the file, must know.
fn metadata(settings: &settings::Text, made: &Made, caution: Option<&'static str>) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([("recipe", made.recipe.clone()), ("model", made.models.join(", "))]);
    metadata.extend(caution.map(|caution| ("caution", caution.to_owned())));
    metadata.extend(settings.clip_skip.map(|layer| ("clip_skip", layer.to_string())));
    if let Some(PictureSizes { width, height, crop_w, crop_h, target_width, target_height }) = settings.sizes {
        metadata.extend([("width", width.to_string()), ("height", height.to_string())]);
        metadata.extend([("crop_w", crop_w.to_string()), ("crop_h", crop_h.to_string())]);
        metadata.extend([("target_width", target_width.to_string()), ("target_height", target_height.to_string())]);
    }
    metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The text of a prompt. One line break at the end of a file does not count: editors put it there.
pub fn read_prompt(source: &PromptSource) -> Result<String> {
    match source {
        PromptSource::Typed(text) => Ok(text.clone()),
        PromptSource::File(path) => {
            let mut text = read_text(path, Limits::default().prompt_bytes as u64 + 2)?;
            let end = if text.ends_with("\r\n") { 2 } else { usize::from(text.ends_with('\n')) };
            text.truncate(text.len() - end);
            Ok(text)
        }
    }
}

/// The folders that textual inversions are looked up in.
pub fn embedding_folders(reading: &settings::Reading) -> Result<Option<EmbeddingFolders>> {
    if reading.embeddings.is_empty() {
        return Ok(None);
    }
    EmbeddingFolders::new(&reading.embeddings).map(Some)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
