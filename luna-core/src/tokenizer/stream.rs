//! Text as it is generated. Enters: token ids one at a time. Leaves: the text each one completes. It must not know who
//! generates.

use super::FileTokenizer;
use crate::Result;

/// What decoders write for bytes that are not, or not yet, a character.
const REPLACEMENT: char = '\u{FFFD}';
/// An unfinished character is three bytes at most, and some decoders write one replacement for each.
const UNFINISHED: usize = 3;
/// Ids kept while no text can be given out, as when a model writes nothing but broken characters.
const WINDOW: usize = 64;

/// Text from ids as they arrive, from [`FileTokenizer::stream`].
///
/// A character spread over several tokens is held back until it is whole. What [`push`](Self::push) and
/// [`finish`](Self::finish) return, joined, is the text of all ids, without special tokens.
///
/// ```no_run
/// # fn generate() -> Vec<u32> { Vec::new() }
/// use luna_core::{Limits, tokenizer::FileTokenizer};
/// let tokenizer = FileTokenizer::beside("qwen3_vl", &Limits::default())?;
/// let mut stream = tokenizer.stream();
/// let mut answer = String::new();
/// for id in generate() {
///     answer += &stream.push(id)?;
/// }
/// answer += &stream.finish()?;
/// # Ok::<(), luna_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TextStream<'a> {
    tokenizer: &'a FileTokenizer,
    /// The latest ids. The first `context` of them are only there because a token's text can depend on the one
    /// before it.
    ids: Vec<u32>,
    context: usize,
    /// How many bytes of the text of `ids` have been given out.
    given: usize,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(tokenizer: &'a FileTokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), context: 0, given: 0 }
    }

    /// Takes the next id and returns the text that it completes, which may be empty.
    ///
    /// # Errors
    /// Those of [`FileTokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<String> {
        if self.tokenizer.is_silent(id) {
            return Ok(String::new());
        }
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids, true)?;
        let whole = whole_length(&text);
        let new = text.get(self.given..whole).unwrap_or_default().to_owned();
        self.given = self.given.max(whole);
        if whole == text.len() && !new.is_empty() {
            self.ids.drain(..self.context);
            self.restart()?;
        } else if self.ids.len() > WINDOW {
            self.ids.drain(..WINDOW / 2);
            self.restart()?;
            self.context = 0;
        }
        Ok(new)
    }

    /// Counts all of `ids` as given out, save for an unfinished character.
    fn restart(&mut self) -> Result<()> {
        self.context = self.ids.len();
        self.given = whole_length(&self.tokenizer.decode(&self.ids, true)?);
        Ok(())
    }

    /// Returns what was held back: a character that was never finished.
    ///
    /// # Errors
    /// Those of [`FileTokenizer::decode`].
    pub fn finish(self) -> Result<String> {
        let text = self.tokenizer.decode(&self.ids, true)?;
        Ok(text.get(self.given..).unwrap_or_default().to_owned())
    }
}

/// How much of a text is there to stay, whatever comes next.
fn whole_length(text: &str) -> usize {
    let unfinished = text.chars().rev().take_while(|&c| c == REPLACEMENT).take(UNFINISHED).count();
    text.len() - unfinished * REPLACEMENT.len_utf8()
}
