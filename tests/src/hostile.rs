//! Files that are damaged, hostile or something else than their name says. None may panic a reader or make it allocate
//! what they claim.

use crate::{
    gguf_file::{put_tensor, put_text, start},
    safetensors_file::{f32_tensor, file, with_header},
};
use luna_core::ErrorKind::{self, InvalidFile, LimitExceeded, Unsupported};

/// One such file.
pub struct Hostile {
    /// What it is, as a file name.
    pub name: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What a reader must answer.
    pub kind: ErrorKind,
    /// A part of what it must say.
    pub says: &'static str,
}

/// All of them.
pub fn files() -> Vec<Hostile> {
    let hostile = |name, kind, says, bytes| Hostile { name, bytes, kind, says };
    let sound = file(&[f32_tensor("a", &[4], &[1.0; 4]), f32_tensor("b", &[2], &[2.0; 2])], &[]);
    let header = |text: &str| with_header(text, &[0; 16]);
    let mut claims_2_to_60 = sound.clone();
    claims_2_to_60[..8].copy_from_slice(&(1u64 << 60).to_le_bytes());
    vec![
        hostile("empty", InvalidFile, "empty", Vec::new()),
        hostile("seven-bytes", InvalidFile, "shorter", vec![1; 7]),
        hostile("truncated-data", InvalidFile, "truncated", sound[..sound.len() - 5].to_vec()),
        hostile("truncated-header", InvalidFile, "truncated", sound[..20].to_vec()),
        hostile("header-length-2-to-60", InvalidFile, "header length", claims_2_to_60),
        hostile("bytes-appended", InvalidFile, "appended", [&sound[..], &[0; 9]].concat()),
        hostile(
            "overlapping-tensors",
            InvalidFile,
            "overlaps",
            header(concat!(
                r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"#,
                r#""b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#
            )),
        ),
        hostile(
            "offsets-beyond-the-end",
            InvalidFile,
            "",
            header(r#"{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}"#),
        ),
        hostile(
            "offsets-backwards",
            InvalidFile,
            "",
            header(r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}"#),
        ),
        hostile(
            "shape-overflows",
            InvalidFile,
            "",
            header(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,16]}}"#),
        ),
        hostile(
            "shape-and-range-disagree",
            InvalidFile,
            "",
            header(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,16]}}"#),
        ),
        hostile(
            "duplicate-names",
            InvalidFile,
            "twice",
            header(concat!(
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"#,
                r#""a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#
            )),
        ),
        hostile("unknown-dtype", InvalidFile, "", header(r#"{"a":{"dtype":"Q9","shape":[4],"data_offsets":[0,16]}}"#)),
        hostile(
            "too-many-dimensions",
            LimitExceeded,
            "dimensions",
            header(r#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,4],"data_offsets":[0,16]}}"#),
        ),
        hostile("header-is-a-list", InvalidFile, "header", header("[1, 2, 3]")),
        hostile("header-is-deep", InvalidFile, "header", header(&"[".repeat(100_000))),
        hostile("header-is-not-utf8", InvalidFile, "header", [&8u64.to_le_bytes()[..], &[0xff; 24]].concat()),
        hostile(
            "html-error-page",
            Unsupported,
            "HTML",
            b"<!DOCTYPE html><html><body>404: not found</body></html>".to_vec(),
        ),
        hostile("zip-pickle", Unsupported, "convert", [b"PK\x03\x04", &[0u8; 60][..]].concat()),
        hostile("bare-pickle", Unsupported, "convert", [&[0x80, 0x02, b'}'][..], &[0; 60]].concat()),
        hostile("gguf-version-0", Unsupported, "GGUF", [b"GGUF", &[0u8; 60][..]].concat()),
        hostile("gguf-big-endian", Unsupported, "big-endian", [b"GGUF\0\0\0\x03", &[0u8; 60][..]].concat()),
        hostile(
            "lfs-pointer",
            Unsupported,
            "git lfs pull",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_vec(),
        ),
    ]
    .into_iter()
    .chain(gguf())
    .collect()
}

/// Headers of GGUF files that claim what is not there.
fn gguf() -> Vec<Hostile> {
    let hostile = |name, kind, says, bytes| Hostile { name, bytes, kind, says };
    let tensors = |tensors: &[(&str, &[usize], u32, u64)], data: usize| {
        let mut bytes = start(3, tensors.len() as u64, 0);
        tensors.iter().for_each(|(name, shape, kind, offset)| put_tensor(&mut bytes, name, shape, *kind, *offset));
        bytes.resize(bytes.len().next_multiple_of(32) + data, 0);
        bytes
    };
    let entry = |value: &[u8]| {
        let mut bytes = start(3, 0, 1);
        put_text(&mut bytes, "general.alignment");
        [&bytes, value].concat()
    };
    let name_of_2_to_60 = [start(3, 1, 0), (1u64 << 60).to_le_bytes().to_vec(), vec![0; 64]].concat();
    let list =
        |kind: u32, count: u64| entry(&[&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes()].concat());
    vec![
        hostile("gguf-2-to-60-tensors", LimitExceeded, "tensors in a file", start(3, 1 << 60, 0)),
        hostile("gguf-2-to-60-entries", LimitExceeded, "metadata entries", start(3, 0, 1 << 60)),
        hostile("gguf-name-of-2-to-60", InvalidFile, "claim of", name_of_2_to_60),
        hostile("gguf-list-of-2-to-62", InvalidFile, "claim of", list(6, 1 << 62)),
        hostile("gguf-list-of-2-to-62-texts", InvalidFile, "claim of", list(8, 1 << 62)),
        hostile("gguf-value-of-no-type", InvalidFile, "type 77", entry(&77u32.to_le_bytes())),
        hostile("gguf-alignment-0", InvalidFile, "alignment", entry(&[4, 0, 0, 0, 0, 0, 0, 0])),
        hostile("gguf-alignment-3", InvalidFile, "alignment", entry(&[4, 0, 0, 0, 3, 0, 0, 0])),
        hostile("gguf-shape-overflows", InvalidFile, "overflows", tensors(&[("a", &[1 << 40, 1 << 40], 0, 0)], 64)),
        hostile("gguf-offset-overflows", InvalidFile, "truncated", tensors(&[("a", &[4], 0, u64::MAX - 31)], 64)),
        hostile("gguf-beyond-the-end", InvalidFile, "truncated", tensors(&[("a", &[1 << 40], 0, 0)], 64)),
        hostile("gguf-half-a-block", InvalidFile, "blocks of Q4_K", tensors(&[("a", &[2, 128], 12, 0)], 512)),
        hostile("gguf-unaligned", InvalidFile, "alignment", tensors(&[("a", &[4], 0, 7)], 64)),
        hostile("gguf-twice", InvalidFile, "twice", tensors(&[("a", &[4], 0, 0), ("a", &[4], 0, 32)], 64)),
        hostile("gguf-overlap", InvalidFile, "overlap", tensors(&[("a", &[16], 0, 0), ("b", &[4], 0, 32)], 64)),
        hostile("gguf-dimensions", LimitExceeded, "dimensions", tensors(&[("a", &[1; 60], 0, 0)], 64)),
    ]
}
