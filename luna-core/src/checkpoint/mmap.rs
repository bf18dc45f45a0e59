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
