//! Settings: their names, defaults and meaning, in one table that files, variables, options, help and manual are made from.
//! Enters: the text of a TOML file, and what variables say. Leaves: values of the right type, each with where it was told,
//! or an error that names the place. It opens no file and reads no environment: who does hands the text over.
//!
//! ```
//! use luna_core::config::{Config, Layer, Source, keys};
//! # fn main() -> luna_core::Result<()> {
//! let file = Layer::parse("[daemon]\nqueue = 32\n[pools]\nvae = \"1..3\"", "luna.toml".as_ref())?;
//! let config = Config::default().over(Source::File("luna.toml".into()), file);
//! assert_eq!(config.get(&keys::QUEUE)?.get(), 32);
//! assert_eq!(config.get(&keys::VAE_WORKERS)?.0, 1..=3);
//! assert_eq!(config.get(&keys::LISTEN)?.port(), 19283);
//! let wrong = Layer::parse("[daemon]\nqeue = 32", "luna.toml".as_ref()).unwrap_err();
//! assert!(wrong.to_string().contains("`daemon.queue`"));
//! # Ok(())
//! # }
//! ```

mod file;
pub mod keys;
mod layers;
mod setting;

pub use layers::{Config, Layer, Source};
pub use setting::{Bytes, LogFormat, LogLevel, Seconds, Setting, WatchAddress, Workers, parse_bytes};

use std::marker::PhantomData;

/// The most bytes of a configuration file.
pub const FILE_BYTES: u64 = 1 << 20;

/// A setting of type `T`.
#[derive(Debug)]
pub struct Key<T> {
    /// What can be said of it without its type.
    pub entry: Entry,
    of: PhantomData<fn() -> T>,
}

/// What can be said of a setting without its type.
#[derive(Debug)]
pub struct Entry {
    /// Its name in a file: section and key, with a point between them.
    pub name: &'static str,
    /// The environment variable that tells it.
    pub variable: &'static str,
    /// The option that tells it.
    pub option: &'static str,
    /// What its values look like.
    pub form: &'static str,
    /// What holds if nobody tells it.
    pub usual: Usual,
    /// Whether it has any number of values.
    pub list: bool,
    /// Whether its values are paths, which a file may tell relative to its own folder.
    pub path: bool,
    meaning: &'static str,
    check: fn(&str) -> Result<(), String>,
}

/// What holds if nobody tells a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usual {
    /// This value.
    Is(&'static str),
    /// What is decided then, in words.
    Told(&'static str),
}

impl Entry {
    /// What it is for, in a sentence without its full stop.
    pub fn meaning(&self) -> &'static str {
        self.meaning.trim()
    }

    /// Its default in words; empty for a list that is empty.
    pub fn usual_in_words(&self) -> &'static str {
        match self.usual {
            Usual::Is(text) | Usual::Told(text) => text,
        }
    }

    /// What it is for, and its default: the help of its option.
    pub fn help(&self) -> String {
        let several = if self.list { "; may be given several times" } else { "" };
        match self.usual_in_words() {
            "" => format!("{}{several}", self.meaning()),
            usual => format!("{}{several} [default: {usual}]", self.meaning()),
        }
    }

    /// Says whether a text is a value of it.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn check(&self, text: &str) -> Result<(), String> {
        (self.check)(text)
    }

    /// Its section in a file and its name there.
    pub fn place(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or(("", self.name))
    }
}

/// The settings as a table in Markdown, as the manual shows them.
pub fn table() -> String {
    let mut table = String::from("| key | option | variable | default | |\n|---|---|---|---|---|\n");
    for entry in keys::ENTRIES {
        let usual = match (entry.usual, entry.list) {
            (Usual::Is(""), _) => "none".to_owned(),
            (Usual::Is(text), _) => format!("`{text}`"),
            (Usual::Told(text), _) => text.to_owned(),
        };
        let several = if entry.list { "; a list" } else { "" };
        let Entry { name, option, variable, .. } = entry;
        table += &format!("| `{name}` | `{option}` | `{variable}` | {usual} | {}{several} |\n", entry.meaning());
    }
    table
}

#[cfg(test)]
mod tests;
