//! Prompts to chunks. Enters: a prompt, and which textual inversions exist. Leaves: the chunks of weighed tokens that
//! a text encoder takes, and what could not be found. It must not know tensors or files.

use std::collections::HashSet;
use std::sync::Arc;

use super::chat::{ChatFormat, ChatMessage, ChatPiece};
use super::chunks::{ChunkRule, Group, TokenPiece, WeightedToken, fill};
use super::embedding::{Word, words};
use super::syntax::{Brackets, Segment, segments};
use super::{ClipTokenizer, FileTokenizer};
use crate::limits::{Limits, check_at_most};
use crate::{Error, ErrorKind, Result};

/// Text to token ids, without anything put around them.
pub trait TextToIds: Send + Sync {
    /// The ids of a text. Special tokens written out in the text become those tokens, as in ComfyUI.
    ///
    /// # Errors
    /// What the tokenizer says of a text it cannot take.
    fn ids(&self, text: &str) -> Result<Vec<u32>>;
}

/// Which textual inversions there are for one text encoder.
///
/// Any `Fn(&str) -> Option<usize>` is one. `name` is what stood in the prompt, so it may be any text at all, with
/// slashes and dots: whoever opens files must see to it that it stays in its folder.
pub trait EmbeddingLookup {
    /// How many vectors `name` has, or nothing if there is no such embedding.
    fn rows(&self, name: &str) -> Option<usize>;
}

impl<F: Fn(&str) -> Option<usize>> EmbeddingLookup for F {
    fn rows(&self, name: &str) -> Option<usize> {
        self(name)
    }
}

/// No textual inversions: every reference is reported as missing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEmbeddings;

impl EmbeddingLookup for NoEmbeddings {
    fn rows(&self, _name: &str) -> Option<usize> {
        None
    }
}

/// Habits of A1111's web UI that ComfyUI does not share. All off by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PromptOptions {
    /// The word `BREAK` ends the chunk, for encoders that take chunks of 77; for others it only vanishes.
    pub break_chunks: bool,
    /// `[text]` weighs 1.1 times less. `\[` and `\]` are then plain brackets. `[from:to:when]` and `[a|b]` are not
    /// read, their marks stay text.
    pub square_brackets: bool,
}

/// A prompt as a text encoder takes it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenizedPrompt {
    /// At least one. CLIP's have 77 tokens each; their encodings are joined along the token axis.
    pub chunks: Vec<Vec<WeightedToken>>,
    /// Names of textual inversions that do not exist, each once, in order. Nothing stands in their place.
    pub missing: Vec<String>,
}

impl TokenizedPrompt {
    /// Whether any token's weight differs from 1, so that the empty prompt has to be encoded as well.
    pub fn is_weighted(&self) -> bool {
        self.chunks.iter().flatten().any(|token| token.weight != 1.0)
    }
}

/// Prompts to chunks for one text encoder, as ComfyUI does it.
///
/// ```
/// use luna_core::tokenizer::{ClipTokenizer, PromptOptions, PromptTokenizer};
/// use std::sync::Arc;
///
/// let clip_l = PromptTokenizer::clip_l(Arc::new(ClipTokenizer::new()));
/// let embeddings = |name: &str| (name == "moonglow").then_some(3);
/// let prompt = clip_l.tokenize("a (red:1.3) fox embedding:moonglow embedding:sun", &PromptOptions::default(), Some(&embeddings))?;
///
/// let chunk = &prompt.chunks[0];
/// assert_eq!(chunk.len(), 77);
/// assert_eq!((chunk[2].id(), chunk[2].weight), (Some(736), 1.3));
/// assert_eq!(chunk[4].id(), None); // the first of moonglow's three vectors
/// assert_eq!(prompt.missing, ["sun"]);
/// # Ok::<(), luna_core::Error>(())
/// ```
#[derive(Clone)]
pub struct PromptTokenizer {
    text: Arc<dyn TextToIds>,
    rule: ChunkRule,
    family: Family,
    limits: Limits,
}

