//! `tokenize`: what a text encoder reads of a prompt. Loads no weights.

use super::{
    remote,
    text::{embedding_folders, read_prompt},
};
use crate::settings;
use luna_core::{
    Error, ErrorKind, Limits, Result,
    text::EncoderKind,
    tokenizer::{EmbeddingLookup, FileTokenizer, NoEmbeddings, TokenPiece, WeightedToken},
};
use serde::{Serialize, Serializer, ser::SerializeTuple};
use std::{num::NonZeroUsize, path::Path};

/// What `tokenize` found.
#[derive(Serialize)]
pub struct TokenizeOutcome {
    pub encoder: &'static str,
    /// 77 tokens to a chunk for a CLIP, one chunk for the others.
    pub chunks: Vec<Vec<TokenOutcome>>,
    /// Tokens of all chunks, with start, end and padding.
    pub tokens: usize,
    /// Textual inversions that the prompt names and that do not exist or cannot be read, each once.
    pub missing_embeddings: Vec<String>,
}

/// A token: `[id, weight]`, or `["embedding", weight]` where a vector of a textual inversion stands.
pub struct TokenOutcome(pub WeightedToken);

impl Serialize for TokenOutcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut pair = serializer.serialize_tuple(2)?;
        match &self.0.piece {
            TokenPiece::Id(id) => pair.serialize_element(id)?,
            TokenPiece::Embedding { .. } => pair.serialize_element("embedding")?,
        }
        pair.serialize_element(&self.0.weight)?;
        pair.end()
    }
}

/// Reads the prompt.
pub fn run(settings: &settings::Tokenize) -> Result<TokenizeOutcome> {
    let kind = settings.encoder;
    let prompt = read_prompt(&settings.prompt)?;
    if let Some(daemon) = &settings.daemon {
        return remote::tokenize(settings, daemon, prompt);
    }
    let file = || match settings.tokenizer.as_deref() {
        Some(path) => tokenizer_file(path),
        None => Err(Error::new(ErrorKind::InvalidInput, format!("{kind} needs the tokenizer.json of its model"))
            .expected("--tokenizer with the file, or the model's folder")),
    };
    let tokenizer = kind.tokenizer(Default::default(), file)?.with_shortest(match kind {
        EncoderKind::T5 => settings.reading.t5_tokens.map_or(256, NonZeroUsize::get),
        _ => 1,
    });
    let folders = embedding_folders(&settings.reading)?;
    let lookup: Box<dyn EmbeddingLookup> = match &folders {
        Some(folders) => Box::new(folders.lookup(kind)),
        None => Box::new(NoEmbeddings),
    };
    let read = tokenizer.tokenize(&prompt, &settings.reading.syntax, Some(&*lookup))?;
    let chunks: Vec<Vec<_>> =
        read.chunks.into_iter().map(|chunk| chunk.into_iter().map(TokenOutcome).collect()).collect();
    Ok(TokenizeOutcome {
        encoder: kind.name(),
        tokens: chunks.iter().map(Vec::len).sum(),
        chunks,
        missing_embeddings: read.missing,
    })
}

/// A `tokenizer.json`, or the one of a model's folder.
fn tokenizer_file(path: &Path) -> Result<FileTokenizer> {
    let limits = Limits::default();
    if path.is_dir() { FileTokenizer::beside(path, &limits) } else { FileTokenizer::from_file(path, &limits) }
}
