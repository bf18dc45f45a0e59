//! The denoiser fixtures: models made from names and shapes, and what diffusers and ComfyUI compute with them.

use crate::{random, safetensors_file, workspace};
use luna_core::{
    ArrayView, Limits,
    checkpoint::{Checkpoint, TensorView},
    diffusion::{Control, ForwardInput},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Numbers with their shape.
pub struct Array {
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// The values.
    pub data: Vec<f32>,
}

impl Array {
    fn of(view: TensorView) -> Self {
        let data = view.bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        Self { shape: view.shape.to_vec(), data }
    }

    /// As callers hand it in.
    pub fn view(&self) -> ArrayView<'_> {
        ArrayView::new(&self.shape, &self.data).unwrap()
    }
}

/// One fixture.
pub struct DenoiserCase {
    /// Its name, for messages.
    pub name: String,
    tensors: BTreeMap<String, Vec<usize>>,
    config: Option<String>,
    arrays: BTreeMap<String, Array>,
}

/// Every fixture.
///
/// # Panics
/// If there are none, or one cannot be read.
pub fn cases() -> Vec<DenoiserCase> {
    let folder = workspace::root().join("tests/fixtures/diffusion");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    paths.sort();
    assert!(paths.len() >= 11, "the fixtures are missing: {paths:?}");
    paths.iter().map(|path| DenoiserCase::read(path)).collect()
}

/// The fixture of this name.
pub fn case(name: &str) -> DenoiserCase {
    DenoiserCase::read(&workspace::root().join("tests/fixtures/diffusion").join(name).with_extension("safetensors"))
}

impl DenoiserCase {
    fn read(path: &Path) -> Self {
        let file = Checkpoint::open(path, &Limits::default()).unwrap();
        Self {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            tensors: serde_json::from_str(&file.metadata()["tensors"]).unwrap(),
            config: file.metadata().get("config").cloned(),
            arrays: file.tensors().map(|view| (view.name.to_owned(), Array::of(view))).collect(),
        }
    }

    /// An input or output, where the fixture has it.
    pub fn get(&self, name: &str) -> Option<&Array> {
        self.arrays.get(name)
    }

    /// What the model is called with, without control residuals.
    pub fn input(&self) -> ForwardInput<'_> {
        let input =
            ForwardInput::new(self.arrays["x"].view(), &self.arrays["timesteps"].data, self.arrays["context"].view());
        ForwardInput {
            y: self.get("y").map(Array::view),
            guidance: self.get("guidance").map(|guidance| &*guidance.data),
            ..input
        }
    }

    /// The control residuals.
    pub fn control(&self) -> Control<'_> {
        let list = |kind: &str| {
            let at = |index: usize| self.get(&format!("control/{kind}/{index}")).map(Array::view);
            let count = (0..8).rev().find(|&index| at(index).is_some()).map_or(0, |last| last + 1);
            (0..count).map(at).collect()
        };
        Control { input: list("input"), middle: list("middle"), output: list("output") }
    }

    /// A step file, as `luna-cli forward` reads it: the inputs under their names, without what the fixture expects.
    pub fn step_file(&self, with_control: bool) -> Vec<u8> {
        self.step_file_with(|name| (with_control || !name.starts_with("control/")).then_some(name))
    }

    /// As [`DenoiserCase::step_file`], each input under another name, or left out.
    pub fn step_file_with<'a>(&'a self, rename: impl Fn(&'a str) -> Option<&'a str>) -> Vec<u8> {
        let inputs = self.arrays.iter().filter(|(name, _)| !name.starts_with("out"));
        let tensor = |(name, array): (&'a String, &Array)| {
            Some(safetensors_file::f32_tensor(rename(name)?, &array.shape, &array.data))
        };
        safetensors_file::file(&inputs.filter_map(tensor).collect::<Vec<_>>(), &[])
    }

    /// The tensors of the model's file: name, shape.
    pub fn tensors(&self) -> &BTreeMap<String, Vec<usize>> {
        &self.tensors
    }

    /// The bytes of the model's file, weights in f16.
    pub fn model(&self) -> Vec<u8> {
        let tensor = |(name, shape): (&String, &Vec<usize>)| {
            safetensors_file::f16_tensor(name, shape, &random::parameter(name, shape))
        };
        safetensors_file::file(&self.tensors.iter().map(tensor).collect::<Vec<_>>(), &[])
    }

    /// Writes the model as people have it: a file, or a folder with config.json where the fixture has one.
    pub fn write(&self, folder: &Path) -> PathBuf {
        self.write_instead(folder, &self.model())
    }

    /// As [`DenoiserCase::write`] with another file in the model's place.
    pub fn write_instead(&self, folder: &Path, model: &[u8]) -> PathBuf {
        let Some(config) = &self.config else {
            let path = folder.join(&self.name).with_extension("safetensors");
            fs::write(&path, model).unwrap();
            return path;
        };
        let path = folder.join(&self.name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("config.json"), config).unwrap();
        fs::write(path.join("diffusion_pytorch_model.safetensors"), model).unwrap();
        path
    }
}
