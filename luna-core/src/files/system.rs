//! What differs between systems about making a file appear in one step. Enters: a folder. Leaves: a nameless or
//! hidden file in it that can be given a name. On Linux the file has no name until then, so that even a killed
//! process leaves nothing; elsewhere, and on file systems without that, it has a hidden name.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A file without its final name, in the folder where it will stand.
#[derive(Debug)]
pub(crate) struct Scratch(Kind);

#[derive(Debug)]
enum Kind {
    #[cfg(target_os = "linux")]
    Nameless { file: fs::File, folder: PathBuf },
    /// `None` once it was published.
    Hidden(Option<tempfile::NamedTempFile>),
    /// Under a name that outlives the process, until it is published or removed by whoever knows the name.
    Kept { file: fs::File, path: PathBuf },
}

impl Scratch {
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Some(file) = nameless::create(folder)? {
            return Ok(Self(Kind::Nameless { file, folder: folder.to_owned() }));
        }
        Self::hidden(folder)
    }

    /// A file at `path`, which stays there if the process dies. What stood there is gone.
    pub(crate) fn keep_at(path: &Path) -> io::Result<Self> {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        Ok(Self(Kind::Kept { file, path: path.to_owned() }))
    }

    /// The file that an earlier process kept at `path`.
    pub(crate) fn resume(path: &Path) -> io::Result<Self> {
        let file = fs::OpenOptions::new().write(true).open(path)?;
        Ok(Self(Kind::Kept { file, path: path.to_owned() }))
    }

    /// The portable form: a hidden name, removed when dropped.
    pub(super) fn hidden(folder: &Path) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".luna-").suffix(".part");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // What the process's umask leaves of it, as for any ordinary file.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        Ok(Self(Kind::Hidden(Some(builder.tempfile_in(folder)?))))
    }

    pub(crate) fn file(&mut self) -> &mut fs::File {
        match &mut self.0 {
            #[cfg(target_os = "linux")]
            Kind::Nameless { file, .. } => file,
            Kind::Kept { file, .. } => file,
            Kind::Hidden(file) => file.as_mut().expect("a published file is not written to").as_file_mut(),
        }
    }

    /// Gives the file its name; `AlreadyExists`, with the file kept, if the name is taken.
    pub(crate) fn publish_new(&mut self, path: &Path) -> io::Result<()> {
        match &mut self.0 {
            #[cfg(target_os = "linux")]
            Kind::Nameless { file, .. } => nameless::link(file, path),
            Kind::Kept { path: kept, .. } => {
                let kept = tempfile::TempPath::try_from_path(&*kept)?;
                kept.persist_noclobber(path).map_err(|refused| {
                    // It must stay; dropping the path would remove it.
                    let _ = refused.path.keep();
                    refused.error
                })
            }
            Kind::Hidden(slot) => {
                let file = slot.take().expect("a file is published once");
                match file.persist_noclobber(path) {
                    Ok(_) => Ok(()),
                    Err(tempfile::PersistError { error, file }) => {
                        *slot = Some(file);
                        Err(error)
                    }
                }
            }
        }
    }

    /// Gives the file its name in the place of whatever had it, with the permissions of the file it replaces.
    pub(crate) fn publish_over(&mut self, path: &Path) -> io::Result<()> {
        if let Ok(old) = fs::metadata(path) {
            self.file().set_permissions(old.permissions())?;
        }
        match &mut self.0 {
            #[cfg(target_os = "linux")]
            Kind::Nameless { file, folder } => match nameless::link(file, path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    // A nameless file can only take a free name; from there it is moved over the old one.
                    let linked = tempfile::Builder::new()
                        .prefix(".luna-")
                        .suffix(".part")
                        .make_in(&*folder, |name| nameless::link(file, name))?;
                    linked.persist(path).map(drop).map_err(|error| error.error)
                }
                other => other,
            },
            Kind::Kept { path: kept, .. } => fs::rename(kept, path),
            Kind::Hidden(slot) => {
                let file = slot.take().expect("a file is published once");
                file.persist(path).map(drop).map_err(|error| error.error)
            }
        }
    }
}

/// Brings the folder's list of names to the disk, where a system has a way to ask for it.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    match fs::File::open(folder)?.sync_all() {
        // Some network and FUSE file systems cannot sync a folder; the file itself is on the disk.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {}
        other => other?,
    }
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// Whether both names are of one file, as they are for a moment where a file system moves by linking.
pub(crate) fn same_file(one: &Path, other: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let (one, other) = (fs::symlink_metadata(one), fs::symlink_metadata(other));
        matches!((one, other), (Ok(one), Ok(other)) if one.dev() == other.dev() && one.ino() == other.ino())
    }
    #[cfg(not(unix))]
    {
        let _ = (one, other);
        false
    }
}

#[cfg(target_os = "linux")]
mod nameless {
    use std::{fs, io, os::fd::AsRawFd, path::Path};

    use rustix::{
        fs::{AtFlags, CWD, Mode, OFlags, linkat, open},
        io::Errno,
    };

    /// A file with no name, or `None` where the file system or the sandbox has no such thing.
    pub(super) fn create(folder: &Path) -> io::Result<Option<fs::File>> {
        // Naming it later goes through /proc.
        if !Path::new("/proc/self/fd").is_dir() {
            return Ok(None);
        }
        let mode = Mode::from_raw_mode(0o666);
        match open(folder, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, mode) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS | Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn link(file: &fs::File, path: &Path) -> io::Result<()> {
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        linkat(CWD, name, CWD, path, AtFlags::SYMLINK_FOLLOW).map_err(Into::into)
    }
}
