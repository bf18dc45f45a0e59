//! What stands at each place of a text encoder's input. Enters: tokens, the vectors of textual inversions. Leaves:
//! sequences of ids and vectors with the place that is pooled, exactly as ComfyUI lays them out. It must not know
//! prompts or layers.

use crate::tokenizer::{ChunkRule, TokenPiece, WeightedToken};
use std::sync::Arc;

/// One place of an input.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    /// A token of the vocabulary.
    Id(u32),
    /// A vector in place of a token embedding.
    Vector(Arc<[f32]>),
}

/// One input of a text encoder.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sequence {
    pub(super) pieces: Vec<Piece>,
    /// Which places may be looked at, where masks are used: all up to the end token.
    pub(super) visible: Vec<bool>,
    /// The place that stands for the whole prompt.
    pub(super) pooled: usize,
}

impl Sequence {
    /// Lays out a chunk. `vector` gives the vector of a textual inversion, or nothing where it does not fit this
    /// encoder: then the place is dropped and the chunk padded at its end, so that what follows moves up.
    pub(super) fn of_chunk(
        chunk: &[WeightedToken],
        rule: &ChunkRule,
        vector: impl Fn(&str, u32) -> Option<Arc<[f32]>>,
    ) -> Self {
        let mut ends = Ends::new(rule);
        let (mut pieces, mut visible) = (Vec::with_capacity(chunk.len()), Vec::with_capacity(chunk.len()));
        for token in chunk {
            match &token.piece {
                TokenPiece::Id(id) => {
                    pieces.push(Piece::Id(*id));
                    visible.push(ends.sees(*id));
                }
                TokenPiece::Embedding { name, row } => {
                    if let Some(vector) = vector(name, *row) {
                        pieces.push(Piece::Vector(vector));
                        visible.push(true);
                    }
                }
            }
        }
        pieces.resize(chunk.len(), Piece::Id(rule.pad()));
        visible.resize(chunk.len(), false);
        Self::new(pieces, visible)
    }

    /// Lays out plain ids, with the mask that was given or the one that follows from the end token.
    pub(super) fn of_ids(ids: &[u32], mask: Option<&[bool]>, rule: &ChunkRule) -> Self {
        let mut ends = Ends::new(rule);
        let visible = match mask {
            Some(mask) => mask.to_vec(),
            None => ids.iter().map(|&id| ends.sees(id)).collect(),
        };
        Self::new(ids.iter().map(|&id| Piece::Id(id)).collect(), visible)
    }

    fn new(pieces: Vec<Piece>, visible: Vec<bool>) -> Self {
        // As many places from the start as there are visible ones: the first end token, where nothing is hidden before.
        let pooled = visible.iter().filter(|&&visible| visible).count().saturating_sub(1);
        Self { pieces, visible, pooled }
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }
}

/// Finds the first end token; in encoders without one, the first padding.
struct Ends {
    last: u32,
    inclusive: bool,
    reached: bool,
}

impl Ends {
    fn new(rule: &ChunkRule) -> Self {
        Self { last: rule.end().unwrap_or(rule.pad()), inclusive: rule.end().is_some(), reached: false }
    }

    /// Whether the next token is looked at.
    fn sees(&mut self, id: u32) -> bool {
        let before = !self.reached;
        self.reached |= id == self.last;
        before && (self.inclusive || !self.reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedding(name: &str, row: u32) -> WeightedToken {
        WeightedToken { piece: TokenPiece::Embedding { name: name.into(), row }, weight: 1.0 }
    }

    #[test]
    fn the_first_end_token_is_pooled() {
        let ids = [49406, 5, 49407, 6, 49407, 49407];
        let sequence = Sequence::of_ids(&ids, None, &ChunkRule::CLIP_L);
        assert_eq!(sequence.visible, [true, true, true, false, false, false]);
        assert_eq!(sequence.pooled, 2);
        // Without any end token, the last place.
        assert_eq!(Sequence::of_ids(&[49406, 5], None, &ChunkRule::CLIP_L).pooled, 1);
    }

    #[test]
    fn a_language_model_does_not_look_at_padding() {
        let sequence = Sequence::of_ids(&[7, 8, 0, 0], None, &ChunkRule::language_model(0));
        assert_eq!(sequence.visible, [true, true, false, false]);
    }

    #[test]
    fn vectors_that_do_not_fit_make_room_at_the_end() {
        let vector: Arc<[f32]> = Arc::from([1.0, 2.0]);
        let chunk = [
            WeightedToken::plain(49406),
            embedding("other", 0),
            embedding("fits", 0),
            WeightedToken::plain(5),
            WeightedToken::plain(49407),
        ];
        let sequence =
            Sequence::of_chunk(&chunk, &ChunkRule::CLIP_G, |name, _| (name == "fits").then(|| vector.clone()));
        let ids = [Piece::Id(49406), Piece::Vector(vector.clone()), Piece::Id(5), Piece::Id(49407), Piece::Id(0)];
        assert_eq!(sequence.pieces, ids);
        assert_eq!((sequence.visible.as_slice(), sequence.pooled), (&[true, true, true, true, false][..], 3));
    }
}
