//! The vision part of a GGUF language model, which llama.cpp keeps in a file of its own: `mmproj-*.gguf`. Enters: a
//! language model that is open. Leaves: both as one checkpoint.

use super::{Checkpoint, gguf, header, mmap};
use crate::{Error, ErrorKind, Limits, Result};
use std::path::{Path, PathBuf};

/// Architectures whose models may have one.
const ARCHITECTURES: [&str; 2] = ["qwen3vl", "llama"];
/// What the names of such files hold.
const MARK: &str = "mmproj";
/// The layer whose outputs are as wide as the language model.
const LAST: &str = "mm.2.weight";

/// Whether a file name is that of a vision part.
pub(super) fn is_projector(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    name.contains(MARK) && name.ends_with(".gguf")
}

/// Adds the vision part beside a language model, if just one there fits it.
pub(super) fn add_beside(checkpoint: &mut Checkpoint, path: &Path, limits: &Limits) -> Result<()> {
    match &*fitting(checkpoint, path, limits)? {
        [one] => checkpoint.add_file(one, "", limits).map_err(|error| error.at(one.display())),
        _ => Ok(()),
    }
}

/// Opens a language model with the vision part that was named.
pub(super) fn open(path: &Path, projector: &Path, limits: &Limits) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::empty(path);
    checkpoint.add_file(path, "", limits).map_err(|error| error.at(path.display()))?;
    let width = width(&checkpoint);
    let at = |error: Error| error.at(projector.display());
    let found = outputs(projector, limits).map_err(at)?;
    if width.is_none() || found != width {
        let told = |width: Option<u64>| width.map_or_else(|| "none".to_owned(), |width| format!("{width} channels"));
        return Err(at(Error::new(ErrorKind::InvalidInput, "this vision part does not belong to the language model")
            .expected(format!("a GGUF file with `{LAST}` for a language model of {}", told(width)))
            .found(told(found))
            .remedy("name the mmproj file that was made of the same model")));
    }
    checkpoint.add_file(projector, "", limits).map_err(at)?;
    Ok(checkpoint)
}

/// The vision parts beside a language model that fit it.
///
/// # Errors
/// `Io` if the folder cannot be read; those of damaged files among them.
pub(crate) fn fitting(checkpoint: &Checkpoint, path: &Path, limits: &Limits) -> Result<Vec<PathBuf>> {
    let Some(wanted) = width(checkpoint) else { return Ok(Vec::new()) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut fitting = Vec::new();
    for path in files(folder)?.into_iter().filter(|path| is_projector(path)) {
        if outputs(&path, limits).map_err(|error| error.at(path.display()))? == Some(wanted) {
            fitting.push(path);
        }
    }
    Ok(fitting)
}

/// The files of a folder by name.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io(format!("read {}", folder.display()), error);
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let mut paths = entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}

/// Channels of a language model that may have a vision part.
fn width(checkpoint: &Checkpoint) -> Option<u64> {
    let architecture = checkpoint.metadata.get("general.architecture")?;
    ARCHITECTURES.contains(&architecture.as_str()).then_some(())?;
    checkpoint.config("")?["text_config"]["hidden_size"].as_u64()
}

/// Channels that a vision part gives, if the file is one.
fn outputs(path: &Path, limits: &Limits) -> Result<Option<u64>> {
    let bytes = mmap::map(path)?;
    if !gguf::is_gguf(bytes.as_slice()) {
        return Ok(None);
    }
    let header = header::read(&bytes, limits)?;
    let last = header.tensors.iter().find(|(name, _)| name == LAST);
    Ok(last.and_then(|(_, tensor)| tensor.shape.first().map(|&rows| rows as u64)))
}
