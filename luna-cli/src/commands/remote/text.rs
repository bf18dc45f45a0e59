//! `text` and `tokenize` by a daemon.

use super::{connect, fallbacks, file_name, loras, model_name, rename, watched};
use crate::{
    commands::{
        outcome::CallOutcome,
        text::{EmbeddingProblemOutcome, EncoderOutcome, Input, Made, PromptMade},
        tokenize::{TokenOutcome, TokenizeOutcome},
    },
    output::Output,
    settings::{DaemonAddress, LoraEntry, Text, Tokenize},
};
use luna_core::{
    CancelToken, Result,
    client::Client,
    protocol::{
        ClipEncode, ClipEncodeFromTokens, ClipTokenize, PromptReport, TextEncoded, TextProblem, TextWish, TokenPlace,
    },
    text::EncoderKind,
    tokenizer::{LoraTag, TokenPiece, WeightedToken},
};
use std::{num::NonZeroUsize, path::PathBuf, sync::Arc, time::Instant};

/// The name of the demonstration model.
const DEMO: &str = "demo";

/// Encodes the prompts as one batch.
pub fn text(
    settings: &Text,
    daemon: &DaemonAddress,
    input: &Input,
    tags: &[LoraTag],
    (token, output): (&CancelToken, &Output),
) -> Result<Made> {
    let client = connect(daemon)?;
    let start = Instant::now();
    let names = models(&client, settings)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let entries = entries(settings, tags)?;
    let reading = &settings.reading;
    let with = TextWish {
        models: names.iter().map(|(of_daemon, _)| of_daemon.clone()).collect(),
        recipe: settings.encoders.recipe.map(|recipe| recipe.name().to_owned()),
        clip_skip: settings.clip_skip.map(NonZeroUsize::get),
        precision: Some(settings.compute.precision.name().to_owned()),
        attention: Some(settings.attention.name().to_owned()),
        loras: loras(&client, &entries)?,
        strict: settings.loras.strict,
        break_chunks: reading.syntax.break_chunks,
        square_brackets: reading.syntax.square_brackets,
        t5_mask: settings.t5_mask,
        t5_tokens: reading.t5_tokens.map(NonZeroUsize::get),
        // Tags are taken out of the input here, where the LoRA folders of this command are.
        lora_tags: false,
    };
    let options = watched("encoding", token, output);
    let (conditionings, answer) = match input {
        Input::Prompts(prompts) => {
            let mut texts = prompts.iter().map(|prompt| prompt.text.clone());
            let (positive, negative) = (texts.next().unwrap_or_default(), texts.next());
            client.clip_encode(&ClipEncode { positive, negative, with, ..ClipEncode::default() }, &options)?
        }
        Input::Tokens(tokens) => {
            let masks: Option<Vec<_>> = tokens.iter().map(|tokens| tokens.mask.clone()).collect();
            let tokens = tokens.iter().map(|tokens| tokens.ids.clone()).collect();
            client.clip_encode_from_tokens(&ClipEncodeFromTokens { tokens, masks, with }, &options)?
        }
    };
    let call = CallOutcome {
        seconds: answer.reply.seconds,
        precision: answer.reply.precision.clone(),
        tiling: None,
        fallbacks: fallbacks(&answer.head.fallbacks),
    };
    let TextEncoded { recipe, encoders, prompts, mut loras, sequences, .. } = answer.reply;
    // Models are called what they are called here.
    let known = |name: &str| names.iter().find(|(of_daemon, _)| of_daemon == name).map(|(_, here)| here.clone());
    for outcome in &mut loras {
        outcome.model = known(&outcome.model).unwrap_or_else(|| outcome.model.clone());
        rename(&mut outcome.coverage, &entries);
    }
    let encoder = |info: luna_core::protocol::TextEncoderInfo| EncoderOutcome {
        encoder: info.encoder,
        model: known(&info.model).unwrap_or(info.model),
        layers: info.layers,
        channels: info.channels,
        vocabulary: info.vocabulary,
        unused_tensors: info.unused_tensors,
    };
    let prompt = |(conditioning, report): (_, PromptReport)| PromptMade {
        conditioning: Arc::new(conditioning),
        cached: report.cached,
        problems: report.problems.into_iter().map(EmbeddingProblemOutcome::from).collect(),
    };
    Ok(Made {
        recipe,
        models: names.iter().map(|(_, here)| here.clone()).collect(),
        encoders: encoders.into_iter().map(encoder).collect(),
        prompts: conditionings.into_iter().zip(prompts).map(prompt).collect(),
        loras,
        sequences,
        load_seconds,
        call,
    })
}

/// What the daemon calls each model, by which requests name it, and what this command calls it.
fn models(client: &Client, settings: &Text) -> Result<Vec<(String, String)>> {
    if settings.encoders.files.is_empty() {
        return Ok(vec![(DEMO.to_owned(), DEMO.to_owned())]);
    }
    // Two files of one name are two models: requests name them by id.
    let name = |(kind, path): &(Option<EncoderKind>, PathBuf)| {
        Ok((model_name(client, path, kind.map(EncoderKind::name))?, file_name(path)))
    };
    settings.encoders.files.iter().map(name).collect()
}

/// The LoRAs that were typed, and those that tags name.
fn entries(settings: &Text, tags: &[LoraTag]) -> Result<Vec<LoraEntry>> {
    let typed = settings.loras.entries.iter().cloned().map(Ok);
    let tagged = tags
        .iter()
        .map(|tag| Ok(LoraEntry { file: settings.loras.folders.named(&tag.name)?, model: tag.model, clip: tag.clip }));
    typed.chain(tagged).collect()
}

impl From<TextProblem> for EmbeddingProblemOutcome {
    fn from(TextProblem { kind, name, encoder, message }: TextProblem) -> Self {
        Self { kind, name, encoder, message }
    }
}

/// Reads the prompt.
pub fn tokenize(settings: &Tokenize, daemon: &DaemonAddress, prompt: String) -> Result<TokenizeOutcome> {
    let kind = settings.encoder;
    let request = ClipTokenize {
        text: prompt,
        encoder: Some(kind.name().to_owned()),
        with: TextWish {
            break_chunks: settings.reading.syntax.break_chunks,
            square_brackets: settings.reading.syntax.square_brackets,
            t5_tokens: settings.reading.t5_tokens.map(NonZeroUsize::get),
            ..TextWish::default()
        },
        ..ClipTokenize::default()
    };
    let mut reply = connect(daemon)?.clip_tokenize(&request, &Default::default())?.reply;
    let chunks: Vec<Vec<_>> = reply.tokens.remove(kind.name()).unwrap_or_default().into_iter().map(chunk).collect();
    Ok(TokenizeOutcome {
        encoder: kind.name(),
        tokens: chunks.iter().map(Vec::len).sum(),
        chunks,
        missing_embeddings: reply.problems.into_iter().map(|problem| problem.name).collect(),
    })
}

fn chunk(places: Vec<TokenPlace>) -> Vec<TokenOutcome> {
    let token = |TokenPlace { id, embedding, weight }: TokenPlace| {
        let piece = match embedding {
            Some((name, row)) => TokenPiece::Embedding { name: name.into(), row },
            None => TokenPiece::Id(id.unwrap_or_default()),
        };
        TokenOutcome(WeightedToken { piece, weight })
    };
    places.into_iter().map(token).collect()
}
