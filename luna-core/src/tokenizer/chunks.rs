//! Chunks: the token lists a text encoder takes. Enters: groups of weighed tokens. Leaves: chunks with start, end and
//! padding, filled as ComfyUI fills them. It must not know prompts or tokenizers.

use std::sync::Arc;

#[cfg(doc)]
use crate::ErrorKind;
use crate::Result;
use crate::limits::check_at_most;

/// A group of fewer tokens than this is kept in one chunk; a longer one is broken where the chunk ends.
const UNBROKEN_BELOW: usize = 8;
/// Stands for "no end" among chunk lengths.
const UNBOUNDED: usize = 99_999_999;

/// What one position of a chunk holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TokenPiece {
    /// A token of the vocabulary.
    Id(u32),
    /// Row `row` of the textual inversion `name`, to be put in place of a token embedding.
    Embedding {
        /// As the lookup knows it.
        name: Arc<str>,
        /// From 0.
        row: u32,
    },
}

/// One position of a chunk: a token or a textual inversion's vector, and its weight.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedToken {
    /// What stands there.
    pub piece: TokenPiece,
    /// How much it counts; 1 for start, end and padding. Finite, also as `f32`.
    pub weight: f64,
}

impl WeightedToken {
    /// A token of weight 1.
    pub fn plain(id: u32) -> Self {
        Self { piece: TokenPiece::Id(id), weight: 1.0 }
    }

    /// The token's id, unless a textual inversion stands here.
    pub fn id(&self) -> Option<u32> {
        match self.piece {
            TokenPiece::Id(id) => Some(id),
            TokenPiece::Embedding { .. } => None,
        }
    }
}

/// What a text encoder wants around the tokens and how many it takes.
///
/// ```
/// use luna_core::tokenizer::ChunkRule;
/// assert_eq!(ChunkRule::CLIP_G.empty_chunk(4), [49406, 49407, 0, 0]);
/// assert_eq!(ChunkRule::t5(256).empty_chunk(3), [1, 0, 0]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkRule {
    start: Option<u32>,
    end: Option<u32>,
    pad: u32,
    /// Most tokens of a chunk, start and end included.
    longest: usize,
    /// Fewest tokens of the last chunk; shorter ones are padded.
    shortest: usize,
}

impl ChunkRule {
    /// CLIP-L: chunks of 77, padded with the end token. SD1.5, SDXL, SD3 and Flux.
    pub const CLIP_L: Self = Self { start: Some(49406), end: Some(49407), pad: 49407, longest: 77, shortest: 77 };
    /// CLIP-G: chunks of 77, padded with token 0. SDXL and SD3.
    pub const CLIP_G: Self = Self { pad: 0, ..Self::CLIP_L };

    /// T5: one chunk of any length, ended by token 1 and padded with 0 to `shortest`: 77 for SD3, 256 for Flux.
    pub const fn t5(shortest: usize) -> Self {
        Self { start: None, end: Some(1), pad: 0, longest: UNBOUNDED, shortest }
    }

    /// A language model: one chunk of any length with nothing around it, and at least one token.
    pub const fn language_model(pad: u32) -> Self {
        Self { start: None, end: None, pad, longest: UNBOUNDED, shortest: 1 }
    }

    /// The same with another least length, unless prompts are cut into chunks of one length.
    pub(super) const fn with_shortest(self, shortest: usize) -> Self {
        if self.is_chunked() { self } else { Self { shortest, ..self } }
    }

    /// Whether prompts are cut into chunks of one length, so that they can be padded to chunks of their own.
    pub const fn is_chunked(&self) -> bool {
        self.longest < UNBOUNDED
    }

    /// The token that fills up.
    pub const fn pad(&self) -> u32 {
        self.pad
    }

    /// The token that ends a chunk, which is also where an attention mask ends.
    pub const fn end(&self) -> Option<u32> {
        self.end
    }

    /// The empty prompt as a chunk of `length`: what weighted chunks are measured against.
    pub fn empty_chunk(&self, length: usize) -> Vec<u32> {
        let around = self.start.into_iter().chain(self.end);
        around.chain(std::iter::repeat(self.pad)).take(length).collect()
    }
}

/// Tokens that belong together, or a wish between them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Group {
    Tokens(Vec<WeightedToken>),
    /// End the chunk here.
    Break,
}

/// Chunks under way.
struct Filling<'a> {
    rule: &'a ChunkRule,
    done: Vec<Vec<WeightedToken>>,
    current: Vec<WeightedToken>,
    total: usize,
    most: usize,
}

/// Fills chunks with groups, at most `most` tokens in all.
///
/// # Errors
/// [`ErrorKind::LimitExceeded`] when more are needed.
pub(super) fn fill(rule: &ChunkRule, groups: Vec<Group>, most: usize) -> Result<Vec<Vec<WeightedToken>>> {
    let mut filling = Filling { rule, done: Vec::new(), current: Vec::new(), total: 0, most };
    filling.open();
    let (room_for_end, mut broken) = (usize::from(rule.end.is_some()), false);
    for group in groups {
        let Group::Tokens(mut tokens) = group else {
            filling.close()?;
            filling.open();
            broken = true;
            continue;
        };
        broken &= tokens.is_empty();
        let is_long = tokens.len() >= UNBROKEN_BELOW;
        while tokens.len() + filling.current.len() + room_for_end > rule.longest {
            if is_long {
                let after = tokens.split_off(rule.longest - filling.current.len() - room_for_end);
                filling.current.append(&mut tokens);
                tokens = after;
            }
            filling.close()?;
            filling.open();
        }
        filling.current.append(&mut tokens);
    }
    // A break at the very end asks for nothing more.
    if !broken {
        filling.close()?;
    }
    Ok(filling.done)
}

impl Filling<'_> {
    fn open(&mut self) {
        self.current = self.rule.start.map(WeightedToken::plain).into_iter().collect();
    }

    /// Ends and pads the current chunk. All but the last are full already, unless a group was moved on.
    fn close(&mut self) -> Result<()> {
        let mut chunk = std::mem::take(&mut self.current);
        chunk.extend(self.rule.end.map(WeightedToken::plain));
        let length = chunk.len().max(self.rule.shortest);
        self.total = self.total.saturating_add(length);
        check_at_most("tokens in the prompt", self.total as u64, self.most as u64)
            .map_err(|error| error.remedy("shorten the prompt"))?;
        chunk.resize(length, WeightedToken::plain(self.rule.pad));
        self.done.push(chunk);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
