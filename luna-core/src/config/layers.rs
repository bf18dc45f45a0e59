//! Settings told at several places. Enters: layers, the weakest first. Leaves: for each setting the value of the strongest
//! layer that tells it, else its default.

use super::{Entry, Key, Setting, Usual, keys::ENTRIES};
use crate::{Error, ErrorKind, Result};
use std::{collections::BTreeMap, fmt, path::PathBuf};

/// Where a setting was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// A variable of the environment.
    Environment,
}

/// What one place tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layer(pub(super) BTreeMap<&'static str, Told>);

/// The values of a setting, and the line of the file that tells them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) values: Vec<String>,
    pub(super) line: Option<usize>,
}

impl Layer {
    /// What variables tell. `variable` finds one, `split` takes a list apart. They are checked when they are asked for,
    /// so that a wrong one disturbs nobody who has no use for it. An empty variable counts as none.
    pub fn of_variables(variable: impl Fn(&str) -> Option<String>, split: impl Fn(&str) -> Vec<String>) -> Self {
        let told = ENTRIES.iter().filter_map(|entry| {
            let text = variable(entry.variable).filter(|text| !text.is_empty())?;
            let values = if entry.list { split(&text) } else { vec![text] };
            Some((entry.name, Told { values, line: None }))
        });
        Self(told.collect())
    }

    /// How many settings it tells.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it tells none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Layers, the strongest last.
#[derive(Debug, Clone, Default)]
pub struct Config(Vec<(Source, Layer)>);

impl Config {
    /// The same under a stronger layer.
    #[must_use]
    pub fn over(mut self, source: Source, layer: Layer) -> Self {
        self.0.push((source, layer));
        self
    }

    /// A setting's value, else its default.
    ///
    /// # Errors
    /// `InvalidInput` for a value that is wrong; `Internal` for a setting whose default is no single value.
    pub fn get<T: Setting>(&self, key: &Key<T>) -> Result<T> {
        if let Some(value) = self.find(key)? {
            return Ok(value);
        }
        let Entry { usual: Usual::Is(text), .. } = key.entry else {
            return Err(Error::new(ErrorKind::Internal, format!("{} has no fixed default", key.entry.name)));
        };
        T::read(text).map_err(|error| Error::new(ErrorKind::Internal, error).at(key.entry.name))
    }

    /// A setting's value, if anybody tells it.
    ///
    /// # Errors
    /// `InvalidInput` for a value that is wrong.
    pub fn find<T: Setting>(&self, key: &Key<T>) -> Result<Option<T>> {
        Ok(self.list(key)?.into_iter().next())
    }

    /// A setting's values.
    ///
    /// # Errors
    /// `InvalidInput` for a value that is wrong.
    pub fn list<T: Setting>(&self, key: &Key<T>) -> Result<Vec<T>> {
        let Some((source, told)) = self.told(&key.entry) else { return Ok(Vec::new()) };
        let read = |text: &String| T::read(text).map_err(|expected| wrong(&key.entry, source, told, text, &expected));
        told.values.iter().map(read).collect()
    }

    /// A setting's values as they were told and where, else its default.
    pub fn shown(&self, entry: &'static Entry) -> (Vec<&str>, Option<&Source>) {
        match self.told(entry) {
            Some((source, told)) => (told.values.iter().map(String::as_str).collect(), Some(source)),
            None => match entry.usual {
                Usual::Is("") | Usual::Told(_) => (Vec::new(), None),
                Usual::Is(text) => (vec![text], None),
            },
        }
    }

    /// Looks at every value, also those that nobody asks for.
    ///
    /// # Errors
    /// `InvalidInput` for the first that is wrong.
    pub fn check(&self) -> Result<()> {
        for entry in ENTRIES {
            let Some((source, told)) = self.told(entry) else { continue };
            for text in &told.values {
                entry.check(text).map_err(|expected| wrong(entry, source, told, text, &expected))?;
            }
        }
        Ok(())
    }

    fn told(&self, entry: &Entry) -> Option<(&Source, &Told)> {
        self.0.iter().rev().find_map(|(source, layer)| Some((source, layer.0.get(entry.name)?)))
    }
}

/// A value that is none of its setting's.
fn wrong(entry: &Entry, source: &Source, told: &Told, text: &str, expected: &str) -> Error {
    let error = match source {
        Source::Environment => {
            let variable = entry.variable;
            Error::new(ErrorKind::InvalidInput, format!("the environment variable {variable} is wrong: {expected}"))
                .remedy(format!("correct or unset {variable}"))
        }
        Source::File(path) => {
            let line = told.line.map_or_else(String::new, |line| format!(":{line}"));
            Error::new(ErrorKind::InvalidInput, format!("the value of `{}` is wrong: {expected}", entry.name))
                .at(format!("{}{line}", path.display()))
        }
    };
    error.found(format!("`{text}`"))
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment => f.write_str("environment"),
        }
    }
}
