//! A tokenizer read from `tokenizer.json`. Enters: the file, then text or a chat. Leaves: token ids, and text again. It
//! must not know prompts, weights or any one model.
//!
//! The format is that of the `tokenizers` library, which also reads it here. Padding and truncation that a file asks
//! for are ignored, as transformers ignores them. That library indexes without checking in places, so what it makes of
//! a hostile file is caught and becomes an error; Rust's panic hook may still have its say on stderr.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::{sequence::Sequence, whitespace::WhitespaceSplit};
use tokenizers::tokenizer::normalizer::Range as TextRange;
use tokenizers::{
    Model, ModelWrapper, NormalizedString, Normalizer, OffsetType, PreTokenizedString, PreTokenizer, Token, Tokenizer,
};

use super::{ChatPiece, TextStream, TextToIds};
use crate::limits::{Limits, check_at_most};
use crate::{Error, ErrorKind, Result};

/// What becomes of special tokens that are written out in a text, such as `<|im_end|>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpecialTokens {
    /// They are text like any other: nobody can end a turn by writing so. Goes for every token the file adds to the
    /// vocabulary, also those it does not call special, such as `<think>`.
    Literal,
    /// They become those tokens: for templates, and for prompts as ComfyUI reads them.
    Parse,
}

/// A place in a tokenized chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChatToken {
    /// A token of the vocabulary.
    Id(u32),
    /// The next picture, as many tokens as the vision part makes of it.
    Image,
}

/// Stands for a picture while a chat is tokenized. No vocabulary has four billion tokens.
const IMAGE: u32 = u32::MAX;

/// A tokenizer from a file: T5's, Qwen3's, any other model's.
///
/// ```
/// use luna_core::tokenizer::{FileTokenizer, SpecialTokens};
/// let file = br#"{
///     "version": "1.0", "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
///     "post_processor": null, "decoder": null, "truncation": null, "padding": null,
///     "added_tokens": [{"id": 4, "content": "<end>", "special": true, "single_word": false,
///                       "lstrip": false, "rstrip": false, "normalized": false}],
///     "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "a": 1, "cat": 2, "end": 3}}
/// }"#;
/// let tokenizer = FileTokenizer::from_bytes(file)?;
/// assert_eq!(tokenizer.encode("a cat<end>", SpecialTokens::Parse)?, [1, 2, 4]);
/// assert_eq!(tokenizer.encode("a cat<end>", SpecialTokens::Literal)?, [1, 2, 0, 3, 0]);
/// assert_eq!(tokenizer.decode(&[1, 2, 4], true)?, "a cat");
/// # Ok::<(), luna_core::Error>(())
/// ```
pub struct FileTokenizer {
    inner: Tokenizer,
    /// The highest id, plus one.
    size: u64,
}

