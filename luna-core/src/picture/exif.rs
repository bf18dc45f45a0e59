//! An EXIF block for formats without text chunks. Enters: metadata. Leaves: a little-endian TIFF structure with one
//! directory of texts and, for A1111's `parameters`, a UserComment.

use super::Metadata;

const MODEL: u16 = 0x0110;
const MAKE: u16 = 0x010f;
const EXIF_DIRECTORY: u16 = 0x8769;
const USER_COMMENT: u16 = 0x9286;
/// ComfyUI gives further keys the tags below Make. These have no numeric meaning that a reader could trip over…
const TEXT_TAGS: [u16; 4] = [0x010e, 0x010d, 0x010c, 0x010b];
/// …and what comes after them goes into the range that TIFF leaves to private use.
const PRIVATE_TAGS: u16 = 0xfe00;

const ASCII: u16 = 2;
const LONG: u16 = 4;
const UNDEFINED: u16 = 7;

struct Field {
    tag: u16,
    kind: u16,
    value: Vec<u8>,
}

impl Field {
    fn text(tag: u16, key: &str, text: &str) -> Self {
        Self { tag, kind: ASCII, value: format!("{key}:{text}\0").into_bytes() }
    }

    fn count(&self) -> u32 {
        (self.value.len() / if self.kind == LONG { 4 } else { 1 }) as u32
    }
}

/// The TIFF structure, without the `Exif\0\0` that a JPEG puts before it; `None` if there is nothing to say.
pub(super) fn block(metadata: &Metadata) -> Option<Vec<u8>> {
    let mut fields = Vec::new();
    let mut comment = None;
    let mut tags = TEXT_TAGS.into_iter().chain(PRIVATE_TAGS..);
    for (key, text) in metadata.entries() {
        match key {
            "prompt" => fields.push(Field::text(MODEL, key, text)),
            "workflow" => fields.push(Field::text(MAKE, key, text)),
            "parameters" => comment = Some(user_comment(text)),
            _ => fields.push(Field::text(tags.next()?, key, text)),
        }
    }
    if fields.is_empty() && comment.is_none() {
        return None;
    }
    if comment.is_some() {
        fields.push(Field { tag: EXIF_DIRECTORY, kind: LONG, value: vec![0; 4] });
    }
    fields.sort_by_key(|field| field.tag);
    let mut out = b"II*\0\x08\0\0\0".to_vec();
    let pointer = directory(&mut out, &fields);
    if let (Some(comment), Some(pointer)) = (comment, pointer) {
        let start = out.len() as u32;
        out[pointer..pointer + 4].copy_from_slice(&start.to_le_bytes());
        directory(&mut out, &[Field { tag: USER_COMMENT, kind: UNDEFINED, value: comment }]);
    }
    Some(out)
}

/// Appends a directory and its values; returns where the place of the EXIF directory is to be filled in.
fn directory(out: &mut Vec<u8>, fields: &[Field]) -> Option<usize> {
    let start = out.len();
    let mut values_at = start + 2 + fields.len() * 12 + 4;
    let mut pointer = None;
    let mut values = Vec::new();
    out.extend((fields.len() as u16).to_le_bytes());
    for field in fields {
        out.extend(field.tag.to_le_bytes());
        out.extend(field.kind.to_le_bytes());
        out.extend(field.count().to_le_bytes());
        if field.tag == EXIF_DIRECTORY {
            pointer = Some(out.len());
        }
        if field.value.len() <= 4 {
            let mut inline = field.value.clone();
            inline.resize(4, 0);
            out.extend(inline);
        } else {
            out.extend((values_at as u32).to_le_bytes());
            values.extend(&field.value);
            // Values start at even places.
            values.resize(values.len().next_multiple_of(2), 0);
            values_at = start + 2 + fields.len() * 12 + 4 + values.len();
        }
    }
    out.extend([0; 4]);
    out.extend(values);
    pointer
}

/// A character code, then the text; UTF-16 in big-endian order, as A1111 (through piexif) writes and reads it.
fn user_comment(text: &str) -> Vec<u8> {
    let mut out = b"UNICODE\0".to_vec();
    out.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_independent_parser_reads_every_field() {
        let mut metadata = Metadata::none()
            .with("parameters", "a lake, été\nSteps: 20")
            .unwrap()
            .with("prompt", "{\"1\": 2}")
            .unwrap()
            .with("workflow", "{}")
            .unwrap();
        for i in 0..6 {
            metadata = metadata.with(&format!("key{i}"), &"v".repeat(i)).unwrap();
        }
        let parsed = exif::Reader::new().read_raw(block(&metadata).unwrap()).unwrap();
        let mut texts = Vec::new();
        for field in parsed.fields() {
            match &field.value {
                exif::Value::Ascii(parts) => texts.push(String::from_utf8(parts[0].clone()).unwrap()),
                exif::Value::Undefined(bytes, _) => {
                    let (code, text) = bytes.split_at(8);
                    assert_eq!(code, b"UNICODE\0");
                    let units: Vec<u16> = text.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
                    texts.push(format!("parameters:{}", String::from_utf16(&units).unwrap()));
                }
                other => panic!("{other:?}"),
            }
        }
        texts.sort();
        let mut expected: Vec<_> = metadata.entries().map(|(key, text)| format!("{key}:{text}")).collect();
        expected.sort();
        assert_eq!(texts, expected);
    }

    #[test]
    fn nothing_to_say_makes_no_block() {
        assert!(block(&Metadata::none()).is_none());
    }
}
