//! References to textual inversions. Enters: a piece of a prompt. Leaves: the words in it and the embeddings it names,
//! split exactly as ComfyUI splits them. It must not know where embeddings are kept, nor what is in them.

use super::EmbeddingLookup;

const PREFIX: &str = "embedding:";

/// What a piece of a prompt is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// Text for the tokenizer.
    Text(String),
    /// An embedding that exists, and how many vectors it has.
    Embedding { name: String, rows: usize },
    /// The name of one that does not.
    Missing(String),
}

/// Splits a piece of a prompt at its embeddings.
///
/// `embedding:` counts at the start of the piece and after a space or line break. The name goes to the next white
/// space; if there is no such embedding, commas around the name are taken for punctuation. What follows the name in
/// the same piece is text again. Without a lookup the references stay text, yet the piece is split all the same.
pub(super) fn words(piece: &str, embeddings: Option<&dyn EmbeddingLookup>) -> Vec<Word> {
    let mut out = Vec::new();
    for part in split_before_references(piece).into_iter().filter(|part| !part.is_empty()) {
        match (part.strip_prefix(PREFIX), embeddings) {
            (Some(reference), Some(embeddings)) => resolve(reference, embeddings, &mut out),
            _ => out.push(Word::Text(part.to_owned())),
        }
    }
    out
}

/// Cuts before each reference that follows a space or a line break, and drops that character.
fn split_before_references(piece: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in piece.match_indices(PREFIX) {
        if at > start && matches!(piece.as_bytes()[at - 1], b' ' | b'\n') {
            parts.push(&piece[start..at - 1]);
            start = at;
        }
    }
    parts.push(&piece[start..]);
    parts
}

/// Python's idea of white space: Unicode's, and the four separators of ASCII.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Looks an embedding up and keeps the text after its name.
fn resolve(reference: &str, embeddings: &dyn EmbeddingLookup, out: &mut Vec<Word>) {
    let mut parts = reference.split(is_python_space).filter(|part| !part.is_empty());
    let name = parts.next().unwrap_or("");
    let rest = parts.collect::<Vec<_>>().join(" ");
    let found = |name: &str| embeddings.rows(name).filter(|_| !name.is_empty());

    let bare = name.trim_matches(',');
    let (word, rest) = match found(name) {
        Some(rows) => (Word::Embedding { name: name.to_owned(), rows }, rest),
        None if bare.len() == name.len() => (Word::Missing(name.to_owned()), rest),
        None => {
            let word = match found(bare) {
                Some(rows) => Word::Embedding { name: bare.to_owned(), rows },
                None => Word::Missing(bare.to_owned()),
            };
            // As many characters as the bare name has are skipped, from the left, wherever the commas were.
            let commas: String = name.chars().skip(bare.chars().count()).collect();
            (word, format!("{commas} {rest}"))
        }
    };
    out.push(word);
    if !rest.is_empty() {
        out.push(Word::Text(rest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(piece: &str) -> Vec<Word> {
        let lookup = |name: &str| match name {
            "cat" => Some(2),
            "dog," => Some(1),
            _ => None,
        };
        words(piece, Some(&lookup))
    }

    fn text(text: &str) -> Word {
        Word::Text(text.to_owned())
    }

    fn embedding(name: &str, rows: usize) -> Word {
        Word::Embedding { name: name.to_owned(), rows }
    }

    fn missing(name: &str) -> Word {
        Word::Missing(name.to_owned())
    }

    #[test]
    fn a_reference_counts_at_the_start_and_after_space_or_line_break() {
        assert_eq!(split("embedding:cat"), [embedding("cat", 2)]);
        assert_eq!(split("a embedding:cat"), [text("a"), embedding("cat", 2)]);
        assert_eq!(split("a\nembedding:cat"), [text("a"), embedding("cat", 2)]);
        assert_eq!(split("a\tembedding:cat"), [text("a\tembedding:cat")]);
        assert_eq!(split("a,embedding:cat"), [text("a,embedding:cat")]);
        assert_eq!(split("Embedding:cat"), [text("Embedding:cat")]);
        assert_eq!(split(" embedding:cat embedding:cat"), [embedding("cat", 2), embedding("cat", 2)]);
        assert_eq!(split("  embedding:cat"), [text(" "), embedding("cat", 2)]);
    }

    #[test]
    fn what_follows_the_name_is_text() {
        assert_eq!(split("embedding:cat  on a\tmat"), [embedding("cat", 2), text("on a mat")]);
        assert_eq!(split("embedding:cat,"), [embedding("cat", 2), text(", ")]);
        assert_eq!(split("embedding:cat, on"), [embedding("cat", 2), text(", on")]);
        assert_eq!(split("embedding:dog, on"), [embedding("dog,", 1), text("on")]);
        assert_eq!(split("embedding:,cat"), [embedding("cat", 2), text("t ")]);
    }

    #[test]
    fn a_missing_one_is_told_by_its_bare_name() {
        assert_eq!(split("embedding:cow on"), [missing("cow"), text("on")]);
        assert_eq!(split("embedding:cow, on"), [missing("cow"), text(", on")]);
        assert_eq!(split("embedding:"), [missing("")]);
        assert_eq!(split("embedding:,"), [missing(""), text(", ")]);
    }

    #[test]
    fn without_a_lookup_references_are_text_but_still_split() {
        assert_eq!(words("a embedding:cat", None), [text("a"), text("embedding:cat")]);
    }
}
