//! What a VLM is loaded and called with.

use crate::{Call, Limits, Patches, Precision};
use std::{path::PathBuf, sync::Arc};

/// Where things lie that belong to the weights.
#[derive(Debug, Clone, Default)]
pub struct VlmLoadOptions {
    /// The `tokenizer.json`; else the one beside the weights, else what a GGUF file says itself. Without any only ids can
    /// be generated.
    pub tokenizer: Option<PathBuf>,
    /// The vision part of a GGUF language model; else the one file `mmproj-*.gguf` beside it that fits.
    pub projector: Option<PathBuf>,
    /// Caps on files and prompts.
    pub limits: Limits,
}

/// How the next token is chosen. Filters apply in this order, each to what the ones before have left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token always (greedy).
    pub temperature: f32,
    /// Only this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Only tokens at least this times as likely as the most likely; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens that occurred, prompt included; 1 does nothing.
    pub repetition_penalty: f32,
    /// The same seed chooses the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// Options of [`super::VlmModel::generate`].
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// How they are chosen.
    pub sampling: Sampling,
    /// Generation ends before the first of these that the text would contain. They need the model's tokenizer.
    pub stop: Vec<String>,
    /// Whether a token that ends a turn ends generation.
    pub stop_at_end: bool,
    /// Precision of activations, and of what is remembered of earlier tokens.
    pub precision: Precision,
    /// What is added to the weights for this call: [`crate::lora::Resolved::patches`].
    pub lora: Option<Arc<Patches>>,
    /// Cancellation, heard between tokens and inside of long prompts, and progress in tokens.
    pub call: Call,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 512,
            sampling: Sampling::default(),
            stop: Vec::new(),
            stop_at_end: true,
            precision: Precision::default(),
            lora: None,
            call: Call::default(),
        }
    }
}

/// What a listener hears while text is generated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Piece<'a> {
    /// The token.
    pub id: u32,
    /// The text that it completes; empty for half a character, and for what may turn out to be a stop string. The
    /// pieces of a generation, joined, are its text.
    pub text: &'a str,
}

/// Something was done otherwise than asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fallback {
    /// Half precision gave NaN or infinity, so generation went on in f32 from this token, with all before it read again.
    Widened {
        /// The precision that was asked for.
        from: Precision,
        /// How many tokens had been generated.
        token: usize,
    },
}

impl Fallback {
    /// A stable name in snake case.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Widened { .. } => "widened_to_f32",
        }
    }
}

impl std::fmt::Display for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Widened { from, token } => {
                write!(f, "done in f32 from token {token} on: {from} gave values that are NaN or infinite")
            }
        }
    }
}
