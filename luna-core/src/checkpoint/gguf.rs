//! The header of a GGUF file, version 2 or 3, as llama.cpp and ComfyUI-GGUF write it. Enters: bytes. Leaves: checked names,
//! shapes and ranges. What the file claims is compared with what is there before anything is allocated by it.

use super::{
    element::ElementType,
    header::{Header, HeaderTensor},
};
use crate::{Error, ErrorKind, Limits, Result, limits::check_at_most};
use std::collections::{BTreeMap, HashSet};

const MAGIC: &[u8] = b"GGUF";
/// Tensors begin at multiples of this, unless the file says otherwise.
const ALIGNMENT: u64 = 32;
const MOST_ALIGNMENT: u64 = 1 << 16;
/// How deep lists of lists may go.
const NESTING: usize = 4;
/// The longest list that is kept, as text: shapes are, vocabularies are not.
const KEPT_LIST: u64 = 8;
/// What ComfyUI-GGUF notes the shape of a tensor under that it had to reshape.
const SHAPE: &str = "comfy.gguf.orig_shape.";

/// Whether the bytes begin as a GGUF file does.
pub(super) fn is_gguf(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Reads and checks the header of a file.
pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Header> {
    let mut reader = Reader { bytes, at: MAGIC.len(), most: limits.header_bytes };
    reader.version()?;
    let (tensors, entries) = (reader.u64()?, reader.u64()?);
    check_at_most("tensors in a file", tensors, limits.tensors as u64)?;
    check_at_most("metadata entries in a file", entries, limits.tensors as u64)?;
    let metadata = reader.metadata(entries)?;
    let alignment = alignment(&metadata)?;
    // Each has at least a name's length, dimensions, type and offset: 24 bytes.
    let mut infos = Vec::with_capacity((tensors as usize).min(bytes.len() / 24));
    for _ in 0..tensors {
        infos.push(reader.tensor(limits)?);
    }
    let start = (reader.at as u64).next_multiple_of(alignment);
    let tensors = place(infos, &metadata, &Data { start, alignment, end: bytes.len() as u64 })?;
    let config = config(&metadata);
    Ok(Header { tensors, metadata, config })
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

/// What models ask a config.json, where the metadata say it.
fn config(metadata: &BTreeMap<String, String>) -> Option<serde_json::Value> {
    let architecture = metadata.get("general.architecture")?;
    let number = |key: &str| metadata.get(&format!("{architecture}.{key}"))?.parse::<f64>().ok();
    let mut config = serde_json::Map::new();
    for (key, name) in [
        ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
        ("attention.layer_norm_rms_epsilon", "layer_norm_epsilon"),
        ("rope.freq_base", "rope_theta"),
    ] {
        config.extend(number(key).map(|number| (name.to_owned(), number.into())));
    }
    (!config.is_empty()).then_some(config.into())
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

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    most: u64,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        if count > rest.len() as u64 {
            return Err(invalid("the GGUF header is truncated, or claims more than there is")
                .expected(format!("at most {} bytes, which is what follows", rest.len()))
                .found(format!("a claim of {count} bytes"))
                .remedy("download the file again"));
        }
        let count = count as usize;
        check_at_most("bytes in a GGUF header", (self.at + count) as u64, self.most)?;
        self.at += count;
        Ok(&rest[..count])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N as u64)?.try_into().expect("as many as were taken"))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<&'a str> {
        let length = self.u64()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| invalid("a name or text of the GGUF header is not UTF-8"))
    }

    fn version(&mut self) -> Result<()> {
        let version = self.u32()?;
        let error =
            || Error::new(ErrorKind::Unsupported, "a GGUF file of this version cannot be read").expected("2 or 3");
        match version {
            2 | 3 => Ok(()),
            _ if matches!(version.swap_bytes(), 1..=3) => {
                Err(error().found("a big-endian file").remedy("convert it to little-endian"))
            }
            other => Err(error().found(other.to_string())),
        }
    }

    fn metadata(&mut self, entries: u64) -> Result<BTreeMap<String, String>> {
        let (mut metadata, mut seen) = (BTreeMap::new(), HashSet::new());
        for _ in 0..entries {
            let key = self.text()?;
            if !seen.insert(key) {
                return Err(invalid(format!("the metadata `{key}` stands twice")));
            }
            let kind = self.u32()?;
            if let Some(value) = self.value(kind, 0)? {
                metadata.insert(key.to_owned(), value);
            }
        }
        Ok(metadata)
    }

    /// A value of this type, as text if it is worth keeping.
    fn value(&mut self, kind: u32, depth: usize) -> Result<Option<String>> {
        Ok(Some(match kind {
            0 => self.array::<1>()?[0].to_string(),
            1 => i8::from_le_bytes(self.array()?).to_string(),
            2 => u16::from_le_bytes(self.array()?).to_string(),
            3 => i16::from_le_bytes(self.array()?).to_string(),
            4 => self.u32()?.to_string(),
            5 => i32::from_le_bytes(self.array()?).to_string(),
            6 => f32::from_le_bytes(self.array()?).to_string(),
            7 => (self.array::<1>()?[0] != 0).to_string(),
            8 => self.text()?.to_owned(),
            9 => return self.list(depth),
            10 => self.u64()?.to_string(),
            11 => i64::from_le_bytes(self.array()?).to_string(),
            12 => f64::from_le_bytes(self.array()?).to_string(),
            other => {
                return Err(invalid("the GGUF metadata has a value of no known type").found(format!("type {other}")));
            }
        }))
    }

    fn list(&mut self, depth: usize) -> Result<Option<String>> {
        let (kind, count) = (self.u32()?, self.u64()?);
        check_at_most("lists within lists in a GGUF header", depth as u64 + 1, NESTING as u64)?;
        // Long lists are vocabularies: stepped over, those of numbers in one go.
        let size = match kind {
            0 | 1 | 7 => Some(1),
            2 | 3 => Some(2),
            4..=6 => Some(4),
            10..=12 => Some(8),
            _ => None,
        };
        if let Some(size) = size.filter(|_| count > KEPT_LIST) {
            self.take(count.saturating_mul(size))?;
            return Ok(None);
        }
        let mut texts = Vec::new();
        for _ in 0..count {
            let text = self.value(kind, depth + 1)?;
            texts.extend(text.filter(|_| count <= KEPT_LIST));
        }
        Ok((count <= KEPT_LIST).then(|| texts.join(", ")))
    }

    fn tensor(&mut self, limits: &Limits) -> Result<Info> {
        let name = self.text()?.to_owned();
        let rank = self.u32()?;
        check_at_most(&format!("dimensions of tensor `{name}`"), u64::from(rank), limits.tensor_rank as u64)?;
        let mut shape = (0..rank).map(|_| self.u64()).collect::<Result<Vec<_>>>()?;
        let (number, offset) = (self.u32()?, self.u64()?);
        let element = ElementType::from_gguf(number).map_err(|known| {
            Error::new(ErrorKind::Unsupported, format!("tensor `{name}` has an element type that Luna does not read"))
                .expected("F64, F32, F16, BF16, Q8_0, Q4_K, Q5_K, Q6_K or an integer type")
                .found(known.map_or_else(|| format!("type {number}"), str::to_owned))
                .remedy("use a file of another quantisation, such as Q8_0 or Q4_K_M")
        })?;
        let row = shape.first().copied().unwrap_or(1);
        if !row.is_multiple_of(element.block() as u64) {
            return Err(invalid(format!("the rows of tensor `{name}` do not fill blocks of {element}"))
                .expected(format!("a multiple of {}", element.block()))
                .found(row.to_string()));
        }
        let overflow = || invalid(format!("the shape of tensor `{name}` overflows"));
        let count = shape.iter().try_fold(1u64, |count, &side| count.checked_mul(side)).ok_or_else(overflow)?;
        let bytes = (count / element.block() as u64).checked_mul(element.bytes() as u64).ok_or_else(overflow)?;
        // The innermost side comes first in the file.
        shape.reverse();
        let shape = shape.into_iter().map(usize::try_from).collect::<Result<_, _>>().map_err(|_| overflow())?;
        Ok(Info { name, element, shape, offset, bytes })
    }
}
