//! Which LoRAs a command applies. Shared by all that take `--lora`.

use super::{Compute, Environment, compute};
use crate::args::{LoraArgs, LoraInspectArgs};
use luna_core::{Error, ErrorKind, Result, config::keys, lora::LoraFolders};
use std::path::{Path, PathBuf};

/// LoRAs in their order, and what is asked of them.
#[derive(Debug, Default)]
pub struct Loras {
    /// Names are paths by now.
    pub entries: Vec<LoraEntry>,
    /// Whether every adapter for the model must be applied.
    pub strict: bool,
    /// Where names are looked up.
    pub folders: Folders,
}

impl Loras {
    /// # Errors
    /// `InvalidInput` for a strength that is no finite number, or `strict` where nothing is applied; those of
    /// [`LoraFolders::new`] and [`LoraFolders::find`].
    pub fn new(args: LoraArgs, tags: bool, environment: &Environment) -> Result<Self> {
        if args.strict && args.loras.is_empty() && !tags {
            return Err(Error::new(ErrorKind::InvalidInput, "--strict has no meaning without a LoRA")
                .remedy("leave it out, or add --lora FILE"));
        }
        let folders = Folders::new(args.lora_folder, environment)?;
        let found = |text: &String| {
            let entry = LoraEntry::from_text(text)?;
            Ok(LoraEntry { file: folders.find(entry.file)?, ..entry })
        };
        let entries = args.loras.iter().map(found).collect::<Result<_>>()?;
        Ok(Self { entries, strict: args.strict, folders })
    }
}

/// A LoRA with its strengths.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraEntry {
    pub file: PathBuf,
    /// For the denoiser.
    pub model: f64,
    /// For the text encoders.
    pub clip: f64,
}

impl LoraEntry {
    /// `FILE`, `FILE:STRENGTH` or `FILE:MODEL:CLIP`: at most two numbers are taken off the end. A colon may be part of the
    /// file's path: on Windows one stands after the drive.
    fn from_text(text: &str) -> Result<Self> {
        let number = |text: &str| -> Option<(usize, f64)> {
            let (before, last) = text.rsplit_once(':')?;
            Some((before.len(), last.trim().parse().ok()?))
        };
        let (file, model, clip) = match number(text) {
            None => (text, 1.0, 1.0),
            Some((end, last)) => match number(&text[..end]) {
                None => (&text[..end], last, last),
                Some((start, first)) => (&text[..start], first, last),
            },
        };
        let is_file = |part: &str| part.contains(['/', '\\']) || part.ends_with(".safetensors");
        let odd = file.rsplit_once(':').is_some_and(|(_, part)| !is_file(part));
        if !file.is_empty() && !odd && model.is_finite() && clip.is_finite() {
            return Ok(Self { file: file.into(), model, clip });
        }
        Err(Error::new(ErrorKind::InvalidInput, "the strength of a --lora is wrong")
            .expected("FILE, FILE:STRENGTH or FILE:MODEL:CLIP with finite numbers, such as ink.safetensors:0.8")
            .found(format!("`{text}`")))
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

/// The folders that were given, else those that are set.
pub(super) fn folders(given: Vec<PathBuf>, environment: &Environment) -> Result<Vec<PathBuf>> {
    environment.list(given, &keys::LORAS)
}

/// Where LoRAs are looked up by name; nowhere if no folder was given.
#[derive(Debug, Default)]
pub struct Folders(Option<LoraFolders>);

impl Folders {
    fn new(given: Vec<PathBuf>, environment: &Environment) -> Result<Self> {
        let folders = folders(given, environment)?;
        Ok(Self(if folders.is_empty() { None } else { Some(LoraFolders::new(folders)?) }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strengths_are_taken_off_the_end() {
        for (text, file, model, clip) in [
            ("ink.safetensors", "ink.safetensors", 1.0, 1.0),
            ("ink.safetensors:0.7", "ink.safetensors", 0.7, 0.7),
            ("a/ink.safetensors:0.8:-0.5", "a/ink.safetensors", 0.8, -0.5),
            ("a:b/ink:-1.5", "a:b/ink", -1.5, -1.5),
            (r"C:\loras\ink.safetensors:1e0", r"C:\loras\ink.safetensors", 1.0, 1.0),
            (r"C:\loras\ink.safetensors", r"C:\loras\ink.safetensors", 1.0, 1.0),
            ("C:ink.safetensors", "C:ink.safetensors", 1.0, 1.0),
        ] {
            let entry = LoraEntry { file: file.into(), model, clip };
            assert_eq!(LoraEntry::from_text(text).unwrap(), entry, "{text}");
        }
        for wrong in ["ink.safetensors:strong", "ink:", ":1", "ink:nan", "ink:inf", "ink:1:inf"] {
            assert_eq!(LoraEntry::from_text(wrong).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong}");
        }
    }
}
