//! The walk from a checkpoint's names to a model's layers. Enters: a checkpoint, a prefix, a dialect's renaming.
//! Leaves: tensors by canonical path, shape-checked; a list of what was asked for, so that leftovers can be told.

use super::{Checkpoint, ElementType, TensorView};
use crate::{Error, ErrorKind, Result};
use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

/// Turns a canonical name into the stored one.
pub type Rename = Rc<dyn Fn(&str) -> String>;

/// A place in a checkpoint, from which layers take their tensors.
#[derive(Clone)]
pub struct Weights<'a> {
    checkpoint: &'a Checkpoint,
    rename: Rename,
    path: String,
    taken: Rc<RefCell<BTreeSet<String>>>,
}

impl<'a> Weights<'a> {
    /// Starts at the root of a model. `rename` gives, for a canonical name such as `decoder.conv_in.weight`, the
    /// stored name including its prefix.
    pub fn new(checkpoint: &'a Checkpoint, rename: impl Fn(&str) -> String + 'static) -> Self {
        Self { checkpoint, rename: Rc::new(rename), path: String::new(), taken: Rc::default() }
    }

    /// The same with one more segment.
    pub fn at(&self, segment: impl std::fmt::Display) -> Self {
        let path = if self.path.is_empty() { segment.to_string() } else { format!("{}.{segment}", self.path) };
        Self { path, ..self.clone() }
    }

    /// The canonical path of this place.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The checkpoint behind it.
    pub fn checkpoint(&self) -> &'a Checkpoint {
        self.checkpoint
    }

    fn stored(&self, name: &str) -> String {
        (self.rename)(&if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) })
    }

    /// Whether `name` exists here.
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.shape(&self.stored(name)).is_some()
    }

    /// The stored shape of `name`.
    ///
    /// # Errors
    /// `InvalidFile` if it is not there.
    pub fn shape(&self, name: &str) -> Result<&'a [usize]> {
        let stored = self.stored(name);
        self.checkpoint.shape(&stored).ok_or_else(|| missing(&stored))
    }

    /// How many consecutive segments `0.`, `1.`, … carry `name`.
    pub fn count(&self, name: &str) -> usize {
        (0..).take_while(|index| self.at(index).has(name)).count()
    }

    /// The tensor `name`, which must have this shape but for sides of 1: an attention projection is a 1×1 convolution
    /// in ldm files and a matrix in diffusers'.
    ///
    /// # Errors
    /// `InvalidFile` if it is missing, has another shape or is not of a floating-point type.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'a>> {
        let stored = self.stored(name);
        let view = self.checkpoint.tensor(&stored).ok_or_else(|| missing(&stored))?;
        self.taken.borrow_mut().insert(stored);
        let squeeze = |shape: &[usize]| shape.iter().copied().filter(|&side| side != 1).collect::<Vec<_>>();
        if squeeze(view.shape) != squeeze(shape) {
            return Err(Error::new(ErrorKind::InvalidFile, format!("tensor `{}` has a wrong shape", view.name))
                .expected(format!("{shape:?}"))
                .found(format!("{:?}", view.shape)));
        }
        match view.element {
            ElementType::F32
            | ElementType::F16
            | ElementType::Bf16
            | ElementType::F8E4m3
            | ElementType::F8E5m2
            | ElementType::F64 => Ok(view),
            other => Err(Error::new(ErrorKind::Unsupported, format!("tensor `{}` is not of a float type", view.name))
                .expected("F32, F16, BF16, F8_E4M3, F8_E5M2 or F64")
                .found(other.name())),
        }
    }

    /// The tensor `name`, where it exists.
    ///
    /// # Errors
    /// As [`Weights::tensor`], but for a missing one.
    pub fn optional(&self, name: &str, shape: &[usize]) -> Result<Option<TensorView<'a>>> {
        if self.has(name) { self.tensor(name, shape).map(Some) } else { Ok(None) }
    }

    /// Stored names that start with one of `roots` and that no layer asked for.
    pub fn leftovers(&self, roots: &[&str]) -> Vec<String> {
        let taken = self.taken.borrow();
        let names = self.checkpoint.tensors.keys();
        names
            .filter(|name| roots.iter().any(|root| name.starts_with(root)) && !taken.contains(*name))
            .cloned()
            .collect()
    }
}

fn missing(stored: &str) -> Error {
    Error::new(ErrorKind::InvalidFile, format!("tensor `{stored}` is missing")).remedy(
        "the file is incomplete, or of a variant that Luna does not know; `luna-cli inspect` shows what it holds",
    )
}
