//! CLIP's tokenizer. Enters: text. Leaves: token ids, and text again. It must not know prompts, weights or chunks.
//!
//! It answers what `CLIPTokenizer` of transformers 5 answers, which is what ComfyUI asks: `<|endoftext|>` is found
//! first, the text between is brought to NFC and to lower case letter by letter, `<|startoftext|>` is found, and the
//! rest falls into words: contractions, runs of letters, single digits, runs of anything else that is not space.
//! HTML entities are text like any other (`&amp;` is `&`, `amp`, `;`), control characters are kept, and CJK
//! characters are not set apart: those were habits of OpenAI's script and of earlier transformers.

use regex::Regex;
use unicode_normalization_alignments::UnicodeNormalization;

use super::TextToIds;
use super::bpe::{Bpe, WORD_TOKENS};
use crate::{Error, ErrorKind, Result};

const START_TEXT: &str = "<|startoftext|>";
const END_TEXT: &str = "<|endoftext|>";

/// Text to the token ids of CLIP text encoders and back, with the vocabulary built in.
///
/// Building one takes some milliseconds and 2 MB; share it between threads behind an `Arc`.
///
/// ```
/// use luna_core::tokenizer::ClipTokenizer;
/// let clip = ClipTokenizer::new();
/// assert_eq!(clip.encode("A photo of a cat"), [320, 1125, 539, 320, 2368]);
/// assert_eq!(clip.decode(&[320, 2368])?, "a cat");
/// # Ok::<(), luna_core::Error>(())
/// ```
pub struct ClipTokenizer {
    bpe: Bpe,
    words: Regex,
}

impl ClipTokenizer {
    /// `<|startoftext|>`, the first token of every chunk.
    pub const START: u32 = WORD_TOKENS;
    /// `<|endoftext|>`, the last one.
    pub const END: u32 = WORD_TOKENS + 1;
    /// How many tokens there are, and so the rows of a CLIP text encoder's token embedding.
    pub const VOCABULARY: u32 = WORD_TOKENS + 2;

    /// Reads the built-in vocabulary.
    pub fn new() -> Self {
        let words = r"<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+";
        Self { bpe: Bpe::new(), words: Regex::new(words).expect("a constant pattern") }
    }

    /// The ids of a text, without start and end.
    ///
    /// `<|startoftext|>` and `<|endoftext|>` in the text become those tokens, as in ComfyUI.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        for (i, piece) in text.split(END_TEXT).enumerate() {
            if i > 0 {
                ids.push(Self::END);
            }
            let normal: String = piece.nfc().flat_map(|(c, _)| c.to_lowercase()).collect();
            for (j, piece) in normal.split(START_TEXT).enumerate() {
                if j > 0 {
                    ids.push(Self::START);
                }
                self.encode_words(piece, &mut ids);
            }
        }
        ids
    }

    fn encode_words(&self, text: &str, ids: &mut Vec<u32>) {
        for word in self.words.find_iter(text) {
            // Only a spelling with capitals is still here. It cuts the text like the token but is three words.
            if word.as_str() == END_TEXT {
                ["<|", "endoftext", "|>"].iter().for_each(|w| self.bpe.encode_word(w.as_bytes(), ids));
            } else {
                self.bpe.encode_word(word.as_str().as_bytes(), ids);
            }
        }
    }

    /// The text of ids, in lower case and with a space after each word but the last; start and end are left out.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an id that CLIP does not have.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut bytes = Vec::new();
        for &id in ids {
            match id {
                Self::START | Self::END => {}
                _ if id < WORD_TOKENS => Bpe::decode(id, &mut bytes),
                _ => {
                    return Err(Error::new(ErrorKind::InvalidInput, "CLIP has no such token")
                        .expected(format!("an id below {}", Self::VOCABULARY))
                        .found(id.to_string()));
                }
            }
        }
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }
}

impl Default for ClipTokenizer {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for ClipTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClipTokenizer").finish_non_exhaustive()
    }
}

impl TextToIds for ClipTokenizer {
    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encode(text))
    }
}
