//! Below what all pictures go, and how a finished file gets there. Enters: names and bytes. Leaves: files below the
//! root, never elsewhere, each under a name that nobody had. It encodes nothing and retries nothing.

mod folder;
#[cfg(feature = "object-store")]
mod store;

use std::path::{Path, PathBuf};

use super::{
    spool::{ReadyFile, Step},
    target::Target,
    template::Name,
};
use crate::{Result, files::IfExists};
use folder::Folder;
#[cfg(feature = "object-store")]
use store::Store;
#[cfg(feature = "object-store")]
pub(super) use store::check_options;

/// Where rejects are kept.
pub(super) const DISCARDED: &str = "_discarded";

pub(super) enum Root {
    Folder(Folder),
    #[cfg(feature = "object-store")]
    Store(Store),
}

/// A picture's way into the root.
pub(super) struct Way<'a> {
    /// Folders below the root, and the file's name.
    pub(super) folders: &'a [String],
    pub(super) name: &'a Name,
    pub(super) if_exists: IfExists,
    /// Names this picture of this job among all there are, so that what an earlier attempt left is known again.
    pub(super) mark: &'a str,
    /// For durable jobs: hears of each step, and has it on the disk, before the next begins.
    pub(super) note: Option<&'a dyn Fn(Step) -> Result<()>>,
}

impl Way<'_> {
    fn note(&self, step: Step) -> Result<()> {
        self.note.map_or(Ok(()), |note| note(step))
    }
}

/// A file's bytes, and what is noted of them.
pub(super) struct Content<'a> {
    pub(super) bytes: &'a [u8],
    /// The hidden name is filled in by the root.
    pub(super) ready: ReadyFile,
}

/// What an earlier process noted of a picture.
pub(super) struct Traces<'a> {
    pub(super) ready: &'a ReadyFile,
    /// The path tried last.
    pub(super) tried: Option<&'a Path>,
    /// Whether it had its name; a folder tells that by itself.
    #[cfg_attr(not(feature = "object-store"), expect(dead_code))]
    pub(super) written: bool,
    /// Whether the job is cancelled by now.
    pub(super) cancelled: bool,
}

impl Root {
    pub(super) fn open(target: &Target) -> Result<Self> {
        match target {
            Target::Folder(path) => Folder::open(path).map(Self::Folder),
            #[cfg(feature = "object-store")]
            Target::Store(store) => Store::open(store).map(Self::Store),
            #[cfg(not(feature = "object-store"))]
            Target::Store(_) => unreachable!("no such target can be made"),
        }
    }

    /// Puts a file under its name and returns where it stands: a path, or a URL.
    pub(super) fn place(&self, way: &Way<'_>, content: &Content<'_>) -> Result<PathBuf> {
        match self {
            Self::Folder(folder) => folder.place(way, content),
            #[cfg(feature = "object-store")]
            Self::Store(store) => store.place(way, content),
        }
    }

    /// Where a file stands that an earlier process had finished; it is given its name now if it had none. `None` if it
    /// is to be made again.
    pub(super) fn resume(&self, way: &Way<'_>, traces: &Traces<'_>) -> Result<Option<PathBuf>> {
        match self {
            Self::Folder(folder) => folder.resume(way, traces),
            #[cfg(feature = "object-store")]
            Self::Store(store) => store.resume(way, traces),
        }
    }

    /// Clears away what a failed or cancelled attempt left.
    pub(super) fn clear(&self, way: &Way<'_>) {
        match self {
            Self::Folder(folder) => folder.clear(way),
            #[cfg(feature = "object-store")]
            Self::Store(store) => store.clear(way),
        }
    }

    #[cfg(test)]
    pub(super) fn folder(&self) -> &Folder {
        match self {
            Self::Folder(folder) => folder,
            #[cfg(feature = "object-store")]
            Self::Store(_) => panic!("not a folder"),
        }
    }

    #[cfg(all(test, feature = "object-store"))]
    pub(super) fn store(&self) -> &Store {
        match self {
            Self::Store(store) => store,
            Self::Folder(_) => panic!("not a store"),
        }
    }
}
