//! Maps a file into memory. The only `unsafe` of this room.
#![allow(unsafe_code)]

use super::bytes::FileBytes;
use crate::{Error, ErrorKind, Result};
use std::{fs::File, path::Path};

/// Maps `path` read-only. Nothing is read yet.
pub(super) fn map(path: &Path) -> Result<FileBytes> {
    let failed = |error| Error::io(format!("open {}", path.display()), error);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "not a regular file").remedy("name a .safetensors file"));
    }
    if metadata.len() == 0 {
        // An empty file cannot be mapped; the reader of the header says what is wrong with it.
        return Ok(FileBytes::Memory(Vec::new().into()));
    }
    // SAFETY: the map is read-only and private to this process. Another process that truncates the file while a
    // model is being built can still cause a bus error, as with every reader of mapped weights; the window ends when
    // the model is built, because layers keep packed copies and the map is dropped.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|error| Error::io("map the file into memory", error))?;
    Ok(FileBytes::Mapped(map))
}

/// Lets go of the pages that hold `bytes` of the map, so that they do not count as this process's memory. Who reads them
/// again gets them from the file again.
#[cfg(unix)]
pub(super) fn release(map: &memmap2::Mmap, bytes: std::ops::Range<usize>) {
    /// A page, or a multiple of one, on every system; parts of pages at both ends stay.
    const PAGE: usize = 64 << 10;
    let start = map.as_ptr().addr();
    let first = (start + bytes.start).next_multiple_of(PAGE).saturating_sub(start);
    let end = ((start + bytes.end) / PAGE * PAGE).saturating_sub(start);
    if first < end && end <= map.len() {
        // SAFETY: the map is read-only and backed by the file, so that dropping its pages loses nothing.
        // An error would only mean that the memory stays.
        let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, first, end - first) };
    }
}

/// Other systems take such pages by themselves when memory runs short.
#[cfg(not(unix))]
pub(super) fn release(_map: &memmap2::Mmap, _bytes: std::ops::Range<usize>) {}