/// How a family of encoders reads a prompt before it is tokenized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// With weights and textual inversions.
    Weighted,
    /// As the user's words in a chat; only backslashed brackets are read.
    Chat(ChatFormat),
}

impl PromptTokenizer {
    /// For CLIP-L: SD1.5, SDXL's first encoder, SD3's, Flux's.
    pub fn clip_l(clip: Arc<ClipTokenizer>) -> Self {
        Self::new(clip, ChunkRule::CLIP_L, Family::Weighted)
    }

    /// For CLIP-G: SDXL's second encoder, SD3's.
    pub fn clip_g(clip: Arc<ClipTokenizer>) -> Self {
        Self::new(clip, ChunkRule::CLIP_G, Family::Weighted)
    }

    /// For T5, padded to `shortest` tokens: 77 for SD3, 256 for Flux.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the file is not T5's.
    pub fn t5(file: FileTokenizer, shortest: usize) -> Result<Self> {
        Ok(Self::new(Arc::new(file.into_t5()?), ChunkRule::t5(shortest), Family::Weighted))
    }

    /// For Qwen3 as Z-Image uses it: the prompt is the user's turn of a chat, and weights are text.
    ///
    /// Special tokens written out in the prompt become those tokens, because ComfyUI tokenizes the chat as one text.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the file lacks the tokens of Qwen's chats.
    pub fn z_image(file: Arc<FileTokenizer>) -> Result<Self> {
        let [Some(pad), Some(_), Some(_)] =
            ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(|token| file.token_id(token))
        else {
            return Err(file.not_from("Qwen3", "tokens <|im_start|>, <|im_end|> and <|endoftext|>"));
        };
        Ok(Self::new(file, ChunkRule::language_model(pad), Family::Chat(ChatFormat::Qwen)))
    }

    fn new(text: Arc<dyn TextToIds>, rule: ChunkRule, family: Family) -> Self {
        Self { text, rule, family, limits: Limits::default() }
    }

    /// Replaces the caps on the prompt: [`Limits::prompt_bytes`] and [`Limits::prompt_tokens`].
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Pads to at least this many tokens: 77 for SD3's T5, 256 for Flux's. Chunks of CLIP stay as they are.
    pub fn with_shortest(mut self, shortest: usize) -> Self {
        self.rule = self.rule.with_shortest(shortest);
        self
    }

    /// What the chunks are like.
    pub fn rule(&self) -> &ChunkRule {
        &self.rule
    }

    /// Reads a prompt. Without `embeddings`, references to textual inversions are text.
    ///
    /// # Errors
    /// [`ErrorKind::LimitExceeded`] for too long a prompt or too many tokens, [`ErrorKind::InvalidInput`] for a weight
    /// that is not finite (ComfyUI takes `(cat:nan)` and makes a black picture).
    pub fn tokenize(
        &self,
        prompt: &str,
        options: &PromptOptions,
        embeddings: Option<&dyn EmbeddingLookup>,
    ) -> Result<TokenizedPrompt> {
        check_at_most("bytes in the prompt", prompt.len() as u64, self.limits.prompt_bytes as u64)
            .map_err(|error| error.remedy("shorten the prompt"))?;
        let (segments, embeddings) = match self.family {
            Family::Weighted if options.square_brackets => (segments(prompt, Brackets::RoundAndSquare), embeddings),
            Family::Weighted => (segments(prompt, Brackets::Round), embeddings),
            Family::Chat(format) => {
                let chat = format.render(&[ChatMessage::user(prompt)]);
                let text: String = chat.iter().map(ChatPiece::text).collect();
                (segments(&text, Brackets::Plain), None)
            }
        };
        let mut reading = Reading::new(&*self.text, embeddings, self.limits.prompt_tokens);
        for segment in &segments {
            if options.break_chunks && self.family == Family::Weighted {
                reading.add_broken(segment, self.rule.is_chunked())?;
            } else {
                reading.add(&segment.text, segment.weight)?;
            }
        }
        let chunks = fill(&self.rule, reading.groups, self.limits.prompt_tokens)?;
        Ok(TokenizedPrompt { chunks, missing: reading.missing })
    }
}

