//! One LoRA file. Enters: a path or bytes. Leaves: its adapters, typed and checked against themselves, and a list of
//! what cannot be applied. It must not know models.

use super::{
    adapter::{Adapter, Group},
    coverage::Unsupported,
    factor::Factor,
    family,
    name::{self, Part},
    peft::{Config, weights_and_header},
};
use crate::{Error, ErrorKind, Limits, Result, checkpoint::Checkpoint, limits::check_at_most};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

/// A LoRA file, read and held in memory in the elements it stores. Nothing in it ever changes; share it in an `Arc`.
///
/// ```no_run
/// use luna_core::{Limits, lora::LoraFile};
/// let lora = LoraFile::open("ink.safetensors", &Limits::default())?;
/// println!("{}: {} adapters, made for {:?}", lora.name(), lora.adapters(), lora.made_for());
/// # Ok::<(), luna_core::Error>(())
/// ```
pub struct LoraFile {
    name: String,
    digest: blake3::Hash,
    pub(super) adapters: Vec<Adapter>,
    pub(super) unsupported: Vec<Unsupported>,
    made_for: Option<&'static str>,
    bytes: u64,
}

impl LoraFile {
    /// Opens a `.safetensors` file, or a PEFT folder with `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; `InvalidFile` if factors of an adapter are missing or disagree, `LimitExceeded` above
    /// `limits`, `Unsupported` if the file holds nothing of a LoRA.
    pub fn open(path: impl AsRef<Path>, limits: &Limits) -> Result<Self> {
        let path = path.as_ref();
        let (file, config) = Config::beside(path, limits)?;
        let checkpoint = Checkpoint::open(&file, limits)?;
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Self::read(&checkpoint, name, config, limits)
    }

    /// A file held in memory.
    ///
    /// # Errors
    /// As [`LoraFile::open`].
    pub fn from_bytes(name: &str, bytes: impl Into<std::borrow::Cow<'static, [u8]>>, limits: &Limits) -> Result<Self> {
        Self::read(&Checkpoint::from_bytes(name, bytes, limits)?, name.to_owned(), None, limits)
    }

    /// The weights at a path, a file or a PEFT folder, and what a file of its own must say in its header to be read as
    /// the folder is: for those who send a LoRA elsewhere.
    ///
    /// # Errors
    /// `NotFound` for a folder without weights, `Io` if its configuration cannot be read.
    pub fn weights(path: &Path) -> Result<(PathBuf, BTreeMap<String, String>)> {
        weights_and_header(path, &Limits::default())
    }

    fn read(checkpoint: &Checkpoint, name: String, config: Option<Config>, limits: &Limits) -> Result<Self> {
        let at = |error: Error| error.at(checkpoint.path().display());
        check_at_most("bytes of a LoRA file", checkpoint.file_bytes(), limits.lora_bytes).map_err(at)?;
        let config = match config {
            Some(config) => Some(config),
            None => Config::in_metadata(checkpoint.metadata()).map_err(at)?,
        };
        let (groups, unsupported) = grouped(checkpoint).map_err(at)?;
        if groups.is_empty() && unsupported.iter().all(|entry| entry.what == NO_FACTOR) {
            return Err(at(Error::new(ErrorKind::Unsupported, "the file holds no LoRA")
                .expected("names such as `lora_unet_….lora_up.weight` or `….lora_A.weight`")
                .found(unsupported.first().map_or_else(|| "no tensors".into(), |entry| format!("`{}`", entry.key)))));
        }
        let rule = |key: &str, rank: usize| config.as_ref().and_then(|config| config.scale(key, rank));
        let adapters: Vec<Adapter> =
            groups.into_iter().map(|group| group.into_adapter(&rule, limits)).collect::<Result<_>>().map_err(at)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(checkpoint.digest().as_bytes());
        hasher.update(format!("{config:?}").as_bytes());
        Ok(Self {
            made_for: family::made_for(&adapters),
            bytes: adapters.iter().map(Adapter::bytes).sum(),
            digest: hasher.finalize(),
            name,
            adapters,
            unsupported,
        })
    }

    /// The file's name without its ending.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// BLAKE3 of its content: equal for equal files, wherever they lie.
    pub fn digest(&self) -> blake3::Hash {
        self.digest
    }

    /// How many layers it has an adapter for.
    pub fn adapters(&self) -> usize {
        self.adapters.len()
    }

    /// How many adapters there are of each kind.
    pub fn kinds(&self) -> BTreeMap<&'static str, usize> {
        let mut kinds = BTreeMap::new();
        for adapter in &self.adapters {
            *kinds.entry(adapter.name()).or_default() += 1;
        }
        kinds
    }

    /// What it holds that Luna cannot apply.
    pub fn unsupported(&self) -> &[Unsupported] {
        &self.unsupported
    }

    /// Which model it looks made for, where names and sizes tell.
    pub fn made_for(&self) -> Option<&'static str> {
        self.made_for
    }

    /// Bytes it holds in memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl fmt::Debug for LoraFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoraFile({}, {} adapters)", self.name, self.adapters())
    }
}

const NO_FACTOR: &str = "no factor of any adapter";

/// The factors by layer, and what is none.
fn grouped(checkpoint: &Checkpoint) -> Result<(Vec<Group>, Vec<Unsupported>)> {
    let mut groups: BTreeMap<&str, BTreeMap<Part, Factor>> = BTreeMap::new();
    let (mut unsupported, mut refused) = (Vec::new(), BTreeSet::new());
    for view in checkpoint.tensors() {
        let Some((base, part)) = name::split(view.name) else {
            unsupported.push(Unsupported { key: view.name.to_owned(), what: NO_FACTOR.to_owned() });
            continue;
        };
        if let Part::Refused(what) = part {
            if refused.insert(base) {
                unsupported.push(Unsupported { key: base.to_owned(), what: what.to_owned() });
            }
            continue;
        }
        if groups.entry(base).or_default().insert(part, Factor::new(view)?).is_some() {
            return Err(Error::new(ErrorKind::InvalidFile, format!("`{base}` has two factors {part:?}"))
                .expected("one adapter for each layer")
                .found(format!("`{}` beside another", view.name)));
        }
    }
    groups.retain(|base, _| !refused.contains(base));
    let groups = groups.into_iter().map(|(key, parts)| Group { key: key.to_owned(), parts }).collect();
    Ok((groups, unsupported))
}
