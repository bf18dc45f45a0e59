//! What a picture file says about its making. Enters: ComfyUI's `prompt` and `workflow`, A1111's `parameters`,
//! fields of the caller's own. Leaves: checked keys and values, for each format to store where its readers look.

use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::{Error, ErrorKind, Result, limits::check_at_most};

/// Named texts kept in a picture file; their order is kept too.
///
/// | key | PNG | WebP, JPEG |
/// |---|---|---|
/// | `prompt` | text chunk | EXIF Model, `prompt:…`, as ComfyUI writes and reads it |
/// | `workflow` | text chunk | EXIF Make, `workflow:…`, likewise |
/// | `parameters` | text chunk, as A1111 writes and reads it | EXIF UserComment, likewise |
/// | any other | text chunk | an EXIF text of its own, `key:…`, as ComfyUI reads it |
///
/// EXIF texts are UTF-8, as browsers and ComfyUI take them; for characters beyond ASCII in fields of your own exiftool
/// wants `-charset exif=UTF8`, and Pillow shows them as Latin-1.
///
/// ```
/// use luna_core::picture::Metadata;
/// let metadata = Metadata::none()
///     .with("prompt", r#"{"3": {"class_type": "KSampler"}}"#)?
///     .with("parameters", "a moonlit lake\nSteps: 20, Seed: 7")?;
/// assert_eq!(metadata.get("parameters"), Some("a moonlit lake\nSteps: 20, Seed: 7"));
/// assert!(Metadata::none().with("workflow", "{not JSON").is_err());
/// # Ok::<(), luna_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Metadata {
    entries: Vec<(String, String)>,
    xmp: Option<String>,
}

/// Keys in one file, and bytes of one value.
const MOST_KEYS: usize = 64;
const MOST_BYTES: usize = 64 << 20;
/// What a PNG keyword may measure.
const MOST_KEY_BYTES: usize = 79;

impl Metadata {
    /// Nothing but the colour space, which every file states.
    pub const fn none() -> Self {
        Self { entries: Vec::new(), xmp: None }
    }

    /// Adds or replaces a text. `prompt` and `workflow` must be JSON; they are stored with `\u` escapes in place of
    /// characters beyond ASCII, as Python's `json.dumps` does it, so that every reader agrees.
    ///
    /// # Errors
    /// `InvalidInput` for a key that is not 1 to 79 bytes of printable ASCII without colon or outer spaces, for a NUL
    /// in the text, for JSON that is none; `LimitExceeded` above 64 keys or 64 MiB.
    pub fn with(mut self, key: &str, text: &str) -> Result<Self> {
        check_key(key)?;
        check_at_most("bytes in a metadata text", text.len() as u64, MOST_BYTES as u64)?;
        let wrong = |message: &str| Error::new(ErrorKind::InvalidInput, format!("metadata {key:?} {message}"));
        if text.contains('\0') {
            return Err(wrong("holds a NUL character"));
        }
        let text = if is_json(key) {
            serde_json::from_str::<IgnoredAny>(text).map_err(|error| {
                wrong("is not JSON").found(error.to_string()).remedy("pass it as ComfyUI's API gives it").source(error)
            })?;
            escape_json(text)
        } else {
            text.to_owned()
        };
        match self.entries.iter_mut().find(|(known, _)| known == key) {
            Some(entry) => entry.1 = text,
            None => self.entries.push((key.to_owned(), text)),
        }
        check_at_most("metadata keys", self.entries.len() as u64, MOST_KEYS as u64)?;
        Ok(self)
    }

    /// Adds an XMP packet (XML text), stored where each format has a place for it.
    ///
    /// # Errors
    /// `InvalidInput` for what cannot be XMP, `LimitExceeded` above 64 MiB.
    pub fn with_xmp(mut self, packet: &str) -> Result<Self> {
        check_at_most("bytes in an XMP packet", packet.len() as u64, MOST_BYTES as u64)?;
        if packet.contains('\0') || !packet.contains("<rdf:RDF") {
            return Err(Error::new(ErrorKind::InvalidInput, "the XMP packet is none")
                .expected("XML text with an rdf:RDF element"));
        }
        self.xmp = Some(packet.to_owned());
        Ok(self)
    }

    /// The text under a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.iter().find(|(known, _)| known == key).map(|(_, text)| text.as_str())
    }

    /// Keys and texts in the order they were added.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(key, text)| (key.as_str(), text.as_str()))
    }

    /// The XMP packet.
    pub fn xmp(&self) -> Option<&str> {
        self.xmp.as_deref()
    }

    /// Bytes held by keys and texts.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|(key, text)| key.len() + text.len()).sum::<usize>()
            + self.xmp.as_deref().map_or(0, str::len)
    }
}

/// ComfyUI's own keys hold JSON.
fn is_json(key: &str) -> bool {
    matches!(key, "prompt" | "workflow")
}

fn check_key(key: &str) -> Result<()> {
    let printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b':');
    if printable && !key.is_empty() && key.len() <= MOST_KEY_BYTES && key.trim() == key && !key.contains("  ") {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, "the metadata key cannot be stored")
        .expected("1 to 79 bytes of printable ASCII without a colon, outer or double spaces")
        .found(format!("{key:?}")))
}

/// Characters beyond ASCII stand only inside JSON's strings, where an escape means the same.
fn escape_json(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() * 2);
    for character in text.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_kept_in_ascii() {
        let metadata = Metadata::none().with("prompt", "{\"text\": \"été 🌙\"}").unwrap();
        assert_eq!(metadata.get("prompt"), Some(r#"{"text": "\u00e9t\u00e9 \ud83c\udf19"}"#));
    }

    #[test]
    fn keys_that_no_format_holds_are_refused() {
        let long = "k".repeat(80);
        for key in ["", " a", "a ", "a  b", "a:b", "tab\t", "ключ", &long] {
            assert_eq!(Metadata::none().with(key, "x").unwrap_err().kind(), ErrorKind::InvalidInput, "{key:?}");
        }
        assert!(Metadata::none().with("note", "a\0b").is_err());
    }

    #[test]
    fn a_key_is_kept_once() {
        let metadata = Metadata::none().with("a", "1").unwrap().with("b", "2").unwrap().with("a", "3").unwrap();
        assert_eq!(metadata.entries().collect::<Vec<_>>(), [("a", "3"), ("b", "2")]);
    }
}
