//! Where clients' pictures are saved. Enters: settings, folders as clients know them. Leaves: the saver, and where below
//! its folder a client's folder lies.

use super::events::{DaemonEvent, Events, Scaled};
use crate::settings::DaemonSettings;
use luna_core::{
    Error, ErrorKind, Result,
    pool::Scaling,
    protocol::{Fault, Reason},
    save::{SaveConfig, SaveEvent, SavePool, Target},
};
use std::{
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// The saver, where the daemon has an output folder.
#[derive(Default)]
pub struct Saves {
    pool: Option<SavePool>,
    /// The folder without links, or a store's URL.
    root: Option<Root>,
}

enum Root {
    Folder(PathBuf),
    Store(String),
}

impl Saves {
    /// # Errors
    /// As [`SavePool::new`].
    pub fn new(settings: &DaemonSettings, events: &Arc<Events>) -> Result<Self> {
        let Some(output) = &settings.output else { return Ok(Self::default()) };
        let bounds = settings.pools.get("save");
        let mut config = SaveConfig::new(output.clone());
        config.spool.clone_from(&settings.spool);
        let mut scaling = Scaling::default();
        (scaling.threads, scaling.idle) = (bounds.workers.clone(), settings.idle);
        config.scaling = scaling;
        let events = events.clone();
        config.listener = Some(Arc::new(move |event: &SaveEvent| tell(&events, event)));
        let pool = SavePool::new(config)?;
        let root = match output {
            Target::Folder(folder) => {
                let real = folder.canonicalize();
                Root::Folder(real.map_err(|error| Error::io(format!("open the folder {}", folder.display()), error))?)
            }
            store => Root::Store(store.to_string()),
        };
        Ok(Self { pool: Some(pool), root: Some(root) })
    }

    pub fn pool(&self) -> Option<&SavePool> {
        self.pool.as_ref()
    }

    /// The output folder, or the store's URL.
    pub fn output(&self) -> Option<String> {
        self.root.as_ref().map(|root| match root {
            Root::Folder(folder) => folder.display().to_string(),
            Root::Store(url) => url.clone(),
        })
    }

    /// Jobs that are not finished.
    pub fn under_way(&self) -> u64 {
        let counters = self.pool.as_ref().map(SavePool::counters).unwrap_or_default();
        counters.jobs.saturating_sub(counters.jobs_finished)
    }

    /// The folders between the output folder and the one that a client names, which may not be there yet.
    ///
    /// # Errors
    /// `denied` for one that does not lie below the output folder.
    pub fn below(&self, named: Option<&str>) -> Result<String, Fault> {
        let Some(named) = named else { return Ok(String::new()) };
        let found = match &self.root {
            Some(Root::Folder(root)) => below(root, Path::new(named)),
            Some(Root::Store(url)) => (named == url).then(String::new),
            None => None,
        };
        found.ok_or_else(|| {
            let error = Error::new(ErrorKind::InvalidInput, "the folder does not lie below the daemon's output folder")
                .found(format!("`{named}`"))
                .remedy("name a folder below the daemon's, or start the daemon with `--output FOLDER`");
            Fault::because(Reason::Denied, error)
        })
    }
}

/// What of `named` is below `root`, where links are resolved as far as the path exists. What comes after may have no
/// `..`; the saver itself writes below its root only, whatever links appear meanwhile.
fn below(root: &Path, named: &Path) -> Option<String> {
    let mut rest = Vec::new();
    let mut existing = named;
    let real = loop {
        match existing.canonicalize() {
            Ok(real) => break real,
            Err(_) => {
                rest.push(existing.file_name()?);
                existing = existing.parent()?;
            }
        }
    };
    let mut folders: Vec<&str> = Vec::new();
    let known = real.strip_prefix(root).ok()?;
    for part in known.components().chain(rest.iter().rev().map(|part| Component::Normal(part))) {
        match part {
            Component::Normal(part) => folders.push(part.to_str()?),
            _ => return None,
        }
    }
    Some(folders.join("/"))
}

fn tell(events: &Events, event: &SaveEvent) {
    match event {
        SaveEvent::Threads(from, to) => {
            let (up, worker) = (to > from, (*from).min(*to));
            events.tell(DaemonEvent::Scaled(Scaled { pool: "save", up, worker, workers: *to }));
        }
        SaveEvent::Finished(status) => {
            let (job, state) = (status.id.to_string(), status.state().name());
            events.tell(DaemonEvent::Saved { job, state, pictures: status.pictures.len() });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_what_lies_below_the_output_folder_is_taken() {
        let place = tempfile::tempdir().unwrap();
        let base = place.path().canonicalize().unwrap();
        let (root, other) = (base.join("out"), base.join("out-of-others"));
        [&root, &other].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
        assert_eq!(below(&root, &root).as_deref(), Some(""));
        assert_eq!(below(&root, &root.join("a/b")).as_deref(), Some("a/b"));
        assert_eq!(below(&root, &root.join("../out/a")).as_deref(), Some("a"));
        for hostile in [other.clone(), root.join(".."), root.join("a/../../x"), PathBuf::from("/etc"), "".into()] {
            assert_eq!(below(&root, &hostile), None, "{}", hostile.display());
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&other, root.join("link")).unwrap();
            assert_eq!(below(&root, &root.join("link/x")), None);
        }
    }
}
