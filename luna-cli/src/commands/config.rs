//! `config show` and `config check`.

use crate::settings::{ConfigCheck, ConfigShow};
use luna_core::config::{Entry, Usual, keys::ENTRIES};
use serde::Serialize;
use std::path::PathBuf;

/// What `config show` told.
#[derive(Serialize)]
pub struct ConfigOutcome {
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Where a file is looked for that nobody names.
    pub usual_file: Option<PathBuf>,
    pub settings: Vec<SettingOutcome>,
}

/// A setting.
#[derive(Serialize)]
pub struct SettingOutcome {
    pub key: &'static str,
    /// Its values; none for an empty list and for a default that is decided later.
    pub values: Vec<String>,
    /// The file, `environment` or `default`.
    pub source: String,
    /// The default in words.
    pub default: &'static str,
    pub meaning: &'static str,
    pub list: bool,
    pub option: &'static str,
    pub variable: &'static str,
}

/// What `config check` found: all is well.
#[derive(Serialize)]
pub struct ConfigCheckOutcome {
    pub file: Option<PathBuf>,
    /// Settings that the file tells.
    pub settings: usize,
}

pub fn show(settings: ConfigShow) -> ConfigOutcome {
    let ConfigShow { config, file, usual_file } = settings;
    let setting = |entry: &'static Entry| {
        let (values, source) = config.shown(entry);
        SettingOutcome {
            key: entry.name,
            values: values.into_iter().map(str::to_owned).collect(),
            source: source.map_or("default".to_owned(), ToString::to_string),
            default: match entry.usual {
                Usual::Is("") => "none",
                Usual::Is(text) | Usual::Told(text) => text,
            },
            meaning: entry.meaning(),
            list: entry.list,
            option: entry.option,
            variable: entry.variable,
        }
    };
    ConfigOutcome { file, usual_file, settings: ENTRIES.iter().copied().map(setting).collect() }
}

pub fn check(checked: ConfigCheck) -> ConfigCheckOutcome {
    ConfigCheckOutcome { file: checked.file, settings: checked.settings }
}