impl FileTokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] or [`ErrorKind::Io`] if it cannot be read, [`ErrorKind::LimitExceeded`] if it is larger
    /// than [`Limits::header_bytes`], [`ErrorKind::InvalidFile`] if it is not a tokenizer.
    pub fn from_file(path: impl AsRef<Path>, limits: &Limits) -> Result<Self> {
        let path = path.as_ref();
        let refused = |error| Error::io(format!("read {}", path.display()), error);
        let mut bytes = Vec::new();
        // One byte more than allowed is enough to tell, also for a file that claims no length, such as a pipe.
        let file = File::open(path).map_err(refused)?;
        file.take(limits.header_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(refused)?;
        check_at_most("bytes in a tokenizer.json", bytes.len() as u64, limits.header_bytes)
            .map_err(|error| error.at(path.display()))?;
        Self::from_bytes(&bytes).map_err(|error| error.at(path.display()))
    }

    /// Finds and reads the `tokenizer.json` of a model: beside its weights, in a folder `tokenizer` there, or, as
    /// diffusers lays models out, for `text_encoder_2/model.safetensors` in `tokenizer_2` next to that folder.
    /// `weights` may be a file or a folder.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], naming the places, if there is none; else those of [`Self::from_file`].
    pub fn beside(weights: impl AsRef<Path>, limits: &Limits) -> Result<Self> {
        let places = places_beside(weights.as_ref());
        match places.iter().find(|place| place.is_file()) {
            Some(place) => Self::from_file(place, limits),
            None => {
                let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
                Err(Error::new(ErrorKind::NotFound, "there is no tokenizer.json for these weights")
                    .expected(places.join(" or "))
                    .remedy("put the tokenizer.json of the model there, or give its path"))
            }
        }
    }

    /// Reads the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFile`] if it is not a tokenizer.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let refused = |reason: String| {
            Error::new(ErrorKind::InvalidFile, "this is not a usable tokenizer.json")
                .expected("the format of the tokenizers library")
                .found(reason)
                .remedy("take the file from the model's own page")
        };
        let read = || -> tokenizers::Result<Self> {
            let mut inner = Tokenizer::from_bytes(bytes)?;
            inner.with_truncation(None)?.with_padding(None);
            let size = inner.get_vocab(true).values().max().map_or(0, |&id| u64::from(id) + 1);
            Ok(Self { inner, size })
        };
        let tokenizer = guarded(read).map_err(refused)?;
        match tokenizer.size {
            0 => Err(refused("an empty vocabulary".to_owned())),
            size if size > u64::from(IMAGE) => Err(refused(format!("a token with the id {IMAGE}"))),
            _ => Ok(tokenizer),
        }
    }

    /// Makes this the tokenizer of a T5 as transformers 5 does: vocabulary and character map come from the file, white
    /// space is cut and marked by rules of its own. Files differ in those rules, and so would the ids of odd texts.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the file is not T5's: a unigram vocabulary that begins with `<pad>`, `</s>`,
    /// `<unk>`.
    pub fn into_t5(mut self) -> Result<Self> {
        let begins = ["<pad>", "</s>", "<unk>"].map(|token| self.token_id(token)) == [Some(0), Some(1), Some(2)];
        if !begins || !matches!(self.inner.get_model(), ModelWrapper::Unigram(_)) {
            return Err(self.not_from("T5", "a unigram vocabulary that begins with <pad>, </s>, <unk>"));
        }
        let map = self.inner.get_normalizer().and_then(character_map).cloned();
        let spaces = Metaspace::new('▁', PrependScheme::Always, true);
        let words = Sequence::new(vec![WhitespaceSplit.into(), spaces.clone().into()]);
        self.inner.with_pre_tokenizer(Some(words)).with_decoder(Some(spaces));
        self.inner.with_normalizer(map).map_err(|error| cannot("become a T5's")(error.to_string()))?;
        Ok(self)
    }

    /// Says that the file belongs to another family of models than the one asked for.
    pub(super) fn not_from(&self, family: &str, expected: &str) -> Error {
        Error::new(ErrorKind::InvalidInput, format!("this tokenizer.json is not one of {family}"))
            .expected(expected)
            .found(format!("another vocabulary, of {} tokens", self.size))
            .remedy(format!("give the tokenizer.json that came with the {family} weights"))
    }

    /// How many ids there are: the highest one, plus one.
    pub fn vocabulary_size(&self) -> usize {
        self.size as usize
    }

    /// Checks that this tokenizer can belong to a model with `rows` token embeddings.
    ///
    /// Models round their rows up, so there may be more rows than tokens, by 5 % or 1,024; never fewer.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if it cannot.
    pub fn check_rows(&self, rows: usize) -> Result<()> {
        let spare = (self.size / 20).max(1024);
        if (self.size..=self.size + spare).contains(&(rows as u64)) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "the tokenizer does not belong to this model")
            .expected(format!("a vocabulary for {rows} token embeddings"))
            .found(format!("{} tokens in tokenizer.json", self.size))
            .remedy("give the tokenizer.json that came with the weights"))
    }

    /// The id of a token by its text, `<|im_start|>` for one.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The ids of a text, with nothing put around them.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFile`] if the tokenizer cannot take the text, for which the file is to blame.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>> {
        match special {
            SpecialTokens::Parse => guarded(|| Ok(self.inner.encode_fast(text, false)?.get_ids().to_vec())),
            SpecialTokens::Literal => guarded(|| self.encode_marked(text, &[])),
        }
        .map_err(cannot("tokenize this text"))
    }

    /// The tokens of a chat. Only what the template marks as such becomes a special token.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the template uses a token that this tokenizer lacks, else as
    /// [`Self::encode`].
    pub fn encode_chat(&self, chat: &[ChatPiece]) -> Result<Vec<ChatToken>> {
        let mut text = String::new();
        let mut marks = Vec::new();
        for piece in chat {
            let start = text.len();
            text.push_str(piece.text());
            match piece {
                ChatPiece::Special(token) => {
                    let id = self.token_id(token).ok_or_else(|| {
                        Error::new(ErrorKind::InvalidInput, "the chat format does not suit this tokenizer")
                            .expected(format!("a token `{token}`"))
                            .found("none in tokenizer.json")
                            .remedy("give the tokenizer.json that came with the weights, or another chat format")
                    })?;
                    marks.push((start..text.len(), id));
                }
                ChatPiece::Image(_) => marks.push((start..text.len(), IMAGE)),
                ChatPiece::Template(_) | ChatPiece::Text(_) => {}
            }
        }
        let ids = guarded(|| self.encode_marked(&text, &marks)).map_err(cannot("tokenize this chat"))?;
        Ok(ids.into_iter().map(|id| if id == IMAGE { ChatToken::Image } else { ChatToken::Id(id) }).collect())
    }

    /// The library's own pipeline, but with the given stretches as tokens in place of what it would find itself.
    fn encode_marked(&self, text: &str, marks: &[(Range<usize>, u32)]) -> tokenizers::Result<Vec<u32>> {
        let mut pieces = PreTokenizedString::from(text);
        pieces.split(|_, whole| cut(&whole, marks))?;
        if let Some(normalizer) = self.inner.get_normalizer() {
            pieces.normalize(|piece| normalizer.normalize(piece))?;
        }
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|piece| self.inner.get_model().tokenize(piece.get()))?;
        Ok(pieces.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
    }

    /// The text of ids. Ids without a token are skipped, as are special tokens if `skip_special`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFile`] if the tokenizer's decoder fails, for which the file is to blame.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        guarded(|| self.inner.decode(ids, skip_special)).map_err(cannot("turn these ids into text"))
    }

    /// Whether an id has no text without special tokens: it is one, or there is no such token.
    pub(super) fn is_silent(&self, id: u32) -> bool {
        self.inner.id_to_token(id).is_none_or(|token| self.inner.get_added_vocabulary().is_special_token(&token))
    }

    /// Text as ids arrive one by one, without special tokens.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream::new(self)
    }
}

