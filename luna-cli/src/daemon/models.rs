//! Models by the names that requests use. Enters: paths, uploads, names. Leaves: leases on what the registry shares.

use super::Daemon;
use crate::vaes::BUNDLED;
use luna_core::{
    Error, ErrorKind, Limits, Result,
    checkpoint::{Checkpoint, ComponentKind},
    diffusion::{Denoiser, LoadOptions},
    protocol::{Fault, ModelInfo, Unloaded},
    registry::{self, Lease, Model, ModelFiles},
    text::{EncoderKind, TextLoadOptions, TextModel},
    tokenizer::PromptTokenizer,
    vae::Vae,
    vision::{VisionLoadOptions, VisionModel},
    vlm::{VlmLoadOptions, VlmModel},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The longest name of a model.
const NAME_BYTES: usize = 256;
/// The demonstration text encoder.
const DEMO_TEXT: &str = "demo";
/// The most names.
const MOST: usize = 10_000;

/// Text encoders by the name that a request used.
pub type TextLease = (String, Lease<TextModel>);

/// The names.
#[derive(Default)]
pub struct Models(Mutex<BTreeMap<String, Entry>>);

#[derive(Clone)]
struct Entry {
    id: String,
    source: Source,
    components: Vec<ComponentKind>,
    reading: Reading,
}

/// What a file does not say about how it is to be read.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// The only text encoder that is wanted.
    pub encoder: Option<EncoderKind>,
    /// The `tokenizer.json`, where it is not beside the weights.
    pub tokenizer: Option<PathBuf>,
    /// The vision part of a GGUF language model, where it is not the one beside it. It is part of the model's content.
    pub projector: Option<PathBuf>,
}

impl Reading {
    /// Which of several models of the same content this makes; 0 where nothing is said.
    fn variant(&self) -> u64 {
        if self.encoder.is_none() && self.tokenizer.is_none() {
            return 0;
        }
        let digest = blake3::hash(format!("{:?} {:?}", self.encoder, self.tokenizer).as_bytes());
        u64::from_le_bytes(*digest.as_bytes().first_chunk().expect("32 bytes"))
    }

    fn text(&self) -> TextLoadOptions {
        TextLoadOptions { kind: self.encoder, tokenizer: self.tokenizer.clone(), ..TextLoadOptions::default() }
    }

    fn vlm(&self) -> VlmLoadOptions {
        VlmLoadOptions { tokenizer: self.tokenizer.clone(), ..VlmLoadOptions::default() }
    }
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
    denoiser: Option<Lease<Denoiser>>,
    vision: Option<Lease<VisionModel>>,
    vlm: Option<Lease<VlmModel>>,
}

impl Kept {
    fn leases(&self) -> usize {
        let held = [
            self.vae.is_some(),
            self.text.is_some(),
            self.denoiser.is_some(),
            self.vision.is_some(),
            self.vlm.is_some(),
        ];
        held.into_iter().map(usize::from).sum()
    }
}

impl Daemon {
    /// Gives the model at a real path a name. Its weights are not read before a request needs them.
    pub(super) fn register_path(&self, path: &Path, name: Option<&str>, reading: Reading) -> Result<ModelInfo, Fault> {
        let own = || path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let name = name.map_or_else(own, str::to_owned);
        let files = ModelFiles { path: path.to_owned(), projector: reading.projector.clone() };
        let components = usable(&files.open(&Limits::default())?, &reading)?;
        let id = self.registry.id_of(files)?.to_string();
        self.enter(name, Entry { id, source: Source::Path(path.to_owned()), components, reading })
    }

    /// Builds what an uploaded checkpoint holds and gives it a name.
    pub(super) fn register_upload(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        reading: Reading,
    ) -> Result<ModelInfo, Fault> {
        check_name(name)?;
        let components = usable(checkpoint, &reading)?;
        let (mut kept, mut id) = (Kept::default(), None);
        for kind in &components {
            let own = match kind {
                ComponentKind::Vae => self.adopt(checkpoint, &reading, &mut kept.vae, self.vae_loader())?,
                ComponentKind::TextEncoder => {
                    self.adopt(checkpoint, &reading, &mut kept.text, self.text_loader(&reading))?
                }
                ComponentKind::Diffusion => {
                    self.adopt(checkpoint, &reading, &mut kept.denoiser, self.denoiser_loader())?
                }
                ComponentKind::Vision => self.adopt(checkpoint, &reading, &mut kept.vision, self.vision_loader())?,
                ComponentKind::VisionLanguage => {
                    self.adopt(checkpoint, &reading, &mut kept.vlm, self.vlm_loader(&reading))?
                }
                _ => continue,
            };
            id = Some(own);
        }
        let id = id.ok_or_else(|| Error::new(ErrorKind::Unsupported, "models of this kind cannot be uploaded"))?;
        self.enter(name.to_owned(), Entry { id, source: Source::Kept(Arc::new(kept)), components, reading })
    }

    fn adopt<M: Model>(
        &self,
        checkpoint: &Checkpoint,
        reading: &Reading,
        place: &mut Option<Lease<M>>,
        load: impl FnOnce(&Checkpoint) -> Result<M>,
    ) -> Result<String> {
        let lease = self.registry.adopt_variant(checkpoint, reading.variant(), load)?;
        let id = lease.id().to_string();
        *place = Some(lease);
        Ok(id)
    }

