//! The body of a frame: a safetensors file. Enters: JSON and tensors to send, or bytes. Leaves: bytes, or the places of
//! checked tensors. Nothing is allocated by what a header claims.

use super::FrameLimits;
use crate::{
    Error, ErrorKind, Result,
    checkpoint::{ElementType, TensorView},
    limits::check_at_most,
};
pub use safetensors::Dtype;
use serde::{
    Deserialize, Serialize,
    de::{Deserializer, Error as _, MapAccess, Visitor},
};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    ops::Range,
};

/// What the JSON of a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// From a client: something to be done.
    Request,
    /// From a daemon: the outcome of a request.
    Reply,
    /// From a daemon: news of a request that goes on.
    Event,
}

impl Role {
    const ALL: [Self; 3] = [Self::Request, Self::Reply, Self::Event];

    /// Its key in `__metadata__`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Reply => "reply",
            Self::Event => "event",
        }
    }
}

/// A tensor to send, or one that came: row-major, little-endian.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorRef<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element type.
    pub dtype: Dtype,
    /// Its sides, outermost first.
    pub shape: &'a [usize],
    /// Its elements.
    pub bytes: &'a [u8],
}

impl<'a> TensorRef<'a> {
    /// Values in f32.
    pub fn f32(name: &'a str, shape: &'a [usize], values: &'a [f32]) -> Self {
        // On a big-endian machine the bytes would have to be turned; Luna runs on none.
        const { assert!(cfg!(target_endian = "little")) };
        Self { name, dtype: Dtype::F32, shape, bytes: bytemuck::cast_slice(values) }
    }

    /// A tensor of a checkpoint, as it is stored.
    ///
    /// # Errors
    /// `Unsupported` for quantised elements, which the wire's format does not know.
    pub fn stored(view: &TensorView<'a>) -> Result<Self> {
        let dtype = match view.element {
            ElementType::F64 => Dtype::F64,
            ElementType::F32 => Dtype::F32,
            ElementType::F16 => Dtype::F16,
            ElementType::Bf16 => Dtype::BF16,
            ElementType::F8E4m3 => Dtype::F8_E4M3,
            ElementType::F8E5m2 => Dtype::F8_E5M2,
            ElementType::I64 => Dtype::I64,
            ElementType::I32 => Dtype::I32,
            ElementType::I16 => Dtype::I16,
            ElementType::I8 => Dtype::I8,
            ElementType::U8 => Dtype::U8,
            ElementType::Bool => Dtype::BOOL,
            other => {
                return Err(Error::new(ErrorKind::Unsupported, format!("the tensor `{}` cannot be sent", view.name))
                    .expected("elements that safetensors files know")
                    .found(format!("{other:?}"))
                    .remedy("put the file where the daemon can read it: below a model root"));
            }
        };
        Ok(Self { name: view.name, dtype, shape: view.shape, bytes: view.bytes })
    }
}

/// Where a tensor lies in a body.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// In bytes from the start of the tensors' bytes.
    pub(super) range: Range<usize>,
}

/// Memory that both sides have mapped, in which the tensors' bytes lie instead of in the body. Other keys than these
/// are refused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedPlace {
    /// The number that its sender gave the segment.
    pub segment: u32,
    /// The tensors' bytes, in the order of the header, from the segment's byte 64 on.
    pub bytes: u64,
    /// Whether this frame brings the segment's descriptor along.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub new: bool,
    /// Segments of this sender's that come no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<u32>,
}

impl SharedPlace {
    /// Its key in `__metadata__`.
    pub const KEY: &'static str = "shared";
}

/// A body's JSON and the places of its tensors.
pub(super) struct Layout {
    pub(super) role: Role,
    pub(super) json: String,
    pub(super) places: Vec<Place>,
    /// Where the tensors' bytes begin in the body.
    pub(super) data: usize,
    /// Where they are if not in the body.
    pub(super) shared: Option<SharedPlace>,
}

/// Length and header of a body, to which the tensors' bytes are appended in order.
///
/// # Panics
/// If the bytes of a tensor are not as many as its shape says.
pub(super) fn head(role: Role, json: &str, tensors: &[TensorRef]) -> Vec<u8> {
    head_of(json!({ role.key(): json }), tensors)
}

/// The whole body where the tensors' bytes lie in shared memory.
pub(super) fn shared_head(role: Role, json: &str, tensors: &[TensorRef], place: &SharedPlace) -> Vec<u8> {
    head_of(json!({ role.key(): json, SharedPlace::KEY: json!(place).to_string() }), tensors)
}

/// A safetensors file of these tensors and nothing that differs from one request to the next: equal for equal content.
pub(super) fn file(metadata: &BTreeMap<String, String>, tensors: &mut [TensorRef]) -> Vec<u8> {
    tensors.sort_unstable_by(|a, b| a.name.cmp(b.name));
    let mut file = head_of(json!(metadata), tensors);
    tensors.iter().for_each(|tensor| file.extend_from_slice(tensor.bytes));
    file
}

