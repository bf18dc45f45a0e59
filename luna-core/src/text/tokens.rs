//! A prompt as the encoders of a recipe read it. Enters: a prompt, tokenizers, embedding folders. Leaves: chunks for
//! each encoder with the vectors of textual inversions. It must not know layers.

use super::{
    EmbeddingFolders, EmbeddingProblem, EncoderKind, Prompt, TextOptions,
    embeddings::{Inversion, Shelf},
    encoder::Encoder,
    recipe::Recipe,
    sequence::Sequence,
};
use crate::{
    Error, ErrorKind, PictureSizes, Result,
    tokenizer::{ChunkRule, EmbeddingLookup, TokenPiece, WeightedToken},
};
use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc};

/// A tokenized prompt, ready to be encoded.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Tokenized {
    /// What each encoder reads.
    pub encoders: Vec<EncoderTokens>,
    /// Textual inversions that were left out.
    pub problems: Vec<EmbeddingProblem>,
    pub(super) sizes: Option<PictureSizes>,
}

/// What one encoder reads.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EncoderTokens {
    /// The encoder.
    pub encoder: EncoderKind,
    /// Tokens and weights; 77 to a chunk for a CLIP, one chunk for the others.
    pub chunks: Vec<Vec<WeightedToken>>,
    pub(super) inversions: BTreeMap<String, Inversion>,
    pub(super) rule: ChunkRule,
}

/// The least length of T5's chunk for a recipe.
fn t5_tokens(recipe: Recipe, options: &TextOptions) -> usize {
    let usual = if recipe == Recipe::Sd3 { 77 } else { 256 };
    options.t5_tokens.map_or(usual, NonZeroUsize::get)
}

/// Tokenizes a prompt for each encoder of a recipe.
pub(super) fn tokenize(
    prompt: &Prompt,
    recipe: Recipe,
    encoders: &[&Encoder],
    folders: Option<&EmbeddingFolders>,
    options: &TextOptions,
) -> Result<Tokenized> {
    check_readers(prompt, encoders)?;
    let mut tokenized = Tokenized { encoders: Vec::new(), problems: Vec::new(), sizes: prompt.sizes };
    for encoder in encoders {
        let tokenizer = encoder.tokenizer()?.clone().with_shortest(match encoder.kind {
            EncoderKind::T5 => t5_tokens(recipe, options),
            _ => 1,
        });
        let shelf = Shelf::new(folders, encoder.kind);
        let lookup: Option<&dyn EmbeddingLookup> = Some(&shelf);
        let tokens = tokenizer.tokenize(prompt.text_for(encoder.kind), &options.syntax, lookup)?;
        let (inversions, problems) = shelf.close(&tokens.missing, encoder.channels());
        tokenized.problems.extend(problems);
        let (chunks, rule) = (tokens.chunks, *tokenizer.rule());
        tokenized.encoders.push(EncoderTokens { encoder: encoder.kind, chunks, inversions, rule });
    }
    if recipe == Recipe::Sdxl && !prompt.others.is_empty() {
        even_out(&mut tokenized.encoders);
    }
    Ok(tokenized)
}

/// A text for an encoder that takes no part would be lost in silence.
fn check_readers(prompt: &Prompt, encoders: &[&Encoder]) -> Result<()> {
    let known = |kind: &EncoderKind| encoders.iter().any(|encoder| encoder.kind == *kind);
    let Some(other) = prompt.others.keys().find(|kind| !known(kind)) else { return Ok(()) };
    let names: Vec<_> = encoders.iter().map(|encoder| encoder.kind.name()).collect();
    Err(Error::new(ErrorKind::InvalidInput, "a text is meant for an encoder that takes no part")
        .expected(format!("texts for {}", names.join(", ")))
        .found(format!("one for {}", other.name())))
}

/// Adds empty chunks to the encoder with fewer, as ComfyUI's SDXL node does for two texts.
fn even_out(encoders: &mut [EncoderTokens]) {
    let most = encoders.iter().map(|tokens| tokens.chunks.len()).max().unwrap_or_default();
    for tokens in encoders {
        let empty = tokens.rule.empty_chunk(super::clip::CHUNK).into_iter().map(WeightedToken::plain).collect();
        tokens.chunks.resize(most, empty);
    }
}

impl EncoderTokens {
    fn is_weighted(&self) -> bool {
        self.chunks.iter().flatten().any(|token| token.weight != 1.0)
    }

    /// The chunks laid out for an encoder of `width` channels.
    pub(super) fn sequences(&self, width: usize) -> Vec<Sequence> {
        let vector = |name: &str, row: u32| {
            let inversion = self.inversions.get(name).filter(|inversion| inversion.width == width)?;
            inversion.rows.get(row as usize).cloned()
        };
        self.chunks.iter().map(|chunk| Sequence::of_chunk(chunk, &self.rule, vector)).collect()
    }

    /// The empty prompt that weights are measured against, where any differs from 1.
    pub(super) fn empty(&self) -> Option<Sequence> {
        let longest = self.chunks.iter().map(Vec::len).max().unwrap_or_default();
        self.is_weighted().then(|| Sequence::of_ids(&self.rule.empty_chunk(longest), None, &self.rule))
    }

    /// Moves the encodings of the chunks, `[tokens, channels]` each, away from that of the empty prompt:
    /// `(z − z_empty)·w + z_empty` for each token with a weight other than 1.
    pub(super) fn apply_weights(&self, chunk: usize, values: &mut [f32], empty: &[f32], channels: usize) {
        let rows = values.chunks_exact_mut(channels).zip(empty.chunks_exact(channels));
        for ((row, empty), token) in rows.zip(&self.chunks[chunk]) {
            let weight = token.weight as f32;
            if token.weight != 1.0 {
                row.iter_mut().zip(empty).for_each(|(z, empty)| *z = (*z - empty) * weight + empty);
            }
        }
    }

    /// Feeds a digest with all that shapes the encoding.
    pub(super) fn update(&self, hasher: &mut blake3::Hasher) {
        hasher.update(self.encoder.name().as_bytes());
        hasher.update(&(self.chunks.len() as u64).to_le_bytes());
        for chunk in &self.chunks {
            hasher.update(&(chunk.len() as u64).to_le_bytes());
            for token in chunk {
                hasher.update(&token.weight.to_le_bytes());
                match &token.piece {
                    TokenPiece::Id(id) => {
                        hasher.update(&[0]).update(&id.to_le_bytes());
                    }
                    TokenPiece::Embedding { name, row } => {
                        hasher.update(&[1]);
                        let row: Option<&Arc<[f32]>> =
                            self.inversions.get(&**name).and_then(|inversion| inversion.rows.get(*row as usize));
                        let values = row.map_or(&[][..], |row| row);
                        hasher.update(&(values.len() as u64).to_le_bytes());
                        values.iter().for_each(|value| {
                            hasher.update(&value.to_le_bytes());
                        });
                    }
                }
            }
        }
    }
}
