//! Byte-pair merging with CLIP's vocabulary. Enters: the bytes of one word. Leaves: token ids, and back. It must not
//! know how a text is cut into words, nor what a prompt is.
//!
//! The vocabulary is built in: `clip_merges.bin` holds 48,894 pairs of little-endian `u16`, written by
//! `clip_merges.py` from OpenAI's `bpe_simple_vocab_16e6.txt` (MIT, see `clip_merges.LICENSE.txt`).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Pairs of token ids; pair `i` makes token `FIRST_MERGE + i`, and a smaller `i` is merged first.
static MERGES: &[u8] = include_bytes!("clip_merges.bin");

/// Tokens below this one are bytes, inside a word and, from 256 on, at its end.
const FIRST_MERGE: u16 = 512;
const END_OF_WORD: u16 = 256;

/// How many tokens words are made of; the two special tokens come right after.
pub(super) const WORD_TOKENS: u32 = FIRST_MERGE as u32 + (MERGES.len() / 4) as u32;

/// The merges, ready to be looked up.
pub(super) struct Bpe {
    /// What a pair of neighbours becomes. Ids double as ranks: of two merges the smaller id goes first.
    merged: HashMap<(u16, u16), u16>,
}

/// One place in a word under way. `next` and `previous` skip what has been merged away.
#[derive(Clone, Copy)]
struct Symbol {
    id: u16,
    previous: usize,
    next: usize,
}

/// Stands for "no neighbour" in a [`Symbol`], and marks one that is gone.
const NONE: usize = usize::MAX;
const GONE: usize = usize::MAX - 1;

impl Bpe {
    pub(super) fn new() -> Self {
        let merged = (FIRST_MERGE..).zip(MERGES.as_chunks::<4>().0).map(|(id, m)| (pair(m), id)).collect();
        Self { merged }
    }

    /// Appends the ids of one word, that is of bytes that stand together.
    ///
    /// Of all neighbours that can merge, the pair with the smallest id merges first, the leftmost of equals; the heap
    /// makes that n·log n, so that one word of a megabyte is no different from many short ones.
    pub(super) fn encode_word(&self, word: &[u8], out: &mut Vec<u32>) {
        let mut symbols = spread(word);
        let mut queue: BinaryHeap<Reverse<(u16, usize)>> =
            (0..symbols.len()).filter_map(|left| self.merge_at(&symbols, left)).map(Reverse).collect();
        while let Some(Reverse((id, left))) = queue.pop() {
            // Entries are not taken back when their symbols change, so an old one may no longer hold.
            if self.merge_at(&symbols, left) != Some((id, left)) {
                continue;
            }
            let right = symbols[left].next;
            let after = symbols[right].next;
            symbols[right].previous = GONE;
            symbols[left] = Symbol { id, next: after, ..symbols[left] };
            if after != NONE {
                symbols[after].previous = left;
            }
            let before = symbols[left].previous;
            queue.extend([before, left].iter().filter_map(|&l| self.merge_at(&symbols, l)).map(Reverse));
        }
        out.extend(symbols.iter().filter(|s| s.previous != GONE).map(|s| u32::from(s.id)));
    }

    /// What the symbol at `left` and its right neighbour become.
    fn merge_at(&self, symbols: &[Symbol], left: usize) -> Option<(u16, usize)> {
        let symbol = symbols.get(left).filter(|s| s.previous != GONE)?;
        let right = symbols.get(symbol.next)?;
        self.merged.get(&(symbol.id, right.id)).map(|&id| (id, left))
    }

    /// Appends the bytes `id` stands for, and a space where a word ends. `id` must be below [`WORD_TOKENS`].
    pub(super) fn decode(id: u32, out: &mut Vec<u8>) {
        let mut left_to_do = vec![id as u16];
        while let Some(id) = left_to_do.pop() {
            match id.checked_sub(FIRST_MERGE) {
                Some(merge) => {
                    let (left, right) = pair(&MERGES.as_chunks::<4>().0[usize::from(merge)]);
                    left_to_do.extend([right, left]);
                }
                None => {
                    out.push(byte_of((id % END_OF_WORD) as u8));
                    if id >= END_OF_WORD {
                        out.push(b' ');
                    }
                }
            }
        }
    }
}

/// One symbol a byte; the last one says that the word ends.
fn spread(word: &[u8]) -> Vec<Symbol> {
    let mut symbols: Vec<Symbol> = word
        .iter()
        .enumerate()
        .map(|(i, &byte)| Symbol { id: u16::from(token_of(byte)), previous: i.wrapping_sub(1), next: i + 1 })
        .collect();
    if let Some(last) = symbols.last_mut() {
        last.id += END_OF_WORD;
        last.next = NONE;
    }
    symbols
}

fn pair(merge: &[u8; 4]) -> (u16, u16) {
    let [a, b, c, d] = *merge;
    (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
}

/// The byte tokens' order: what prints in Latin-1 comes first, then the rest.
fn token_of(byte: u8) -> u8 {
    match byte {
        0..=32 => 188 + byte,
        33..=126 => byte - 33,
        127..=160 => byte - 127 + 221,
        161..=172 => byte - 161 + 94,
        173 => 255,
        174..=255 => byte - 174 + 106,
    }
}

/// The inverse of [`token_of`].
fn byte_of(token: u8) -> u8 {
    match token {
        0..=93 => token + 33,
        94..=105 => token - 94 + 161,
        106..=187 => token - 106 + 174,
        188..=220 => token - 188,
        221..=254 => token - 221 + 127,
        255 => 173,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_tokens_are_a_permutation() {
        assert!((0..=255).all(|byte| byte_of(token_of(byte)) == byte));
    }

    #[test]
    fn every_merge_joins_tokens_made_before_it_and_no_pair_comes_twice() {
        assert_eq!(WORD_TOKENS, 49_406);
        assert_eq!(Bpe::new().merged.len(), MERGES.len() / 4);
        for (id, merge) in (FIRST_MERGE..).zip(MERGES.as_chunks::<4>().0) {
            let (left, right) = pair(merge);
            assert!(left < id && right < id);
        }
    }

    #[test]
    fn no_byte_is_lost_in_merging() {
        let bpe = Bpe::new();
        let mut word = Vec::new();
        for id in 0..WORD_TOKENS {
            word.clear();
            Bpe::decode(id, &mut word);
            let (mut ids, mut again) = (Vec::new(), Vec::new());
            bpe.encode_word(&word, &mut ids);
            ids.iter().for_each(|&id| Bpe::decode(id, &mut again));
            word.push(b' ');
            assert_eq!(again, word);
        }
    }

    #[test]
    fn a_word_that_is_one_token_is_found() {
        let mut ids = Vec::new();
        Bpe::new().encode_word(b"photograph", &mut ids);
        assert_eq!(ids, [8853]);
    }
}