fn head_of(metadata: Value, tensors: &[TensorRef]) -> Vec<u8> {
    let mut header = Map::new();
    if metadata.as_object().is_some_and(|entries| !entries.is_empty()) {
        header.insert("__metadata__".to_owned(), metadata);
    }
    let mut end = 0;
    for TensorRef { name, dtype, shape, bytes } in tensors {
        assert_eq!(byte_length(*dtype, shape), Some(bytes.len()), "the shape of {name}");
        let start = end;
        end += bytes.len();
        header.insert((*name).to_owned(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }));
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    // With the 8 bytes before it, the elements start at a multiple of 8.
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut head = (text.len() as u64).to_le_bytes().to_vec();
    head.extend_from_slice(&text);
    head
}

/// Reads and checks a body.
///
/// # Errors
/// `InvalidInput` for anything that is no such body, `LimitExceeded` above `limits`.
pub(super) fn layout(body: &[u8], limits: &FrameLimits) -> Result<Layout> {
    let (length, rest) = body.split_first_chunk().ok_or_else(|| wrong("the body of a frame has no header"))?;
    let length = u64::from_le_bytes(*length);
    if length > rest.len() as u64 {
        return Err(wrong("the header of a body is longer than the body")
            .expected(format!("at most {} bytes", rest.len()))
            .found(length.to_string()));
    }
    check_at_most("bytes in the header of a body", length, limits.header_bytes)?;
    let (text, data) = rest.split_at(length as usize);
    let header: Header =
        serde_json::from_slice(text).map_err(|error| wrong(format!("the header of a body cannot be read: {error}")))?;
    check_at_most("tensors in a frame", header.tensors.len() as u64, limits.tensors as u64)?;
    let (role, json) = header.words()?;
    let shared = header.shared()?;
    let length = match &shared {
        None => data.len(),
        Some(_) if !data.is_empty() => return Err(wrong("tensors lie in shared memory, and there are bytes as well")),
        Some(place) => {
            check_at_most("bytes in shared memory", place.bytes, limits.frame_bytes)?;
            usize::try_from(place.bytes).map_err(|_| wrong("a frame is too large for this machine"))?
        }
    };
    let mut places = Vec::with_capacity(header.tensors.len());
    for (name, info) in header.tensors {
        check_at_most("dimensions of a tensor", info.shape.len() as u64, limits.tensor_rank as u64)?;
        let [start, end] = info.data_offsets;
        let bytes = byte_length(info.dtype, &info.shape);
        if bytes.is_none() || end.checked_sub(start) != bytes || end > length {
            return Err(wrong(format!("the range of tensor `{name}` does not fit its shape, its type or the body"))
                .expected(format!("{bytes:?} bytes within {length}"))
                .found(format!("{start}..{end}")));
        }
        places.push(Place { name, dtype: info.dtype, shape: info.shape, range: start..end });
    }
    check_tiling(&places, length)?;
    Ok(Layout { role, json, places, data: body.len() - data.len(), shared })
}

/// As the format asks for, tensors neither overlap nor leave gaps.
fn check_tiling(places: &[Place], end: usize) -> Result<()> {
    let mut ranges: Vec<_> = places.iter().map(|place| (place.range.start, place.range.end)).collect();
    ranges.sort_unstable();
    let mut at = 0;
    for (from, to) in ranges {
        if from != at {
            return Err(wrong("tensors of a body overlap or leave gaps"));
        }
        at = to;
    }
    if at == end { Ok(()) } else { Err(wrong("bytes of a body belong to no tensor")) }
}

/// Bytes of a tensor; `None` for what overflows or does not end with a byte.
pub(super) fn byte_length(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let count = shape.iter().try_fold(1usize, |count, &side| count.checked_mul(side))?;
    let bits = count.checked_mul(dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

pub(super) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

/// A header as it stands, each name once.
struct Header {
    metadata: Vec<(String, String)>,
    tensors: Vec<(String, TensorInfo)>,
}

#[derive(Deserialize)]
struct TensorInfo {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// `__metadata__`, each key once.
struct Words(Vec<(String, String)>);

impl Header {
    /// The one JSON text that it carries.
    fn words(&self) -> Result<(Role, String)> {
        let mut found = self.metadata.iter().filter_map(|(key, text)| {
            Role::ALL.into_iter().find(|role| role.key() == key).map(|role| (role, text.clone()))
        });
        match (found.next(), found.next()) {
            (Some(words), None) => Ok(words),
            _ => Err(wrong("the metadata of a body does not say what it is")
                .expected("one of `request`, `reply` and `event`")),
        }
    }

    fn shared(&self) -> Result<Option<SharedPlace>> {
        let found = self.metadata.iter().find(|(key, _)| key == SharedPlace::KEY);
        found
            .map(|(_, text)| serde_json::from_str(text))
            .transpose()
            .map_err(|error| wrong(format!("`shared` of a body cannot be read: {error}")))
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from tensor names to their place")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header { metadata: Vec::new(), tensors: Vec::new() };
                let mut seen = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!("the name `{name}` stands twice")));
                    }
                    match name.as_str() {
                        "__metadata__" => header.metadata = map.next_value::<Words>()?.0,
                        _ => header.tensors.push((name, map.next_value()?)),
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from text to text")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Words, A::Error> {
                let mut words: Vec<(String, String)> = Vec::new();
                while let Some((key, text)) = map.next_entry::<String, String>()? {
                    if words.iter().any(|(known, _)| *known == key) {
                        return Err(A::Error::custom(format!("the key `{key}` stands twice")));
                    }
                    words.push((key, text));
                }
                Ok(Words(words))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
