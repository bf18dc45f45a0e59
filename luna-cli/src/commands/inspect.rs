//! `inspect`: what a model file holds, from its header alone.

use crate::tensor_file::LatentSource;
use luna_core::{
    Limits, Result,
    checkpoint::{Checkpoint, Component, Recognition},
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What `inspect` found.
#[derive(Serialize)]
pub struct InspectOutcome {
    pub file: PathBuf,
    pub bytes: u64,
    pub tensors: usize,
    pub components: Vec<ComponentOutcome>,
    /// Tensors that belong to no component found.
    pub unclaimed_tensors: usize,
    /// Set where the file is a latent, not a model.
    pub latent: Option<LatentOutcome>,
    /// Where nothing was found.
    pub nearest: Option<NearestOutcome>,
    /// Where nothing was found: what was looked for.
    pub looked_for: Vec<LookedFor>,
    pub metadata: BTreeMap<String, String>,
}

/// One component of the file.
#[derive(Serialize)]
pub struct ComponentOutcome {
    pub kind: &'static str,
    pub family: &'static str,
    pub dialect: &'static str,
    pub prefix: String,
    pub tensors: usize,
    pub parameters: u64,
    pub bytes: u64,
    /// Bytes by element type.
    pub element_types: BTreeMap<&'static str, u64>,
    /// What Luna can do with it; empty where it only recognises it.
    pub operations: &'static [&'static str],
}

/// A latent file's latent.
#[derive(Serialize)]
pub struct LatentOutcome {
    pub tensor: &'static str,
    pub shape: Vec<usize>,
    pub scaled: bool,
    pub model: Option<String>,
}

/// The family that an unknown file resembles most.
#[derive(Serialize)]
pub struct NearestOutcome {
    pub family: &'static str,
    pub dialect: &'static str,
    pub missing: Vec<String>,
    pub present: usize,
}

/// A family that was looked for, by a name that marks it.
#[derive(Serialize, PartialEq)]
pub struct LookedFor {
    pub family: &'static str,
    pub dialect: &'static str,
    pub marker: &'static str,
}

/// Reads the header and says what it shows.
pub fn run(file: &Path) -> Result<InspectOutcome> {
    let checkpoint = Checkpoint::open(file, &Limits::default())?;
    let Recognition { components, unclaimed, nearest, .. } = checkpoint.recognise();
    let latent = if components.is_empty() { LatentSource::of(&checkpoint)? } else { None };
    let unknown = components.is_empty() && latent.is_none();
    Ok(InspectOutcome {
        file: file.to_owned(),
        bytes: checkpoint.file_bytes(),
        tensors: checkpoint.tensors().len(),
        unclaimed_tensors: unclaimed,
        components: components.iter().map(component).collect(),
        latent: latent.map(|LatentSource { tensor, shape, scaled, model, .. }| LatentOutcome {
            tensor,
            shape,
            scaled,
            model,
        }),
        nearest: nearest.filter(|_| unknown).map(|nearest| NearestOutcome {
            family: nearest.family.name(),
            dialect: nearest.dialect.name(),
            missing: nearest.missing,
            present: nearest.present,
        }),
        looked_for: if unknown { looked_for() } else { Vec::new() },
        metadata: checkpoint.metadata().clone(),
    })
}

fn component(component: &Component) -> ComponentOutcome {
    ComponentOutcome {
        kind: component.kind.name(),
        family: component.family.name(),
        dialect: component.dialect.name(),
        prefix: component.prefix.clone(),
        tensors: component.tensors,
        parameters: component.parameters,
        bytes: component.bytes,
        element_types: component.elements.iter().map(|(element, bytes)| (element.name(), *bytes)).collect(),
        operations: component.family.operations(),
    }
}

fn looked_for() -> Vec<LookedFor> {
    let all = Recognition::looked_for();
    all.map(|(family, dialect, marker)| LookedFor { family: family.name(), dialect: dialect.name(), marker }).collect()
}
