//! Tokens and what prompts did without. Enters: what a tokenizer gave. Leaves: items of lists.

use crate::{
    handle::{boundary, c_string},
    list::{self, Item},
    status::luna_status,
    types::luna_list,
};
use luna_core::{
    protocol::TokenPlace,
    text::{EmbeddingProblem, EncoderTokens},
    tokenizer::{TokenPiece, WeightedToken},
};
use std::{
    ffi::{CString, c_char},
    ptr,
    sync::Arc,
};

crate::handle::records!(luna_token, luna_problem);

/// One token of a prompt, for one encoder.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_token {
    /// `sizeof(luna_token)`, set by the caller.
    pub size: usize,
    /// The encoder that reads it, such as `clip_l`.
    pub encoder: *const c_char,
    /// The chunk it stands in, from 0.
    pub chunk: u64,
    /// Its id in the encoder's vocabulary; -1 where a vector of a textual inversion stands.
    pub id: i64,
    /// How much it counts.
    pub weight: f64,
    /// The textual inversion's name; NULL for a token.
    pub embedding: *const c_char,
    /// Which of the textual inversion's vectors it is, from 0.
    pub row: u64,
}

/// A textual inversion that a prompt names and that was left out.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_problem {
    /// `sizeof(luna_problem)`, set by the caller.
    pub size: usize,
    /// Its name in the prompt.
    pub name: *const c_char,
    /// The encoder that does without it, such as `clip_l`.
    pub encoder: *const c_char,
    /// Why, as a sentence.
    pub text: *const c_char,
}

pub(crate) struct TokenItem {
    encoder: Arc<CString>,
    chunk: usize,
    id: Option<u32>,
    weight: f64,
    /// A textual inversion, and which of its vectors.
    embedding: Option<(CString, u32)>,
}

impl TokenItem {
    /// All tokens that an encoder reads.
    pub(crate) fn all(tokens: &EncoderTokens) -> Vec<Self> {
        let encoder = Arc::new(c_string(tokens.encoder.name()));
        let item = |(chunk, token): (usize, &WeightedToken)| Self {
            encoder: encoder.clone(),
            chunk,
            id: token.id(),
            weight: token.weight,
            embedding: match &token.piece {
                TokenPiece::Embedding { name, row, .. } => Some((c_string(name), *row)),
                TokenPiece::Id(_) => None,
            },
        };
        let chunks = tokens.chunks.iter().enumerate();
        chunks.flat_map(|(chunk, tokens)| tokens.iter().map(move |token| (chunk, token))).map(item).collect()
    }

    /// All tokens that a daemon's encoder reads.
    pub(crate) fn told(encoder: &str, chunks: &[Vec<TokenPlace>]) -> Vec<Self> {
        let encoder = Arc::new(c_string(encoder));
        let item = |(chunk, place): (usize, &TokenPlace)| Self {
            encoder: encoder.clone(),
            chunk,
            id: place.id,
            weight: place.weight,
            embedding: place.embedding.as_ref().map(|(name, row)| (c_string(name), *row)),
        };
        let places = chunks.iter().enumerate();
        places.flat_map(|(chunk, places)| places.iter().map(move |place| (chunk, place))).map(item).collect()
    }
}

impl Item for TokenItem {
    type Record = luna_token;

    fn record(&self) -> luna_token {
        luna_token {
            size: 0,
            encoder: self.encoder.as_ptr(),
            chunk: self.chunk as u64,
            id: self.id.map_or(-1, i64::from),
            weight: self.weight,
            embedding: self.embedding.as_ref().map_or(ptr::null(), |(name, _)| name.as_ptr()),
            row: self.embedding.as_ref().map_or(0, |(_, row)| u64::from(*row)),
        }
    }
}

pub(crate) struct ProblemItem([CString; 3]);

impl ProblemItem {
    pub(crate) fn new(problem: &EmbeddingProblem) -> Self {
        Self::of(problem.name(), problem.encoder().name(), &problem.to_string())
    }

    pub(crate) fn of(name: &str, encoder: &str, text: &str) -> Self {
        Self([name, encoder, text].map(c_string))
    }
}

impl Item for ProblemItem {
    type Record = luna_problem;

    fn record(&self) -> luna_problem {
        let Self([name, encoder, text]) = self;
        luna_problem { size: 0, name: name.as_ptr(), encoder: encoder.as_ptr(), text: text.as_ptr() }
    }
}

/// One token of a list that `luna_text_tokenize` gave.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_list_token(list: luna_list, index: usize, token: *mut luna_token) -> luna_status {
    boundary(|caller| list::item::<TokenItem>(caller, list, index, token))
}

/// One problem of such a list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_list_problem(list: luna_list, index: usize, problem: *mut luna_problem) -> luna_status {
    boundary(|caller| list::item::<ProblemItem>(caller, list, index, problem))
}
