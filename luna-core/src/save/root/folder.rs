//! The output folder. Enters: names and bytes. Leaves: files below the folder, each whole and under a name that nobody
//! had; links that lead out of it are refused.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use super::{Content, DISCARDED, Traces, Way};
use crate::{
    Error, ErrorKind, Result,
    files::{IfExists, Scratch, first_free, publish_from, same_file, sync_folder},
    save::{
        spool::{ReadyFile, Step},
        template::Name,
    },
};

pub(in crate::save) struct Folder {
    /// Without links, so that what lies below can be compared with it.
    path: PathBuf,
    /// Failures to come, for tests of what cannot be had at will: a full disk, say.
    #[cfg(test)]
    pub(in crate::save) faults: std::sync::Mutex<Vec<io::ErrorKind>>,
}

impl Folder {
    /// Makes the folder if it is missing.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let refused = |error| Error::io(format!("open the output folder {}", path.display()), error);
        fs::create_dir_all(path).map_err(refused)?;
        Ok(Self {
            path: fs::canonicalize(path).map_err(refused)?,
            #[cfg(test)]
            faults: Default::default(),
        })
    }

    /// Writes the bytes, nameless or hidden, and gives them their name.
    pub(super) fn place(&self, way: &Way<'_>, content: &Content<'_>) -> Result<PathBuf> {
        let folder = self.folder(way.folders)?;
        if way.note.is_none() {
            let scratch = self.write(&folder, content.bytes, None)?;
            return self.publish(way, scratch, &folder);
        }
        let hidden = folder.join(hidden_name(way));
        way.note(Step::Begin)?;
        let scratch = self.write(&folder, content.bytes, Some(&hidden))?;
        way.note(Step::Ready(ReadyFile { hidden: self.relative(&hidden).to_owned(), ..content.ready.clone() }))?;
        self.publish(way, scratch, &folder)
    }

    /// A file that was finished but not moved is moved now.
    pub(super) fn resume(&self, way: &Way<'_>, traces: &Traces<'_>) -> Result<Option<PathBuf>> {
        let hidden = self.path.join(&traces.ready.hidden);
        let tried = traces.tried.map(|path| self.path.join(path));
        match tried {
            // Linked to its name, and not yet unlinked from the hidden one.
            Some(path) if same_file(&hidden, &path) => {
                fs::remove_file(&hidden).map_err(|error| Error::io(format!("remove {}", hidden.display()), error))?;
                Ok(Some(path))
            }
            // Cancelled meanwhile: `clear` takes it away.
            _ if hidden.exists() && traces.cancelled => Ok(None),
            _ if hidden.exists() => {
                let folder = hidden.parent().unwrap_or(Path::new(""));
                let scratch = Scratch::resume(&hidden);
                let scratch = scratch.map_err(|error| Error::io(format!("open {}", hidden.display()), error))?;
                self.publish(way, scratch, folder).map(Some)
            }
            // The hidden file is gone because it was moved, unless its whole folder is gone.
            Some(path) if path.exists() || hidden.parent().is_some_and(Path::is_dir) => Ok(Some(path)),
            _ => Ok(None),
        }
    }

    /// Removes what was left under a hidden name.
    pub(super) fn clear(&self, way: &Way<'_>) {
        // The hidden file must not be taken for one that was moved to its name.
        if way.note.is_none() || way.note(Step::Begin).is_err() {
            return;
        }
        let folder = self.path.join(way.folders.iter().collect::<PathBuf>());
        for folder in [folder.join(DISCARDED), folder] {
            let _ = fs::remove_file(folder.join(hidden_name(way)));
        }
    }

    /// Where these folders lie, made if they are missing. Links are followed as long as they stay below the root.
    fn folder(&self, parts: &[String]) -> Result<PathBuf> {
        let mut folder = self.path.clone();
        if !folder.is_dir() {
            fs::create_dir_all(&folder).map_err(|error| Error::io(format!("make {}", folder.display()), error))?;
        }
        for part in parts {
            folder.push(part);
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io(format!("make the folder {}", folder.display()), error));
                }
                _ => {}
            }
            let found = fs::symlink_metadata(&folder);
            let found = found.map_err(|error| Error::io(format!("look at {}", folder.display()), error))?;
            if found.is_symlink() {
                folder = self.inside(&folder)?;
            } else if !found.is_dir() {
                let error = Error::new(ErrorKind::InvalidInput, format!("{} is no folder", folder.display()));
                return Err(error.remedy("choose another folder for the pictures"));
            }
        }
        Ok(folder)
    }

    fn inside(&self, link: &Path) -> Result<PathBuf> {
        let target = fs::canonicalize(link).map_err(|error| Error::io(format!("follow {}", link.display()), error))?;
        if target.starts_with(&self.path) && target.is_dir() {
            return Ok(target);
        }
        Err(Error::new(ErrorKind::InvalidInput, format!("{} leads out of the output folder", link.display()))
            .expected(format!("a folder below {}", self.path.display()))
            .found(target.display().to_string()))
    }

    /// A path below the root, for records; the path itself where it is not below.
    fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.path).unwrap_or(path)
    }

    /// Brings the bytes to the disk, nameless or under `kept`.
    fn write(&self, folder: &Path, bytes: &[u8], kept: Option<&Path>) -> Result<Scratch> {
        let write = || {
            #[cfg(test)]
            if let Some(kind) = self.faults.lock().unwrap().pop() {
                return Err(kind.into());
            }
            let mut scratch = match kept {
                Some(path) => Scratch::keep_at(path)?,
                None => Scratch::create(folder)?,
            };
            scratch.file().write_all(bytes)?;
            scratch.file().sync_all()?;
            Ok(scratch)
        };
        write().map_err(|error: io::Error| Error::io(format!("write into {}", folder.display()), error))
    }

    /// Gives a finished file its name, and notes each path before it is tried.
    fn publish(&self, way: &Way<'_>, mut scratch: Scratch, folder: &Path) -> Result<PathBuf> {
        let (name, if_exists) = (way.name, way.if_exists);
        let try_name = |path: &Path| way.note(Step::Try(self.relative(path).to_owned()));
        let refused = |path: &Path, error| Error::io(format!("write {}", path.display()), error);
        let single = folder.join(name.file(1));
        let path = match if_exists {
            IfExists::Replace if name.counter.is_none() => {
                if fs::symlink_metadata(&single).is_ok_and(|found| !found.is_file()) {
                    return Err(Error::new(ErrorKind::InvalidInput, format!("{} is no plain file", single.display()))
                        .remedy("choose another name; links and folders are not replaced"));
                }
                try_name(&single)?;
                scratch.publish_over(&single).map_err(|error| refused(&single, error))?;
                single
            }
            IfExists::Refuse if name.counter.is_none() => {
                try_name(&single)?;
                scratch.publish_new(&single).map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => {
                        Error::new(ErrorKind::InvalidInput, format!("{} exists already", single.display()))
                            .remedy("choose another name, or allow a number to be added")
                    }
                    _ => refused(&single, error),
                })?;
                single
            }
            _ => {
                let first = first_number(folder, name).map_err(|error| refused(folder, error))?;
                let mut failure = None;
                let published = publish_from(first, |number| {
                    let path = folder.join(name.file(number));
                    if let Err(error) = try_name(&path) {
                        failure = Some(error);
                        return Err(io::ErrorKind::Other.into());
                    }
                    scratch.publish_new(&path).map(|()| path)
                });
                match (failure, published) {
                    (Some(error), _) => return Err(error),
                    (None, published) => published.map_err(|error| refused(&single, error))?,
                }
            }
        };
        // The file stands under its name now; a refusal to sync the folder must not have it written twice.
        let _ = sync_folder(folder);
        // Not to be lost, but the move itself says the same to those who look for it.
        let _ = way.note(Step::Written);
        Ok(path)
    }
}

fn hidden_name(way: &Way<'_>) -> String {
    format!(".luna-{}.part", way.mark)
}

/// One more than the highest number in the folder, or the first one free behind a plain name.
fn first_number(folder: &Path, name: &Name) -> io::Result<u64> {
    if name.counter.is_none() {
        return Ok(first_free(|number| fs::symlink_metadata(folder.join(name.file(number))).is_ok()));
    }
    let mut highest = 0;
    for entry in fs::read_dir(folder)? {
        if let Some(number) = entry?.file_name().to_str().and_then(|file| name.number_of(file)) {
            highest = highest.max(number);
        }
    }
    Ok(highest.saturating_add(1))
}
