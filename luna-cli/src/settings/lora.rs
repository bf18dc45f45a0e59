//! Which LoRAs a command applies. Shared by all that take `--lora`.

use super::{Compute, Environment, compute};
use crate::args::{LoraArg, LoraArgs, LoraInspectArgs};
use luna_core::{Error, ErrorKind, Result, lora::LoraFolders};
use std::path::{Path, PathBuf};

/// LoRAs in their order, and what is asked of them.
#[derive(Debug, Default)]
pub struct Loras {
    /// Names are paths by now.
    pub entries: Vec<LoraArg>,
    /// Whether every adapter for the model must be applied.
    pub strict: bool,
    /// Where names are looked up.
    pub folders: Folders,
}

impl Loras {
    /// # Errors
    /// Those of [`LoraFolders::new`] and [`LoraFolders::find`].
    pub fn new(args: LoraArgs, environment: &Environment) -> Result<Self> {
        let folders = Folders::new(args.lora_folder, environment)?;
        let found = |lora: LoraArg| Ok(LoraArg { file: folders.find(lora.file)?, ..lora });
        let entries = args.loras.into_iter().map(found).collect::<Result<_>>()?;
        Ok(Self { entries, strict: args.strict, folders })
    }
}

/// Settings of `lora inspect`.
#[derive(Debug)]
pub struct LoraInspect {
    pub file: PathBuf,
    pub model: Option<PathBuf>,
    pub strict: bool,
    pub compute: Compute,
}

impl LoraInspect {
    /// # Errors
    /// As [`Loras::new`].
    pub fn new(args: LoraInspectArgs, environment: &Environment) -> Result<Self> {
        let file = Folders::new(args.lora_folder, environment)?.find(args.file)?;
        let compute = compute(args.compute, environment)?;
        Ok(Self { file, model: args.model, strict: args.strict, compute })
    }
}

/// Where LoRAs are looked up by name; nowhere if no folder was given.
#[derive(Debug, Default)]
pub struct Folders(Option<LoraFolders>);

impl Folders {
    fn new(given: Vec<PathBuf>, environment: &Environment) -> Result<Self> {
        let typed = (!given.is_empty()).then_some(given);
        let listed = |text: &str| {
            Ok(std::env::split_paths(text).filter(|path| !path.as_os_str().is_empty()).collect::<Vec<_>>())
        };
        let roots = environment.or_parsed(typed, "LUNA_LORAS", listed)?;
        Ok(Self(roots.map(LoraFolders::new).transpose()?))
    }

    /// The LoRA of this name.
    ///
    /// # Errors
    /// As [`LoraFolders::find`].
    pub fn named(&self, name: &str) -> Result<PathBuf> {
        match &self.0 {
            Some(folders) => folders.find(name),
            None => Err(Error::new(ErrorKind::NotFound, format!("there is no LoRA named `{name}`"))
                .remedy("name the folder of your LoRAs with --lora-folder")),
        }
    }

    /// What stands at the path, else the LoRA of this name.
    fn find(&self, file: PathBuf) -> Result<PathBuf> {
        match &self.0 {
            Some(folders) if !file.exists() => folders.find(&Path::new(&file).to_string_lossy()),
            _ => Ok(file),
        }
    }
}