impl std::fmt::Debug for FileTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileTokenizer").field("vocabulary_size", &self.size).finish_non_exhaustive()
    }
}

impl TextToIds for FileTokenizer {
    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        self.encode(text, SpecialTokens::Parse)
    }
}

/// The character map of a SentencePiece model, which says what looks alike.
fn character_map(normalizer: &NormalizerWrapper) -> Option<&NormalizerWrapper> {
    match normalizer {
        NormalizerWrapper::Precompiled(_) => Some(normalizer),
        NormalizerWrapper::Sequence(steps) => steps.as_ref().iter().find_map(character_map),
        _ => None,
    }
}

/// Cuts a text at its marks, which are in order, each with its token.
fn cut(
    whole: &NormalizedString,
    marks: &[(Range<usize>, u32)],
) -> tokenizers::Result<Vec<(NormalizedString, Option<Vec<Token>>)>> {
    let slice = |range: Range<usize>| -> tokenizers::Result<NormalizedString> {
        whole.slice(TextRange::Normalized(range)).ok_or_else(|| "a mark is outside its text".into())
    };
    let mut out = Vec::with_capacity(2 * marks.len() + 1);
    let mut start = 0;
    for (range, id) in marks {
        out.push((slice(start..range.start)?, None));
        let token = Token::new(*id, String::new(), (0, range.len()));
        out.push((slice(range.clone())?, Some(vec![token])));
        start = range.end;
    }
    out.push((slice(start..whole.len())?, None));
    Ok(out)
}

/// Where a model's `tokenizer.json` may lie.
fn places_beside(weights: &Path) -> Vec<PathBuf> {
    const NAME: &str = "tokenizer.json";
    let folder = if weights.is_dir() { weights } else { weights.parent().unwrap_or(Path::new("")) };
    let mut places = vec![folder.join(NAME), folder.join("tokenizer").join(NAME)];
    let sibling = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("text_encoder"));
    if let Some(number) = sibling {
        places.push(folder.with_file_name(format!("tokenizer{number}")).join(NAME));
    }
    places
}

/// Runs the library and turns whatever goes wrong there into words.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("data that the tokenizers library cannot cope with".to_owned()),
    }
}

fn cannot(what: &str) -> impl Fn(String) -> Error {
    move |reason| {
        Error::new(ErrorKind::InvalidFile, format!("tokenizer.json cannot {what}"))
            .found(reason)
            .remedy("take the file from the model's own page")
    }
}