impl std::fmt::Debug for PromptTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PromptTokenizer")
            .field("rule", &self.rule)
            .field("family", &self.family)
            .finish_non_exhaustive()
    }
}

/// A prompt while its groups of tokens are collected.
struct Reading<'a> {
    text: &'a dyn TextToIds,
    embeddings: Option<&'a dyn EmbeddingLookup>,
    most: usize,
    groups: Vec<Group>,
    tokens: usize,
    missing: Vec<String>,
    missed: HashSet<String>,
}

impl<'a> Reading<'a> {
    fn new(text: &'a dyn TextToIds, embeddings: Option<&'a dyn EmbeddingLookup>, most: usize) -> Self {
        let (groups, missing, missed) = (Vec::new(), Vec::new(), HashSet::new());
        Self { text, embeddings, most, groups, tokens: 0, missing, missed }
    }

    /// Adds a segment that may hold `BREAK`.
    fn add_broken(&mut self, segment: &Segment, breaks: bool) -> Result<()> {
        for (i, part) in split_at_breaks(&segment.text).into_iter().enumerate() {
            if i > 0 && breaks {
                self.groups.push(Group::Break);
            }
            self.add(part, segment.weight)?;
        }
        Ok(())
    }

    fn add(&mut self, text: &str, weight: f64) -> Result<()> {
        for word in words(text, self.embeddings) {
            let group: Vec<TokenPiece> = match word {
                Word::Text(text) => self.text.ids(&text)?.into_iter().map(TokenPiece::Id).collect(),
                Word::Embedding { name, rows } => {
                    self.check_tokens(rows)?;
                    let name: Arc<str> = name.into();
                    (0..rows).map(|row| TokenPiece::Embedding { name: name.clone(), row: row as u32 }).collect()
                }
                Word::Missing(name) => {
                    if self.missed.insert(name.clone()) {
                        self.missing.push(name);
                    }
                    continue;
                }
            };
            self.check_tokens(group.len())?;
            if !group.is_empty() {
                check_weight(weight)?;
            }
            self.tokens += group.len();
            self.groups.push(Group::Tokens(group.into_iter().map(|piece| WeightedToken { piece, weight }).collect()));
        }
        Ok(())
    }

    fn check_tokens(&self, more: usize) -> Result<()> {
        check_at_most("tokens in the prompt", self.tokens.saturating_add(more) as u64, self.most as u64)
            .map_err(|error| error.remedy("shorten the prompt"))
    }
}

/// Cuts at the word `BREAK` and takes the white space around it away.
fn split_at_breaks(text: &str) -> Vec<&str> {
    const WORD: &str = "BREAK";
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(WORD) {
        let (before, after) = (&text[..at], &text[at + WORD.len()..]);
        if !before.ends_with(is_word) && !after.starts_with(is_word) {
            let part = &before[start..];
            parts.push(if start == 0 { part.trim_end() } else { part.trim() });
            start = at + WORD.len();
        }
    }
    let last = &text[start..];
    parts.push(if start == 0 { last } else { last.trim_start() });
    parts
}

/// Refuses a weight that would spoil every number it touches.
fn check_weight(weight: f64) -> Result<()> {
    if (weight as f32).is_finite() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, "a prompt weight is not a finite number")
        .expected("a number between -3.4e38 and 3.4e38 after the last colon in brackets, and moderate nesting")
        .found(weight.to_string())
        .remedy("change the weight, or write the brackets as \\( and \\) if they are meant as text"))
}
