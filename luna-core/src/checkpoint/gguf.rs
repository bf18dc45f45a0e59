//! The header of a GGUF file, version 2 or 3, as llama.cpp and ComfyUI-GGUF write it. Enters: bytes. Leaves: checked names,
//! shapes and ranges. What the file claims is compared with what is there before anything is allocated by it.

mod config;
mod reader;

use super::{
    element::ElementType,
    header::{Header, HeaderTensor},
};
use crate::{Error, ErrorKind, Limits, Result, limits::check_at_most};
use reader::Reader;
pub(super) use reader::{List, Values};
use std::collections::{BTreeMap, HashSet};

const MAGIC: &[u8] = b"GGUF";
/// Tensors begin at multiples of this, unless the file says otherwise.
const ALIGNMENT: u64 = 32;
const MOST_ALIGNMENT: u64 = 1 << 16;
/// What ComfyUI-GGUF notes the shape of a tensor under that it had to reshape.
const SHAPE: &str = "comfy.gguf.orig_shape.";

/// Whether the bytes begin as a GGUF file does.
pub(super) fn is_gguf(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Reads and checks the header of a file.
pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Header> {
    let mut reader = Reader::new(bytes, MAGIC.len(), limits.header_bytes);
    reader.version()?;
    let (tensors, entries) = (reader.u64()?, reader.u64()?);
    check_at_most("tensors in a file", tensors, limits.tensors as u64)?;
    check_at_most("metadata entries in a file", entries, limits.tensors as u64)?;
    let Values { texts: metadata, lists } = reader.metadata(entries)?;
    let alignment = alignment(&metadata)?;
    // Each has at least a name's length, dimensions, type and offset: 24 bytes.
    let mut infos = Vec::with_capacity((tensors as usize).min(bytes.len() / 24));
    for _ in 0..tensors {
        infos.push(reader.tensor(limits)?);
    }
    let start = (reader.at() as u64).next_multiple_of(alignment);
    let tensors = place(infos, &metadata, &Data { start, alignment, end: bytes.len() as u64 })?;
    let config = config::config(&metadata, &lists, bytes);
    Ok(Header { tensors, metadata, lists, config })
}

/// What the file says about one tensor.
struct Info {
    name: String,
    element: ElementType,
    shape: Vec<usize>,
    /// From the start of the data.
    offset: u64,
    bytes: u64,
}

/// Where tensors may lie.
struct Data {
    start: u64,
    alignment: u64,
    end: u64,
}

/// Ranges in the file: each inside it, none over another.
fn place(infos: Vec<Info>, metadata: &BTreeMap<String, String>, data: &Data) -> Result<Vec<(String, HeaderTensor)>> {
    let mut names = HashSet::with_capacity(infos.len());
    if let Some(twin) = infos.iter().find(|info| !names.insert(&info.name)) {
        return Err(invalid(format!("the tensor `{}` stands twice", twin.name)));
    }
    drop(names);
    let mut placed = Vec::with_capacity(infos.len());
    for info in infos {
        let first = data.start.checked_add(info.offset);
        let range = first.and_then(|first| Some(first..first.checked_add(info.bytes)?));
        let Some(range) = range.filter(|range| range.end <= data.end) else {
            return Err(invalid(format!("tensor `{}` ends behind the end of the file: it is truncated", info.name))
                .expected(format!("{} bytes from {} of the data on", info.bytes, info.offset))
                .found(format!("{} bytes of data", data.end.saturating_sub(data.start)))
                .remedy("download the file again"));
        };
        if !info.offset.is_multiple_of(data.alignment) {
            return Err(invalid(format!("tensor `{}` does not begin at a multiple of the alignment", info.name))
                .expected(format!("a multiple of {}", data.alignment))
                .found(info.offset.to_string()));
        }
        let shape = original_shape(metadata, &info).unwrap_or(info.shape);
        let range = range.start as usize..range.end as usize;
        placed.push((info.name, HeaderTensor { element: info.element, shape, range }));
    }
    let mut order: Vec<_> = placed.iter().filter(|(_, tensor)| !tensor.range.is_empty()).collect();
    order.sort_by_key(|(_, tensor)| tensor.range.start);
    match order.windows(2).find(|pair| pair[0].1.range.end > pair[1].1.range.start) {
        Some(pair) => Err(invalid(format!("the tensors `{}` and `{}` overlap", pair[0].0, pair[1].0))),
        None => Ok(placed),
    }
}

/// The shape that ComfyUI-GGUF noted, where it has as many elements and whole blocks in its rows.
fn original_shape(metadata: &BTreeMap<String, String>, info: &Info) -> Option<Vec<usize>> {
    let text = metadata.get(&format!("{SHAPE}{}", info.name))?;
    let shape: Vec<usize> = text.split(", ").map(|side| side.parse().ok()).collect::<Option<_>>()?;
    let count = shape.iter().try_fold(1usize, |count, &side| count.checked_mul(side))?;
    (count == info.shape.iter().product::<usize>()).then_some(shape)
}

fn alignment(metadata: &BTreeMap<String, String>) -> Result<u64> {
    let Some(text) = metadata.get("general.alignment") else { return Ok(ALIGNMENT) };
    let stated = text.parse::<u64>().ok().filter(|alignment| alignment.is_power_of_two());
    stated.filter(|alignment| *alignment <= MOST_ALIGNMENT).ok_or_else(|| {
        invalid("`general.alignment` makes no sense")
            .expected(format!("a power of two up to {MOST_ALIGNMENT}"))
            .found(format!("`{text}`"))
    })
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidFile, message.into())
}
