//! The configuration file: where it lies, and what `config` is to do.

use super::{DaemonSettings, Environment};
use crate::args::ConfigCheckArgs;
use luna_core::{
    Error, Result,
    config::{Config, FILE_BYTES, Layer},
    limits,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Its name, and that of its folder.
const FILE: [&str; 2] = ["luna", "luna.toml"];

/// What `config show` tells.
#[derive(Debug)]
pub struct ConfigShow {
    pub config: Config,
    pub file: Option<PathBuf>,
    /// Where a file is looked for that nobody names.
    pub usual_file: Option<PathBuf>,
}

/// What `config check` looks at: all is well if this could be made.
#[derive(Debug)]
pub struct ConfigCheck {
    pub file: Option<PathBuf>,
    /// Settings that the file tells.
    pub settings: usize,
}

impl ConfigShow {
    pub fn new(environment: &Environment) -> Self {
        Self {
            config: environment.config.clone(),
            file: environment.file.clone(),
            usual_file: default_file(environment.variable),
        }
    }
}

impl ConfigCheck {
    /// Looks at the file, the variables, and what the daemon makes of them.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn new(args: ConfigCheckArgs, environment: &Environment) -> Result<Self> {
        let named;
        let environment = match args.file {
            None => environment,
            Some(file) => {
                named = Environment::new(Some(file), environment.variable)?;
                &named
            }
        };
        environment.config.check()?;
        DaemonSettings::new(&Default::default(), environment)?.check()?;
        let settings = match &environment.file {
            Some(file) => read(file, true)?.map_or(0, |layer| layer.len()),
            None => 0,
        };
        Ok(Self { file: environment.file.clone(), settings })
    }
}

/// Reads the file; `None` if it is not there and need not be.
pub fn read(path: &Path, needed: bool) -> Result<Option<Layer>> {
    let failed = |error| Error::io(format!("read the configuration {}", path.display()), error);
    match fs::metadata(path) {
        Ok(data) => limits::check_at_most("bytes in the configuration", data.len(), FILE_BYTES)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !needed => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    Layer::parse(&fs::read_to_string(path).map_err(failed)?, path).map(Some)
}

/// The systems that have a place of their own for such files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Windows,
    MacOs,
    Other,
}

/// Where the file is looked for that nobody names: in the folder that the system has for such files.
pub fn default_file(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let system = match () {
        () if cfg!(windows) => System::Windows,
        () if cfg!(target_os = "macos") => System::MacOs,
        () => System::Other,
    };
    file_of(system, variable)
}

fn file_of(system: System, variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = match system {
        System::Windows => set("APPDATA"),
        System::MacOs => set("HOME").map(|home| home.join("Library").join("Application Support")),
        // A relative path in this variable counts as none, says its specification.
        System::Other => set("XDG_CONFIG_HOME")
            .filter(|folder| folder.is_absolute())
            .or_else(|| set("HOME").map(|home| home.join(".config"))),
    }?;
    Some(folder.join(FILE[0]).join(FILE[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_system_has_its_place() {
        let file = |system, variables: &[(&str, &str)]| {
            let find =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            file_of(system, &find)
        };
        let home = ("HOME", "/h");
        assert_eq!(file(System::Other, &[home]), Some("/h/.config/luna/luna.toml".into()));
        assert_eq!(file(System::Other, &[home, ("XDG_CONFIG_HOME", "")]), Some("/h/.config/luna/luna.toml".into()));
        assert_eq!(file(System::Other, &[home, ("XDG_CONFIG_HOME", "x")]), Some("/h/.config/luna/luna.toml".into()));
        assert_eq!(file(System::MacOs, &[home]), Some("/h/Library/Application Support/luna/luna.toml".into()));
        let roaming = file(System::Windows, &[home, ("APPDATA", "/roaming")]);
        assert_eq!(roaming, Some(PathBuf::from("/roaming").join("luna").join("luna.toml")));
        assert_eq!(file(System::Windows, &[home]), None);
        #[cfg(unix)]
        assert_eq!(file(System::Other, &[home, ("XDG_CONFIG_HOME", "/x")]), Some("/x/luna/luna.toml".into()));
    }
}
