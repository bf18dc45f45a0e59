//! The vocabulary inside a GGUF file, as llama.cpp's converter stores it. Enters: the file's metadata. Leaves: a
//! tokenizer, equal to the one that the model's tokenizer.json would give.
//!
//! Two kinds are read: byte-level merges as Qwen2 and Qwen3 cut text (`gpt2` with `qwen2`), and SentencePiece's merges
//! (`llama`), whose order follows from the scores of what they make.

use super::FileTokenizer;
use crate::{Error, ErrorKind, Result, checkpoint::Checkpoint};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// What Qwen2 takes for a word.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Types of tokens.
const CONTROL: f64 = 3.0;
const USER_DEFINED: f64 = 4.0;
const UNUSED: f64 = 5.0;

impl FileTokenizer {
    /// The tokenizer that a GGUF file carries in its metadata; `None` if it carries none.
    ///
    /// # Errors
    /// `Unsupported` for a kind that Luna cannot read, with what to put beside the file instead; `InvalidFile` if the
    /// lists disagree.
    pub fn in_gguf(checkpoint: &Checkpoint) -> Result<Option<Self>> {
        let said = |key: &str| checkpoint.metadata().get(&format!("tokenizer.ggml.{key}")).map(String::as_str);
        let (Some(model), Some(vocabulary)) = (said("model"), Vocabulary::of(checkpoint)?) else { return Ok(None) };
        let file = match (model, said("pre").unwrap_or("default")) {
            ("gpt2", "qwen2") => vocabulary.byte_level(&checkpoint.texts("tokenizer.ggml.merges").unwrap_or_default()),
            ("llama", _) => {
                let scores = checkpoint.numbers("tokenizer.ggml.scores").unwrap_or_default();
                vocabulary.sentence_piece(&scores, said("add_space_prefix") != Some("false"))
            }
            (model, pre) => {
                return Err(Error::new(ErrorKind::Unsupported, "Luna cannot read the vocabulary of this GGUF file")
                    .expected("that of Qwen3-VL (gpt2, qwen2) or of LLaVA 1.5 (llama)")
                    .found(format!("{model}, {pre}"))
                    .remedy("put the tokenizer.json of the model beside the file"));
            }
        };
        Self::from_bytes(file.to_string().as_bytes()).map(Some).map_err(|_| {
            Error::new(ErrorKind::InvalidFile, "the vocabulary in this GGUF file is damaged")
                .expected("tokens, types and merges or scores that fit each other")
                .remedy("convert the model again, or put its tokenizer.json beside the file")
        })
    }
}

/// Tokens by their number, with their types.
struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    types: Vec<f64>,
}

impl<'a> Vocabulary<'a> {
    fn of(checkpoint: &'a Checkpoint) -> Result<Option<Self>> {
        let Some(tokens) = checkpoint.texts("tokenizer.ggml.tokens") else { return Ok(None) };
        let types = checkpoint.numbers("tokenizer.ggml.token_type").unwrap_or_else(|| vec![1.0; tokens.len()]);
        if types.len() != tokens.len() {
            return Err(Error::new(ErrorKind::InvalidFile, "the vocabulary in this GGUF file is damaged")
                .expected(format!("{} types, one for each token", tokens.len()))
                .found(types.len().to_string()));
        }
        Ok(Some(Self { tokens, types }))
    }

    fn used(&self) -> impl Iterator<Item = (usize, &'a str, f64)> {
        let all = self.tokens.iter().zip(&self.types).enumerate();
        all.map(|(id, (token, kind))| (id, *token, *kind)).filter(|(_, _, kind)| *kind != UNUSED)
    }

    fn file(&self, model: Value, normalizer: Value, words: Value, decoder: Value) -> Value {
        let added = self.used().filter(|(_, _, kind)| [CONTROL, USER_DEFINED].contains(kind));
        let added: Vec<Value> = added
            .map(|(id, content, kind)| {
                json!({ "id": id, "content": content, "special": kind == CONTROL, "single_word": false,
                        "lstrip": false, "rstrip": false, "normalized": false })
            })
            .collect();
        json!({ "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
                "pre_tokenizer": words, "post_processor": null, "decoder": decoder, "model": model })
    }

    fn ids(&self) -> Map<String, Value> {
        self.used().map(|(id, token, _)| (token.to_owned(), id.into())).collect()
    }

    fn byte_level(&self, merges: &[&str]) -> Value {
        let bytes =
            json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false });
        let split = json!({ "type": "Split", "pattern": { "Regex": QWEN2 }, "behavior": "Isolated", "invert": false });
        let model = json!({ "type": "BPE", "vocab": self.ids(), "merges": merges });
        let words = json!({ "type": "Sequence", "pretokenizers": [split, bytes.clone()] });
        self.file(model, json!({ "type": "NFC" }), words, bytes)
    }

    fn sentence_piece(&self, scores: &[f64], prefix: bool) -> Value {
        let model = json!({ "type": "BPE", "vocab": self.ids(), "merges": self.merges(scores), "unk_token": "<unk>",
                            "fuse_unk": true, "byte_fallback": true });
        let spaces = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" });
        let first = json!({ "type": "Prepend", "prepend": "▁" });
        let steps = if prefix { vec![first, spaces] } else { vec![spaces] };
        let mut decoders = vec![
            json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
            json!({ "type": "ByteFallback" }),
            json!({ "type": "Fuse" }),
        ];
        if prefix {
            decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        let normalizer = json!({ "type": "Sequence", "normalizers": steps });
        self.file(model, normalizer, Value::Null, json!({ "type": "Sequence", "decoders": decoders }))
    }

    /// Every pair of tokens that is a token together; what has the higher score is merged first.
    fn merges(&self, scores: &[f64]) -> Vec<[&'a str; 2]> {
        let plain =
            |(id, token, kind): (usize, &'a str, f64)| (![2.0, CONTROL, 6.0].contains(&kind)).then_some((token, id));
        let ids: HashMap<&str, usize> = self.used().filter_map(plain).collect();
        let mut merges = Vec::new();
        for (&token, &id) in &ids {
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if let (Some(&first), Some(&second)) = (ids.get(left), ids.get(right)) {
                    merges.push((scores.get(id).copied().unwrap_or_default(), id, first, second));
                }
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
        merges.into_iter().map(|(_, _, left, right)| [self.tokens[left], self.tokens[right]]).collect()
    }
}
