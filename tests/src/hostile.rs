//! Files that are damaged, hostile or something else than their name says. None may panic a reader or make it allocate
//! what they claim.

use crate::safetensors_file::{f32_tensor, file, with_header};
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
        hostile("gguf", Unsupported, "GGUF", [b"GGUF", &[0u8; 60][..]].concat()),
        hostile(
            "lfs-pointer",
            Unsupported,
            "git lfs pull",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_vec(),
        ),
    ]
}
