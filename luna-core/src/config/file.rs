//! TOML files. Enters: text and the path that it is of. Leaves: a layer in which every key is known and every value is
//! right, or an error with the line and, for an unknown key, the nearest that there is.

use super::{Entry, Layer, keys::ENTRIES, layers::Told};
use crate::{Error, ErrorKind, Result};
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// A name is near if so much of it is the same.
const NEAR: f64 = 0.55;

impl Layer {
    /// Reads a file's text. Paths in it are relative to the file's folder.
    ///
    /// # Errors
    /// `InvalidInput` for text that is no TOML, a key that is unknown, a value that is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let mut reader = Reader { text, path, layer: Self::default() };
        let table = DeTable::parse(text).map_err(|error| {
            let place = error.span().map_or(0, |span| span.start);
            reader.refused(place, format!("the file is no TOML: {}", error.message().trim()))
        })?;
        reader.read_table("", table.get_ref())?;
        Ok(reader.layer)
    }
}

struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
    layer: Layer,
}

impl Reader<'_> {
    fn read_table(&mut self, section: &str, table: &DeTable<'_>) -> Result<()> {
        for (key, value) in table {
            let name =
                if section.is_empty() { key.get_ref().to_string() } else { format!("{section}.{}", key.get_ref()) };
            let place = key.span().start;
            let entry = ENTRIES.iter().find(|entry| entry.name == name);
            match (entry, value.get_ref()) {
                (Some(entry), value) => self.read_value(entry, value, place)?,
                (None, DeValue::Table(table)) if is_section(&name) => self.read_table(&name, table)?,
                (None, DeValue::Table(table)) if !table.is_empty() => {
                    // The key within tells more of what was meant than the section alone.
                    self.read_table(&name, table)?;
                }
                (None, _) => return Err(self.unknown(&name, place)),
            }
        }
        Ok(())
    }

    fn read_value(&mut self, entry: &'static Entry, value: &DeValue<'_>, place: usize) -> Result<()> {
        let scalar = |value: &DeValue<'_>| match value {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(number) => Some(number.to_string()),
            DeValue::Float(number) => Some(number.to_string()),
            DeValue::Boolean(switch) => Some(switch.to_string()),
            _ => None,
        };
        let values = match value {
            DeValue::Array(values) if entry.list => values.iter().map(|value| scalar(value.get_ref())).collect(),
            value if entry.list => scalar(value).map(|value| vec![value]),
            value => scalar(value).map(|value| vec![value]),
        };
        let expected = if entry.list { "a list of texts" } else { "a single value" };
        let name = entry.name;
        let Some(mut values) = values else {
            return Err(self.refused(place, format!("`{name}` is of the wrong type")).expected(expected));
        };
        for text in &values {
            entry.check(text).map_err(|expected| {
                self.refused(place, format!("the value of `{name}` is wrong: {expected}")).found(format!("`{text}`"))
            })?;
        }
        if entry.path {
            let folder = self.path.parent().unwrap_or(Path::new(""));
            // A store's URL is no path.
            let paths = values.iter_mut().filter(|path| !path.contains("://"));
            paths.for_each(|path| *path = folder.join(&*path).to_string_lossy().into_owned());
        }
        self.layer.0.insert(name, Told { values, line: Some(self.line(place)) });
        Ok(())
    }

    fn unknown(&self, name: &str, place: usize) -> Error {
        let error = self.refused(place, format!("there is no setting `{name}`"));
        match nearest(name) {
            Some(near) => error.remedy(format!("did you mean `{near}`?")),
            None => error.remedy("`luna-cli config show` tells all settings"),
        }
    }

    fn refused(&self, place: usize, message: String) -> Error {
        Error::new(ErrorKind::InvalidInput, message).at(format!("{}:{}", self.path.display(), self.line(place)))
    }

    fn line(&self, place: usize) -> usize {
        1 + self.text.as_bytes().iter().take(place).filter(|&&byte| byte == b'\n').count()
    }
}

fn is_section(name: &str) -> bool {
    ENTRIES.iter().any(|entry| entry.place().0 == name)
}

/// The known name that is most like this one; a right word in the wrong section is nearly right.
fn nearest(name: &str) -> Option<&'static str> {
    let (section, last) = name.rsplit_once('.').unwrap_or(("", name));
    let alike = strsim::normalized_damerau_levenshtein;
    let likeness = |entry: &Entry| {
        let place = entry.place();
        alike(name, entry.name).max(0.9 * alike(last, place.1) + 0.1 * alike(section, place.0))
    };
    // Of those that are equally near the first.
    let best = ENTRIES.iter().copied().rev().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) >= NEAR).then_some(best.name)
}
