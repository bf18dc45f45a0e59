//! VAEs by name. Enters: a name or a path as it was typed. Leaves: a choice, and from it a VAE and what to call it.
//! Names stand before paths; `./moonlet` is a path.

use luna_core::{
    Error, ErrorKind, Limits, Result, Runtime,
    checkpoint::Checkpoint,
    vae::{Halves, Vae},
};
use std::path::{Path, PathBuf};

/// A VAE that this program carries.
pub struct BundledVae {
    /// What `--vae` calls it.
    pub name: &'static str,
    /// What a person should know about it.
    pub description: &'static str,
    open: fn() -> Result<Checkpoint>,
}

impl BundledVae {
    /// Opens its file.
    ///
    /// # Errors
    /// None: the file is part of the program.
    pub fn open(&self) -> Result<Checkpoint> {
        (self.open)()
    }
}

/// Every VAE that this program carries; the first is the default.
pub const BUNDLED: &[BundledVae] = &[BundledVae {
    name: "moonlet",
    description: "a small 16-channel demonstration model, trained on procedural pictures only; not for real work",
    open: Vae::moonlet_checkpoint,
}];

/// The help of `--vae`, made from [`BUNDLED`].
pub fn long_help() -> String {
    let mut help =
        "A bundled VAE by name, or a VAE file, a checkpoint with a VAE in it, a .safetensors.index.json, or \
         a diffusers folder. Names stand before paths; ./NAME is a path.\n\nBundled:"
            .to_owned();
    for vae in BUNDLED {
        help += &format!("\n  {} (the default): {}", vae.name, vae.description);
    }
    help
}

/// What `--vae` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaeChoice {
    /// A bundled VAE: its place in [`BUNDLED`].
    Bundled(usize),
    /// A file or folder.
    Path(PathBuf),
    /// A name that only a daemon knows.
    OfDaemon(String),
}

impl Default for VaeChoice {
    fn default() -> Self {
        Self::Bundled(0)
    }
}

/// A VAE ready for use.
pub struct NamedVae {
    pub vae: Vae,
    /// The bundled name, or the file name without its folder.
    pub name: String,
    /// Set for a model that is not for real work.
    pub caution: Option<&'static str>,
}

impl VaeChoice {
    /// A name, or else a path that exists.
    ///
    /// # Errors
    /// `NotFound`, with the known names.
    pub fn from_text(text: &str) -> Result<Self> {
        if let Some(index) = BUNDLED.iter().position(|vae| vae.name == text) {
            return Ok(Self::Bundled(index));
        }
        if Path::new(text).exists() {
            return Ok(Self::Path(text.into()));
        }
        let names = BUNDLED.iter().map(|vae| format!("`{}`", vae.name)).collect::<Vec<_>>().join(", ");
        Err(Error::new(ErrorKind::NotFound, "no bundled VAE has this name, and there is no such file or folder")
            .expected(format!("{names}, or a path"))
            .found(format!("`{text}`")))
    }

    /// Opens its file.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open(&self) -> Result<Checkpoint> {
        match self {
            Self::Bundled(index) => (BUNDLED[*index].open)(),
            Self::Path(path) => Checkpoint::open(path, &Limits::default()),
            Self::OfDaemon(name) => Self::from_text(name)?.open(),
        }
    }

    /// Loads what is needed of it.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`Vae::load_halves`].
    pub fn load(&self, runtime: &Runtime, halves: Halves) -> Result<NamedVae> {
        self.load_opened(&self.open()?, runtime, halves)
    }

    /// Loads it from its file, which the caller has opened.
    ///
    /// # Errors
    /// As [`Vae::load_halves`].
    pub fn load_opened(&self, checkpoint: &Checkpoint, runtime: &Runtime, halves: Halves) -> Result<NamedVae> {
        let vae = Vae::load_halves(checkpoint, runtime, halves)?;
        Ok(NamedVae { vae, name: self.name(), caution: self.caution() })
    }

    /// The bundled name, the file name without its folder, or the daemon's name.
    pub fn name(&self) -> String {
        match self {
            Self::Bundled(index) => BUNDLED[*index].name.to_owned(),
            Self::Path(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            Self::OfDaemon(name) => name.clone(),
        }
    }

    /// What a person should know about it.
    pub fn caution(&self) -> Option<&'static str> {
        match self {
            Self::Bundled(index) => Some(BUNDLED[*index].description),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_before_paths_and_wrong_ones_list_the_known() {
        assert_eq!(VaeChoice::from_text("moonlet").unwrap(), VaeChoice::default());
        let here = VaeChoice::from_text(".").unwrap();
        assert_eq!(here, VaeChoice::Path(".".into()));
        let error = VaeChoice::from_text("moonlit").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("`moonlet`"), "{error}");
    }
}
