//! What became of each file of a stack on a model, as data. Nothing is dropped without an entry here.

use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};

/// What became of a stack on a model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Coverage {
    /// One for each entry of the stack, in its order.
    pub files: Vec<FileCoverage>,
}

/// What became of one file on a model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FileCoverage {
    /// The file's name.
    pub name: String,
    /// The strength it was asked for.
    pub strength: f64,
    /// What its names and shapes look made for, where they tell.
    pub made_for: Option<Cow<'static, str>>,
    /// Adapters that found their layers.
    pub applied: Vec<Applied>,
    /// Adapters for this model that found no layer.
    pub unmatched: Vec<Unmatched>,
    /// Adapters whose sizes do not fit their layer.
    pub wrong_shape: Vec<WrongShape>,
    /// Adapters and tensors that Luna cannot apply.
    pub unsupported: Vec<Unsupported>,
    /// How many adapters are for another component of the pipeline, such as text encoders when this is a denoiser.
    pub elsewhere: usize,
}

/// An adapter that found its layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Applied {
    /// Its name in the file.
    pub key: String,
    /// Which kind it is, such as `lora` or `loha`.
    pub kind: Cow<'static, str>,
    /// The layers it changes: several where the file holds what the model holds apart.
    pub targets: Vec<String>,
}

/// An adapter that found no layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Unmatched {
    /// Its name in the file.
    pub key: String,
    /// The layer whose name is nearest; not looked for beyond the first few dozen names.
    pub nearest: Option<String>,
}

/// An adapter whose sizes do not fit its layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WrongShape {
    /// Its name in the file.
    pub key: String,
    /// The layer.
    pub target: String,
    /// The shape of the layer's weight.
    pub expected: String,
    /// The shape that the adapter comes to.
    pub found: String,
}

/// Something that Luna cannot apply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Unsupported {
    /// Its name in the file.
    pub key: String,
    /// What it is.
    pub what: String,
}

impl FileCoverage {
    /// Whether every adapter for this model was applied.
    pub fn is_complete(&self) -> bool {
        self.unmatched.is_empty() && self.wrong_shape.is_empty() && self.unsupported.is_empty()
    }
}

impl Coverage {
    /// Adapters that found their layers.
    pub fn applied(&self) -> usize {
        self.files.iter().map(|file| file.applied.len()).sum()
    }

    /// Whether every adapter for this model was applied.
    pub fn is_complete(&self) -> bool {
        self.files.iter().all(FileCoverage::is_complete)
    }
}

impl fmt::Display for FileCoverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {} applied", self.name, self.strength, self.applied.len())?;
        for (count, what) in [
            (self.unmatched.len(), "unmatched"),
            (self.wrong_shape.len(), "of wrong shape"),
            (self.unsupported.len(), "unsupported"),
            (self.elsewhere, "for other components"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}
