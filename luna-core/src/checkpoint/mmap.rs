//! Maps a file into memory, and memory that two processes share. The only `unsafe` of this room.
#![allow(unsafe_code)]

use super::bytes::FileBytes;
use crate::{Error, ErrorKind, Result};
use std::{fs::File, ops::Range, path::Path, sync::Mutex};

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
    Ok(FileBytes::Mapped(map, Mutex::default()))
}

/// Asks the system to read `bytes` of the map, and what follows them, before they are touched: asked for page by page, a
/// disk gives a part of its speed, and nothing else is done meanwhile. `asked` is what it was asked for last.
#[cfg(unix)]
pub(super) fn read_ahead(map: &memmap2::Mmap, asked: &mut Range<usize>, bytes: Range<usize>) {
    /// So far ahead, and not much further, so that a small model in a large file does not have all of it read.
    const AHEAD: usize = 32 << 20;
    let follows = asked.start <= bytes.start && bytes.start <= asked.end;
    if follows && (asked.end == map.len() || bytes.end + AHEAD / 2 <= asked.end) {
        return;
    }
    let (start, end) = (if follows { asked.end } else { bytes.start }, map.len().min(bytes.end + AHEAD));
    *asked = if follows { asked.start..end } else { start..end };
    // An error would only mean that it is read page by page.
    let _ = map.advise_range(memmap2::Advice::WillNeed, start, end - start);
}

/// Other systems read mapped files ahead by their own rules.
#[cfg(not(unix))]
pub(super) fn read_ahead(_map: &memmap2::Mmap, _asked: &mut Range<usize>, _bytes: Range<usize>) {}

/// Lets go of the pages that hold `bytes` of the map, so that they do not count as this process's memory. Who reads them
/// again gets them from the file again.
#[cfg(unix)]
pub(super) fn release(map: &memmap2::Mmap, bytes: Range<usize>) {
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
pub(super) fn release(_map: &memmap2::Mmap, _bytes: Range<usize>) {}

/// A file in memory (`memfd`) that another process may have mapped as well. What that process writes shows here, as
/// with mapped files: numbers change, lengths and types do not, as those are kept elsewhere.
#[cfg(target_os = "linux")]
pub(crate) struct SharedMap(memmap2::MmapRaw);

#[cfg(target_os = "linux")]
impl SharedMap {
    /// Maps all of it, for reading and writing.
    ///
    /// # Errors
    /// `InvalidInput` for anything whose pages could be taken away: a file that is not in memory, or not sealed
    /// against shrinking, or empty; `Io` from the system.
    pub(crate) fn new(file: &File) -> Result<Self> {
        use rustix::fs::{SealFlags, fcntl_get_seals, fstatfs};
        /// What `statfs` tells of memory files; those of huge pages, which may run out, tell another.
        const TMPFS: u32 = 0x0102_1994;
        let wrong = |found: &str| {
            Error::new(ErrorKind::InvalidInput, "this descriptor is no memory to be shared")
                .expected("a memfd of usual pages, sealed against shrinking")
                .found(found)
        };
        let seals = fcntl_get_seals(file).map_err(|_| wrong("a file that cannot be sealed"))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(wrong("a memfd that may shrink"));
        }
        let kind = fstatfs(file).map_err(|error| Error::io("look at shared memory", error.into()))?.f_type;
        if kind as u32 != TMPFS {
            return Err(wrong("pages of another kind"));
        }
        let map = memmap2::MmapRaw::map_raw(file).map_err(|error| Error::io("map shared memory", error))?;
        if map.len() < size_of::<u32>() { Err(wrong("an empty one")) } else { Ok(Self(map)) }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A part of it.
    ///
    /// # Panics
    /// If it does not lie within.
    pub(crate) fn read(&self, part: Range<usize>) -> &[u8] {
        assert!(part.start <= part.end && part.end <= self.len());
        // SAFETY: the part lies within the map, which lives as long as the borrow, and whose pages stay: the file is
        // sealed against shrinking. Any bytes are valid; another process may change them, which nothing here relies
        // on not to happen (see above).
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(part.start), part.len()) }
    }

    /// Writes from a place on, past this core's caches: another process will read it.
    ///
    /// # Panics
    /// If they do not fit.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at <= self.len() && bytes.len() <= self.len() - at);
        // SAFETY: the place lies within the map, of which the caller holds no part as bytes. The sender of a segment
        // writes only while nobody reads it; a process that lies about that reads a mixture of numbers.
        unsafe { luna_kernels::copy_far(bytes, self.0.as_mut_ptr().add(at)) }
    }

    /// The first word, in which the processes tell each other who may write.
    pub(crate) fn word(&self) -> &std::sync::atomic::AtomicU32 {
        // SAFETY: the map is page-aligned and holds four bytes at least; no part that is read or written as bytes
        // begins before them (the room that uses this keeps its data behind a head).
        unsafe { std::sync::atomic::AtomicU32::from_ptr(self.0.as_mut_ptr().cast()) }
    }
}
