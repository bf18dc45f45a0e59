//! Models by the names that requests use. Enters: paths, uploads, names. Leaves: leases on what the registry shares.

use super::Daemon;
use crate::vaes::BUNDLED;
use luna_core::{
    Error, ErrorKind, Limits, Result,
    checkpoint::{Checkpoint, ComponentKind},
    protocol::{Fault, ModelInfo, Unloaded},
    registry::{self, Lease},
    text::TextModel,
    vae::Vae,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The longest name of a model.
const NAME_BYTES: usize = 256;
/// The most names.
const MOST: usize = 10_000;

/// The names.
#[derive(Default)]
pub struct Models(Mutex<BTreeMap<String, Entry>>);

#[derive(Clone)]
struct Entry {
    id: String,
    source: Source,
    components: Vec<ComponentKind>,
}

#[derive(Clone)]
enum Source {
    /// Can be read again at any time.
    Path(PathBuf),
    /// Nobody could read it again: it stays until it is unloaded.
    Kept(Arc<Kept>),
}

/// The models of an upload.
#[derive(Default)]
struct Kept {
    vae: Option<Lease<Vae>>,
    text: Option<Lease<TextModel>>,
}

impl Daemon {
    /// Gives the model at a real path a name. Its weights are not read before a request needs them.
    pub(super) fn register_path(&self, path: &Path, name: Option<&str>) -> Result<ModelInfo, Fault> {
        let own = || path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let name = name.map_or_else(own, str::to_owned);
        let components = usable(&Checkpoint::open(path, &Limits::default())?)?;
        let id = self.registry.id_of(path)?.to_string();
        self.enter(name, Entry { id, source: Source::Path(path.to_owned()), components })
    }

    /// Builds what an uploaded checkpoint holds and gives it a name.
    pub(super) fn register_upload(&self, checkpoint: &Checkpoint, name: &str) -> Result<ModelInfo, Fault> {
        check_name(name)?;
        let components = usable(checkpoint)?;
        let mut kept = Kept::default();
        let mut id = None;
        if components.contains(&ComponentKind::Vae) {
            let lease = self.registry.adopt(checkpoint, |checkpoint| Vae::load(checkpoint, &self.runtime))?;
            id = Some(lease.id());
            kept.vae = Some(lease);
        }
        if components.contains(&ComponentKind::TextEncoder) {
            let load = |checkpoint: &_| TextModel::load(checkpoint, &self.runtime, &Default::default());
            let lease = self.registry.adopt(checkpoint, load)?;
            id = Some(lease.id());
            kept.text = Some(lease);
        }
        let id = id.ok_or_else(|| Error::new(ErrorKind::Unsupported, "models of this kind cannot be uploaded"))?;
        self.enter(name.to_owned(), Entry { id: id.to_string(), source: Source::Kept(Arc::new(kept)), components })
    }

    fn enter(&self, name: String, entry: Entry) -> Result<ModelInfo, Fault> {
        check_name(&name)?;
        let mut models = self.models.lock();
        if models.len() >= MOST && !models.contains_key(&name) {
            return Err(Error::new(ErrorKind::LimitExceeded, "too many models are registered").into());
        }
        models.insert(name.clone(), entry.clone());
        drop(models);
        Ok(self.info(&name, &entry))
    }

    /// All models that requests may name.
    pub(super) fn models(&self) -> Vec<ModelInfo> {
        let models = self.models.lock().clone();
        models.iter().map(|(name, entry)| self.info(name, entry)).collect()
    }

    fn info(&self, name: &str, entry: &Entry) -> ModelInfo {
        let residents = self.registry.residents();
        let mine: Vec<_> = residents.iter().filter(|resident| resident.id.to_string() == entry.id).collect();
        let kept = match &entry.source {
            Source::Path(_) => 0,
            // What the entry itself holds is no request.
            Source::Kept(kept) => usize::from(kept.vae.is_some()) + usize::from(kept.text.is_some()),
        };
        let leases: usize = mine.iter().map(|resident| resident.leases).sum();
        ModelInfo {
            name: name.to_owned(),
            model_id: entry.id.clone(),
            path: match &entry.source {
                Source::Path(path) => Some(path.display().to_string()),
                Source::Kept(_) => None,
            },
            components: entry.components.iter().map(|kind| kind.name().to_owned()).collect(),
            bytes: mine.iter().map(|resident| resident.bytes).sum(),
            loaded: !mine.is_empty(),
            leases: leases.saturating_sub(kept),
        }
    }

    /// The VAE of this name, or the only one there is.
    pub(super) fn vae(&self, name: Option<&str>) -> Result<(String, Lease<Vae>), Fault> {
        let (name, entry) = self.find(name, ComponentKind::Vae)?;
        let lease = match entry.source {
            Source::Path(path) => self.registry.acquire(path, |checkpoint| Vae::load(checkpoint, &self.runtime))?,
            Source::Kept(kept) => kept.vae.clone().ok_or_else(|| Fault::unknown_model(&name))?,
        };
        Ok((name, lease))
    }

    /// The text encoders of these names, or of the only model that has any.
    pub(super) fn text(&self, names: &[String]) -> Result<Vec<Lease<TextModel>>, Fault> {
        let one = |name: Option<&str>| {
            let (name, entry) = self.find(name, ComponentKind::TextEncoder)?;
            let load = |checkpoint: &_| TextModel::load(checkpoint, &self.runtime, &Default::default());
            match entry.source {
                Source::Path(path) => Ok(self.registry.acquire(path, load)?),
                Source::Kept(kept) => kept.text.clone().ok_or_else(|| Fault::unknown_model(&name)),
            }
        };
        if names.is_empty() {
            return Ok(vec![one(None)?]);
        }
        names.iter().map(|name| one(Some(name))).collect()
    }

    fn find(&self, name: Option<&str>, kind: ComponentKind) -> Result<(String, Entry), Fault> {
        let models = self.models.lock();
        let Some(name) = name else {
            let mut fitting = models.iter().filter(|(_, entry)| entry.components.contains(&kind));
            return match (fitting.next(), fitting.next()) {
                (Some((name, entry)), None) => Ok((name.clone(), entry.clone())),
                (None, _) => Err(Fault::unknown_model(kind.name())),
                _ => Err(Error::new(ErrorKind::InvalidInput, format!("several models hold a {}", kind.name()))
                    .remedy("say which: `list_models` tells the names")
                    .into()),
            };
        };
        let found = models.get_key_value(name).or_else(|| models.iter().find(|(_, entry)| entry.id == name));
        match found.map(|(name, entry)| (name.clone(), entry.clone())) {
            Some((name, entry)) if entry.components.contains(&kind) => Ok((name, entry)),
            Some((name, entry)) => {
                let names: Vec<_> = entry.components.iter().map(|kind| kind.name()).collect();
                let message = format!("the model `{name}` holds no {}", kind.name());
                Err(Error::new(ErrorKind::Unsupported, message).found(names.join(", ")).into())
            }
            None => {
                drop(models);
                self.bundled(name)
            }
        }
    }

    /// A model that the program carries is there for whoever names it.
    fn bundled(&self, name: &str) -> Result<(String, Entry), Fault> {
        let bundled = BUNDLED.iter().find(|vae| vae.name == name).ok_or_else(|| Fault::unknown_model(name))?;
        self.register_upload(&bundled.open()?, name)?;
        let entry = self.models.lock().get(name).cloned().ok_or_else(|| Fault::unknown_model(name))?;
        Ok((name.to_owned(), entry))
    }

    /// Gives the memory of these models back, or of all.
    pub(super) fn unload(&self, names: &[String]) -> Result<Unloaded, Fault> {
        let chosen: Vec<(String, Entry)> = {
            let models = self.models.lock();
            let is = |name: &String, (other, entry): (&String, &Entry)| other == name || entry.id == *name;
            if let Some(unknown) = names.iter().find(|name| !models.iter().any(|item| is(name, item))) {
                return Err(Fault::unknown_model(unknown));
            }
            let wanted = |item: (&String, &Entry)| names.is_empty() || names.iter().any(|name| is(name, item));
            models.iter().filter(|&item| wanted(item)).map(|(name, entry)| (name.clone(), entry.clone())).collect()
        };
        let before = self.registry.bytes();
        let residents = self.registry.residents();
        let mut told = Unloaded { freed: Vec::new(), when_returned: Vec::new(), freed_bytes: 0 };
        for (name, entry) in chosen {
            if matches!(entry.source, Source::Kept(_)) {
                self.models.lock().remove(&name);
            }
            let id = entry.id.clone();
            drop(entry);
            for resident in residents.iter().filter(|resident| resident.id.to_string() == id) {
                match self.registry.unload(resident.id) {
                    registry::Unloaded::Freed => told.freed.push(name.clone()),
                    registry::Unloaded::WhenReturned(_) => told.when_returned.push(name.clone()),
                    _ => {}
                }
            }
        }
        told.freed.dedup();
        told.when_returned.dedup();
        told.freed_bytes = if told.when_returned.is_empty() { before - self.registry.bytes().min(before) } else { 0 };
        Ok(told)
    }
}

impl Models {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_name(name: &str) -> Result<()> {
    if !name.is_empty() && name.len() <= NAME_BYTES && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, "a model cannot be called so")
        .expected(format!("1 to {NAME_BYTES} bytes without control characters")))
}

/// The components of a checkpoint that requests can use.
fn usable(checkpoint: &Checkpoint) -> Result<Vec<ComponentKind>> {
    let mut kinds: Vec<_> = checkpoint.recognise().components.iter().map(|component| component.kind).collect();
    kinds.dedup();
    if kinds.is_empty() {
        return Err(Error::new(ErrorKind::Unsupported, "the file holds no model that Luna knows")
            .at(checkpoint.path().display())
            .remedy("`luna-cli inspect` shows what the file holds"));
    }
    Ok(kinds)
}
