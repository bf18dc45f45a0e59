//! The LoRA fixtures: files in many dialects, and what ComfyUI, PEFT and LyCORIS compute with them.

use crate::{
    diffusion::{self, DenoiserCase},
    workspace,
};
use luna_core::{
    Limits, Runtime,
    checkpoint::Checkpoint,
    diffusion::{Denoiser, ForwardOptions},
    lora::{LoraFile, LoraStack, ResolveOptions, Resolved},
};
use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

/// One prediction: a model, a stack of files, and what comes out.
pub struct LoraCase {
    /// The fixture's name.
    pub name: String,
    /// The model's name.
    pub model: String,
    /// Names of files with strengths.
    pub stack: Vec<(String, f64)>,
    /// The prediction.
    pub out: Vec<f32>,
}

/// Every prediction.
///
/// # Panics
/// If there are none, or one cannot be read.
pub fn cases() -> Vec<LoraCase> {
    let file = Checkpoint::open(folder().join("expected.safetensors"), &Limits::default()).unwrap();
    let cases = file.tensors().map(|view| {
        let (model, stack) = view.name.split_once('/').unwrap();
        let entry = |entry: &str| {
            let (name, strength) = entry.split_once('@').unwrap();
            (name.to_owned(), strength.parse().unwrap())
        };
        LoraCase {
            name: view.name.to_owned(),
            model: model.to_owned(),
            stack: stack.split('+').map(entry).collect(),
            out: view.bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
        }
    });
    let cases = cases.collect::<Vec<_>>();
    assert!(cases.len() >= 25, "the fixtures are missing");
    cases
}

/// What `make_more.py` wrote under this name.
///
/// # Panics
/// If there is no such array.
pub fn more(name: &str) -> Vec<f32> {
    words(name, |file| {
        file.tensor(name).map(|view| view.bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
    })
}

/// Whole numbers that `make_more.py` wrote under this name.
///
/// # Panics
/// If there is no such array.
pub fn more_ids(name: &str) -> Vec<u32> {
    words(name, |file| {
        file.tensor(name).map(|view| view.bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as u32).collect())
    })
}

fn words<T>(name: &str, read: impl Fn(&Checkpoint) -> Option<T>) -> T {
    let file = Checkpoint::open(folder().join("more.safetensors"), &Limits::default()).unwrap();
    read(&file).unwrap_or_else(|| panic!("there is no {name}"))
}

fn folder() -> PathBuf {
    workspace::root().join("tests/fixtures/lora")
}

/// The path of a LoRA file.
pub fn path(model: &str, name: &str) -> PathBuf {
    let path = folder().join(model).join(name);
    if path.is_dir() { path } else { path.with_extension("safetensors") }
}

/// A LoRA file.
///
/// # Panics
/// If it cannot be read.
pub fn open(model: &str, name: &str) -> Arc<LoraFile> {
    let path = path(model, name);
    Arc::new(LoraFile::open(&path, &Limits::default()).unwrap_or_else(|error| panic!("{error}")))
}

/// A stack of files for a model, at equal strengths for denoiser and text encoders.
///
/// # Panics
/// If one cannot be read.
pub fn stack(model: &str, files: &[(&str, f64)]) -> LoraStack {
    files
        .iter()
        .fold(LoraStack::new(), |stack, (name, strength)| stack.with(open(model, name), *strength, *strength).unwrap())
}

/// Two threads for all tests.
///
/// # Panics
/// If the system refuses them.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::cpu().unwrap())
}

/// A denoiser with what it is called with.
pub struct Model {
    /// The fixture.
    pub case: DenoiserCase,
    /// The model.
    pub denoiser: Denoiser,
}

impl Model {
    /// The denoiser of this fixture.
    ///
    /// # Panics
    /// If it cannot be loaded.
    pub fn open(name: &str) -> Self {
        let case = diffusion::case(name);
        let folder = tempfile::tempdir().unwrap();
        let denoiser = Denoiser::open(case.write(folder.path()), runtime()).unwrap();
        Self { case, denoiser }
    }

    /// The prediction as loaded, or with patches.
    ///
    /// # Panics
    /// If there is none.
    pub fn predict(&self, resolved: Option<&Resolved>) -> Vec<f32> {
        let options =
            ForwardOptions { patches: resolved.map(|resolved| resolved.patches.clone()), ..ForwardOptions::default() };
        self.denoiser.forward(&self.case.input(), &options).unwrap().prediction.into_data()
    }

    /// The stack for this denoiser, every adapter of which must apply.
    ///
    /// # Panics
    /// If one does not.
    pub fn resolve(&self, stack: &LoraStack) -> Resolved {
        let options = ResolveOptions { strict: true, ..ResolveOptions::default() };
        stack.resolve(&self.denoiser, &options).unwrap_or_else(|error| panic!("{error}"))
    }
}
