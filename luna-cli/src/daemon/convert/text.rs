//! Text encoders: options, tokens and reports.

use super::{super::models::TextLease, Defaults, attention, notice, precision};
use luna_core::{
    Call, Error, ErrorKind, PictureSizes, Result,
    protocol::{
        ClipEncodeFromTokens, Notice, PromptReport, TextEncoderInfo, TextProblem, TextWish, TokenPlace, Tokens,
    },
    text::{Conditioner, EmbeddingProblem, Encoded, EncoderKind, Recipe, TextOptions, TokenIds, Tokenized},
    tokenizer::{PromptOptions, TokenPiece, WeightedToken},
};
use std::num::NonZeroUsize;

/// A recipe by name.
pub fn recipe(name: &str) -> Result<Recipe> {
    Recipe::ALL.into_iter().find(|recipe| recipe.name() == name).ok_or_else(|| {
        let names: Vec<_> = Recipe::ALL.iter().map(|recipe| recipe.name()).collect();
        Error::new(ErrorKind::InvalidInput, "no such recipe").expected(names.join(", ")).found(format!("`{name}`"))
    })
}

pub fn text_options(wish: &TextWish, defaults: &Defaults, call: Call) -> Result<TextOptions> {
    let number = |what: &str, number: Option<usize>| {
        let wrong = || Error::new(ErrorKind::InvalidInput, format!("`{what}` counts from 1")).found("0");
        number.map(|number| NonZeroUsize::new(number).ok_or_else(wrong)).transpose()
    };
    Ok(TextOptions {
        precision: precision(wish.precision.as_deref(), defaults)?,
        attention: attention(wish.attention.as_deref(), defaults)?,
        clip_skip: number("clip_skip", wish.clip_skip)?,
        syntax: PromptOptions { break_chunks: wish.break_chunks, square_brackets: wish.square_brackets },
        t5_mask: wish.t5_mask,
        t5_tokens: number("t5_tokens", wish.t5_tokens)?,
        call,
        ..TextOptions::default()
    })
}

/// What became of each prompt.
pub fn prompt_reports(encoded: &Encoded) -> Vec<PromptReport> {
    let report = |prompt: &luna_core::text::EncodedPrompt| PromptReport {
        cached: prompt.cached,
        problems: prompt.problems.iter().map(problem).collect(),
    };
    encoded.prompts.iter().map(report).collect()
}

pub fn text_notices(encoded: &Encoded) -> Vec<Notice> {
    encoded.fallbacks.iter().map(|fallback| notice(fallback.name(), fallback)).collect()
}

/// The encoders that took part.
pub fn text_encoders(models: &[TextLease], used: &Conditioner) -> Vec<TextEncoderInfo> {
    let used: Vec<EncoderKind> = used.encoders().collect();
    let all = models.iter().flat_map(|(name, model)| model.encoders().map(move |encoder| (name, encoder)));
    all.filter(|(_, encoder)| used.contains(&encoder.kind))
        .map(|(name, encoder)| TextEncoderInfo {
            encoder: encoder.kind.name().to_owned(),
            model: name.clone(),
            layers: encoder.layers,
            channels: encoder.channels,
            vocabulary: encoder.vocabulary,
            unused_tensors: encoder.unused,
        })
        .collect()
}

fn problem(problem: &EmbeddingProblem) -> TextProblem {
    TextProblem {
        kind: problem.kind().to_owned(),
        name: problem.name().to_owned(),
        encoder: problem.encoder().name().to_owned(),
        message: problem.to_string(),
    }
}

/// A textual inversion that no folder has.
pub fn missing_embedding(name: String, encoder: EncoderKind) -> TextProblem {
    problem(&EmbeddingProblem::Missing { name, encoder })
}

/// Ids, and which of them count.
pub fn token_ids(request: &ClipEncodeFromTokens) -> Result<Vec<TokenIds>> {
    let masks = request.masks.as_deref().unwrap_or_default();
    if !masks.is_empty() && masks.len() != request.tokens.len() {
        return Err(Error::new(ErrorKind::InvalidInput, "`masks` does not fit `tokens`")
            .expected(format!("{} masks", request.tokens.len()))
            .found(masks.len().to_string()));
    }
    let ids = request.tokens.iter().enumerate();
    Ok(ids.map(|(index, ids)| TokenIds { ids: ids.clone(), mask: masks.get(index).cloned() }).collect())
}

pub fn tokens(tokenized: &Tokenized, only: Option<EncoderKind>) -> Tokens {
    let wanted = |encoder: EncoderKind| only.is_none_or(|only| only == encoder);
    let encoders = tokenized.encoders.iter().filter(|tokens| wanted(tokens.encoder));
    let problems = tokenized.problems.iter().filter(|problem| wanted(problem.encoder()));
    Tokens {
        tokens: encoders.map(|tokens| (tokens.encoder.name().to_owned(), chunks(&tokens.chunks))).collect(),
        problems: problems.map(problem).collect(),
    }
}

/// Chunks of tokens as the wire has them.
pub fn chunks(chunks: &[Vec<WeightedToken>]) -> Vec<Vec<TokenPlace>> {
    let place = |token: &WeightedToken| TokenPlace {
        id: token.id(),
        embedding: match &token.piece {
            TokenPiece::Embedding { name, row } => Some((name.to_string(), *row)),
            _ => None,
        },
        weight: token.weight,
    };
    chunks.iter().map(|chunk| chunk.iter().map(place).collect()).collect()
}

/// Width, height, crop at the left and top, width and height after cropping.
pub fn sizes(sizes: PictureSizes) -> [u32; 6] {
    [sizes.width, sizes.height, sizes.crop_w, sizes.crop_h, sizes.target_width, sizes.target_height]
}