    fn vae_loader(&self) -> impl FnOnce(&Checkpoint) -> Result<Vae> + '_ {
        |checkpoint| Vae::load(checkpoint, &self.runtime)
    }

    fn text_loader<'a>(&'a self, reading: &'a Reading) -> impl FnOnce(&Checkpoint) -> Result<TextModel> + 'a {
        |checkpoint| TextModel::load(checkpoint, &self.runtime, &reading.text())
    }

    fn denoiser_loader(&self) -> impl FnOnce(&Checkpoint) -> Result<Denoiser> + '_ {
        |checkpoint| {
            let options = LoadOptions { precision: self.settings.compute.precision, ..LoadOptions::default() };
            Denoiser::load(checkpoint, &self.runtime, &options)
        }
    }

    fn vision_loader(&self) -> impl FnOnce(&Checkpoint) -> Result<VisionModel> + '_ {
        |checkpoint| VisionModel::load(checkpoint, &self.runtime, &VisionLoadOptions::default())
    }

    fn vlm_loader<'a>(&'a self, reading: &'a Reading) -> impl FnOnce(&Checkpoint) -> Result<VlmModel> + 'a {
        |checkpoint| VlmModel::load(checkpoint, &self.runtime, &reading.vlm())
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
            Source::Kept(kept) => kept.leases(),
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
        let lease = self.lease(&name, &entry, |kept| &kept.vae, self.vae_loader())?;
        Ok((name, lease))
    }

    /// The denoiser of this name, or the only one there is.
    pub(super) fn denoiser(&self, name: Option<&str>) -> Result<(String, Lease<Denoiser>), Fault> {
        let (name, entry) = self.find(name, ComponentKind::Diffusion)?;
        let lease = self.lease(&name, &entry, |kept| &kept.denoiser, self.denoiser_loader())?;
        Ok((name, lease))
    }

    /// The vision encoder of this name, or the only one there is.
    pub(super) fn vision(&self, name: Option<&str>) -> Result<(String, Lease<VisionModel>), Fault> {
        let (name, entry) = self.find(name, ComponentKind::Vision)?;
        let lease = self.lease(&name, &entry, |kept| &kept.vision, self.vision_loader())?;
        Ok((name, lease))
    }

    /// The vision-language model of this name, or the only one there is.
    pub(super) fn vlm(&self, name: Option<&str>) -> Result<(String, Lease<VlmModel>), Fault> {
        let (name, entry) = self.find(name, ComponentKind::VisionLanguage)?;
        let lease = self.lease(&name, &entry, |kept| &kept.vlm, self.vlm_loader(&entry.reading))?;
        Ok((name, lease))
    }

    /// The text encoders of these names, or of the only model that has any.
    pub(super) fn text(&self, names: &[String]) -> Result<Vec<TextLease>, Fault> {
        let one = |name: Option<&str>| {
            let (name, entry) = self.find(name, ComponentKind::TextEncoder)?;
            let lease = self.lease(&name, &entry, |kept| &kept.text, self.text_loader(&entry.reading))?;
            Ok((name, lease))
        };
        if names.is_empty() {
            return Ok(vec![one(None)?]);
        }
        names.iter().map(|name| one(Some(name))).collect()
    }

    /// The tokenizer of a CLIP, whose vocabulary is built in.
    pub(super) fn tokenizer(&self, kind: EncoderKind) -> Result<PromptTokenizer> {
        let none = || Err(Error::new(ErrorKind::NotFound, format!("{kind} has no vocabulary of its own here")));
        kind.tokenizer(self.clip_tokenizer.get_or_init(Default::default).clone(), none)
    }

    fn lease<M: Model>(
        &self,
        name: &str,
        entry: &Entry,
        kept: impl FnOnce(&Kept) -> &Option<Lease<M>>,
        load: impl FnOnce(&Checkpoint) -> Result<M>,
    ) -> Result<Lease<M>, Fault> {
        match &entry.source {
            Source::Path(path) => {
                let files = ModelFiles { path: path.clone(), projector: entry.reading.projector.clone() };
                Ok(self.registry.acquire_variant(files, entry.reading.variant(), load)?)
            }
            Source::Kept(held) => kept(held).clone().ok_or_else(|| Fault::unknown_model(name)),
        }
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
        if name == DEMO_TEXT {
            let reading = Reading { encoder: Some(EncoderKind::ClipL), ..Reading::default() };
            self.register_upload(&TextModel::demo_checkpoint()?, name, reading)?;
        } else {
            let bundled = BUNDLED.iter().find(|vae| vae.name == name).ok_or_else(|| Fault::unknown_model(name))?;
            self.register_upload(&bundled.open()?, name, Reading::default())?;
        }
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
            self.loras.release(&id);
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
fn usable(checkpoint: &Checkpoint, reading: &Reading) -> Result<Vec<ComponentKind>> {
    let mut kinds: Vec<_> = checkpoint.recognise().components.iter().map(|component| component.kind).collect();
    kinds.dedup();
    if reading.encoder.is_some() {
        // Who says which text encoder is wanted wants nothing else, and knows what no name or size tells.
        kinds = vec![ComponentKind::TextEncoder];
    }
    if kinds.is_empty() {
        return Err(Error::new(ErrorKind::Unsupported, "the file holds no model that Luna knows")
            .at(checkpoint.path().display())
            .remedy("`luna-cli inspect` shows what the file holds"));
    }
    Ok(kinds)
}
