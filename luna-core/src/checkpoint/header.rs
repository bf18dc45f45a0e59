//! The header of a model file. Enters: bytes. Leaves: checked names, shapes and ranges; nothing is allocated by the sizes
//! the file claims. Safetensors are read here: the `safetensors` crate checks offsets and sizes, this what it lets pass.

use super::{bytes::FileBytes, element::ElementType, foreign, gguf};
use crate::{Error, ErrorKind, Limits, Result, limits::check_at_most};
use safetensors::{SafeTensorError, SafeTensors};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
};

pub(super) struct Header {
    pub(super) tensors: Vec<(String, HeaderTensor)>,
    pub(super) metadata: BTreeMap<String, String>,
    /// Lists among the metadata of a GGUF file.
    pub(super) lists: BTreeMap<String, gguf::List>,
    /// What stands for a config.json.
    pub(super) config: Option<serde_json::Value>,
}

pub(super) struct HeaderTensor {
    pub(super) element: ElementType,
    pub(super) shape: Vec<usize>,
    /// In bytes from the start of the file.
    pub(super) range: Range<usize>,
}

/// Reads and checks the header of a file.
pub(super) fn read(bytes: &FileBytes, limits: &Limits) -> Result<Header> {
    let bytes = bytes.as_slice();
    if gguf::is_gguf(bytes) {
        return gguf::read(bytes, limits);
    }
    foreign::refuse(bytes)?;
    let text = header_text(bytes, limits)?;
    refuse_duplicates(text)?;
    let (length, metadata) = SafeTensors::read_metadata(bytes).map_err(invalid)?;
    let start = 8 + length;
    let mut tensors = Vec::with_capacity(metadata.tensors().len());
    check_at_most("tensors in a file", metadata.tensors().len() as u64, limits.tensors as u64)?;
    for (name, info) in metadata.tensors() {
        let element = ElementType::from_safetensors(info.dtype).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("tensor `{name}` has an element type that Luna does not read"))
                .expected("F64, F32, F16, BF16, F8_E4M3, F8_E5M2, an integer type or BOOL")
                .found(format!("{:?}", info.dtype))
        })?;
        check_at_most(&format!("dimensions of tensor `{name}`"), info.shape.len() as u64, limits.tensor_rank as u64)?;
        let range = start + info.data_offsets.0..start + info.data_offsets.1;
        tensors.push((name, HeaderTensor { element, shape: info.shape.clone(), range }));
    }
    let metadata = metadata.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(Header { tensors, metadata, lists: BTreeMap::new(), config: None })
}

/// The JSON text, once its claimed length is known to lie in the file and under the limit.
fn header_text<'a>(bytes: &'a [u8], limits: &Limits) -> Result<&'a [u8]> {
    let invalid = |message: &str| Error::new(ErrorKind::InvalidFile, message.to_owned());
    let (length, rest) =
        bytes.split_first_chunk().ok_or_else(|| invalid("the file is shorter than a safetensors header"))?;
    let length = u64::from_le_bytes(*length);
    if length > rest.len() as u64 {
        return Err(invalid("not a safetensors file, or a truncated one")
            .expected(format!("a header of at most {} bytes, which is what follows", rest.len()))
            .found(format!("a claimed header length of {length}"))
            .remedy("download the file again"));
    }
    check_at_most("bytes in a safetensors header", length, limits.header_bytes)?;
    Ok(&rest[..length as usize])
}

/// Turns the crate's error into what a person needs to know.
fn invalid(error: SafeTensorError) -> Error {
    let wrong = |message: String| Error::new(ErrorKind::InvalidFile, message);
    match error {
        SafeTensorError::InvalidOffset(name) => {
            wrong(format!("tensor `{name}` overlaps another one, leaves a gap, or ends before it starts"))
        }
        SafeTensorError::TensorInvalidInfo => wrong("a tensor's range does not fit its shape and type".into()),
        SafeTensorError::MetadataIncompleteBuffer => {
            wrong("the tensors do not end where the file ends: it is truncated, or bytes were appended".into())
                .remedy("download the file again")
        }
        SafeTensorError::ValidationOverflow => wrong("a tensor's shape overflows".into()),
        other => wrong(format!("the safetensors header cannot be read: {other}")),
    }
}

/// A JSON map with the same name twice means two different things to two readers.
fn refuse_duplicates(text: &[u8]) -> Result<()> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    UniqueNames::deserialize(&mut deserializer).map(drop).map_err(|error| {
        Error::new(ErrorKind::InvalidFile, format!("the safetensors header is not valid: {error}"))
            .remedy("download the file again")
    })
}

struct UniqueNames;

impl<'de> Deserialize<'de> for UniqueNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for UniqueNames {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map from tensor names to their place")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if seen.contains(&name) {
                return Err(serde::de::Error::custom(format!("the name `{name}` stands twice")));
            }
            map.next_value::<IgnoredAny>()?;
            seen.insert(name);
        }
        Ok(self)
    }
}
