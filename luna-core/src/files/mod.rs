//! Files that appear whole or not at all. Enters: bytes and a path. Leaves: a file that is on the disk, under the
//! name that was asked for or a numbered one. It knows nothing of what the bytes mean; every writer of Luna uses it.

mod folders;
mod stamp;
mod system;

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};
pub(crate) use folders::folders_below;
pub(crate) use stamp::Stamp;
pub(crate) use system::{Scratch, same_file, sync_folder};

/// What a writer does where a file of that name stands already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum IfExists {
    /// Refuse; the file that stands there stays.
    #[default]
    Refuse,
    /// Put the new file in its place, in one step.
    Replace,
    /// Keep it and take the next free name: `name-2.png`, `name-3.png` and so on, also between processes.
    Number,
}

/// Writes `bytes` to `path` so that no reader, at no moment and after no crash, sees a part of them, and returns the
/// path that was taken. The data is on the disk when this returns. On failure nothing is left behind.
///
/// A symbolic link is followed; a device or pipe is written to directly, as it has no content to protect.
///
/// ```
/// use luna_core::files::{IfExists, write_atomically};
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("note.txt");
/// assert_eq!(write_atomically(&path, b"one", IfExists::Refuse)?, path);
/// assert!(write_atomically(&path, b"two", IfExists::Refuse).is_err());
/// assert_eq!(write_atomically(&path, b"two", IfExists::Number)?, folder.path().join("note-2.txt"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `NotFound` for a missing folder, `InvalidInput` for a path that names a folder or a file that may not be
/// replaced, `Io` with the system's reason for the rest (disk full, read-only, permissions).
pub fn write_atomically(path: &Path, bytes: &[u8], if_exists: IfExists) -> Result<PathBuf> {
    let mut file = AtomicFile::create(path, if_exists)?;
    file.write_all(bytes).map_err(|error| Error::io(format!("write {}", path.display()), error))?;
    file.commit()
}

/// A file under construction: it gets its name by [`AtomicFile::commit`], and vanishes if dropped before.
///
/// For what is too large to stand in memory as bytes; else see [`write_atomically`].
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    if_exists: IfExists,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Scratch(Scratch),
    /// A device or pipe.
    Direct(fs::File),
}

impl AtomicFile {
    /// Starts the file that will stand at `path`; its folder must exist. What stands there already is looked at
    /// now, so that a long computation does not end in a refusal, and again when the file gets its name.
    ///
    /// # Errors
    /// As [`write_atomically`].
    pub fn create(path: &Path, if_exists: IfExists) -> Result<Self> {
        let wrong = |message: String| Error::new(ErrorKind::InvalidInput, message);
        if path.file_name().is_none() {
            return Err(wrong(format!("{:?} names no file", path.display().to_string())));
        }
        let mut path = path.to_owned();
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => {
                return Err(wrong(format!("{} is a folder", path.display())).remedy("name a file in it"));
            }
            Ok(found) if !found.is_file() => {
                let file = fs::OpenOptions::new().write(true).open(&path);
                let file = file.map_err(|error| Error::io(format!("open {}", path.display()), error))?;
                return Ok(Self { path, if_exists, body: Body::Direct(file) });
            }
            Ok(_) if if_exists == IfExists::Refuse => return Err(exists_already(&path)),
            Ok(_) if if_exists == IfExists::Replace => {
                path = fs::canonicalize(&path).map_err(|error| Error::io(format!("find {}", path.display()), error))?;
            }
            _ => {}
        }
        match Scratch::create(folder_of(&path)) {
            Ok(scratch) => Ok(Self { path, if_exists, body: Body::Scratch(scratch) }),
            Err(error) => {
                let missing = error.kind() == io::ErrorKind::NotFound;
                let error = Error::io(format!("write into {}", folder_of(&path).display()), error);
                Err(if missing { error.remedy("create that folder first") } else { error })
            }
        }
    }

    /// Brings the bytes to the disk and gives the file its name; returns the path that was taken.
    ///
    /// # Errors
    /// As [`write_atomically`].
    pub fn commit(self) -> Result<PathBuf> {
        let Self { path, if_exists, body } = self;
        let refused = |error| Error::io(format!("write {}", path.display()), error);
        let mut scratch = match body {
            Body::Direct(mut file) => return file.flush().map(|()| path.clone()).map_err(refused),
            Body::Scratch(scratch) => scratch,
        };
        scratch.file().sync_all().map_err(refused)?;
        let taken = match if_exists {
            IfExists::Replace => scratch.publish_over(&path).map(|()| path.clone()),
            IfExists::Number => publish_numbered(&mut scratch, &path),
            IfExists::Refuse => match scratch.publish_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists_already(&path)),
                other => other.map(|()| path.clone()),
            },
        };
        let taken = taken.map_err(refused)?;
        // The file stands under its name now; an error here would say that it does not.
        let _ = sync_folder(folder_of(&taken));
        Ok(taken)
    }
}

fn exists_already(path: &Path) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("{} exists already", path.display()))
        .remedy("choose another name, or allow it to be replaced")
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.body {
            Body::Scratch(scratch) => scratch.file().write(bytes),
            Body::Direct(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.body {
            Body::Scratch(scratch) => scratch.file().flush(),
            Body::Direct(file) => file.flush(),
        }
    }
}

/// Takes the first free name of `name`, `name-2`, `name-3`…
fn publish_numbered(scratch: &mut Scratch, path: &Path) -> io::Result<PathBuf> {
    let taken = |number| fs::symlink_metadata(numbered(path, number)).is_ok();
    publish_from(first_free(taken), |number| {
        let candidate = numbered(path, number);
        scratch.publish_new(&candidate).map(|()| candidate)
    })
}

/// Counts up from `number` until `publish` finds a name that nobody took meanwhile.
pub(crate) fn publish_from<T>(mut number: u64, mut publish: impl FnMut(u64) -> io::Result<T>) -> io::Result<T> {
    loop {
        match publish(number) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            other => return other,
        }
    }
}

/// A number from 1 up that was free just now. Doubling and halving, so that the ten thousandth file of a name costs
/// some thirty look-ups; where numbers have gaps, one of the gaps may be found.
pub(crate) fn first_free(taken: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, 1);
    while taken(high) {
        (low, high) = (high, high * 2);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if taken(middle) { low = middle } else { high = middle }
    }
    high
}

/// `a/name.png` → `a/name-7.png`; number 1 is the name itself.
fn numbered(path: &Path, number: u64) -> PathBuf {
    if number == 1 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// The folder a path lies in; the working folder for a bare name.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests;
