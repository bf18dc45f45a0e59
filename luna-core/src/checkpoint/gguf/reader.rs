//! What a GGUF header is made of. Enters: bytes. Leaves: values, checked against what is there.

use super::{Info, invalid};
use crate::{Error, ErrorKind, Limits, Result, checkpoint::element::ElementType, limits::check_at_most};
use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
};

/// How deep lists of lists may go.
const NESTING: usize = 4;
/// The longest list that is kept, as text: shapes are, vocabularies are not.
const KEPT_LIST: u64 = 8;
/// The types of a text and of a list.
const TEXT: u32 = 8;
const LIST: u32 = 9;
/// Bytes that tell type and number of a list's items.
const LIST_START: usize = 12;

/// Bytes of a number of this type.
fn size(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// What the metadata say.
#[derive(Default)]
pub(in super::super) struct Values {
    /// Texts, numbers as text, and short lists with commas.
    pub(in super::super) texts: BTreeMap<String, String>,
    /// Where lists of any length lie.
    pub(in super::super) lists: BTreeMap<String, List>,
}

/// A list of the metadata, which is read when somebody asks for it.
#[derive(Clone)]
pub(in super::super) struct List {
    kind: u32,
    count: u64,
    /// Its items, in bytes from the start of the file.
    items: Range<usize>,
}

impl List {
    /// Its items, if they are texts.
    pub(in super::super) fn texts<'a>(&self, file: &'a [u8]) -> Option<Vec<&'a str>> {
        let mut reader = self.reader(file);
        if self.kind != TEXT {
            return None;
        }
        (0..self.count).map(|_| reader.text().ok()).collect()
    }

    /// Its items, if they are numbers; 1 and 0 for yes and no.
    pub(in super::super) fn numbers(&self, file: &[u8]) -> Option<Vec<f64>> {
        let mut reader = self.reader(file);
        size(self.kind)?;
        let number = |_| match reader.value(self.kind, 0).ok()??.as_str() {
            "true" => Some(1.0),
            "false" => Some(0.0),
            text => text.parse().ok(),
        };
        (0..self.count).map(number).collect()
    }

    fn reader<'a>(&self, file: &'a [u8]) -> Reader<'a> {
        // Its length was counted when the header was read.
        Reader::new(&file[..self.items.end], self.items.start, u64::MAX)
    }
}

/// Reads the header from front to back.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    most: u64,
}

impl<'a> Reader<'a> {
    /// Reads on at `at`, up to `most` bytes from the start of the file.
    pub(super) fn new(bytes: &'a [u8], at: usize, most: u64) -> Self {
        Self { bytes, at, most }
    }

    /// How far it has read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

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

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<&'a str> {
        let length = self.u64()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| invalid("a name or text of the GGUF header is not UTF-8"))
    }

    pub(super) fn version(&mut self) -> Result<()> {
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

    pub(super) fn metadata(&mut self, entries: u64) -> Result<Values> {
        let (mut values, mut seen) = (Values::default(), HashSet::new());
        for _ in 0..entries {
            let key = self.text()?;
            if !seen.insert(key) {
                return Err(invalid(format!("the metadata `{key}` stands twice")));
            }
            let kind = self.u32()?;
            let start = self.at;
            if let Some(value) = self.value(kind, 0)? {
                values.texts.insert(key.to_owned(), value);
            }
            if kind == LIST {
                let items = start + LIST_START..self.at;
                let mut start = Self::new(self.bytes, start, self.most);
                values.lists.insert(key.to_owned(), List { kind: start.u32()?, count: start.u64()?, items });
            }
        }
        Ok(values)
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
            TEXT => self.text()?.to_owned(),
            LIST => return self.list(depth),
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
        if let Some(size) = size(kind).filter(|_| count > KEPT_LIST) {
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

    pub(super) fn tensor(&mut self, limits: &Limits) -> Result<Info> {
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
