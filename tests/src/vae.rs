//! The VAE fixtures: models made from names and shapes, and what diffusers and ComfyUI compute with them.

use crate::{random, safetensors_file, workspace};
use luna_core::{
    Image, Latent, Limits,
    checkpoint::{Checkpoint, TensorView},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// One fixture.
pub struct VaeCase {
    /// Its name, for messages.
    pub name: String,
    tensors: BTreeMap<String, Vec<usize>>,
    config: Option<String>,
    /// What the encoder takes.
    pub image: Image,
    /// What the decoder takes.
    pub latent: Latent,
    /// `[batch, channels, height, width]`: the mean of the encoder's distribution.
    pub mean: Vec<f32>,
    /// Its standard deviation, for a variational encoder.
    pub deviation: Option<Vec<f32>>,
    /// `[batch, height, width, 3]` in 0..1.
    pub decoded: Vec<f32>,
}

/// The folder of the fixtures.
pub fn folder() -> PathBuf {
    workspace::root().join("tests/fixtures/vae")
}

/// Every fixture.
///
/// # Panics
/// If there are none, or one cannot be read.
pub fn cases() -> Vec<VaeCase> {
    let mut paths: Vec<_> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    paths.sort();
    assert!(paths.len() >= 9, "the fixtures are missing: {paths:?}");
    paths.iter().map(|path| VaeCase::read(path)).collect()
}

/// The fixture of this name.
pub fn case(name: &str) -> VaeCase {
    VaeCase::read(&folder().join(name).with_extension("safetensors"))
}

impl VaeCase {
    fn read(path: &Path) -> Self {
        let file = Checkpoint::open(path, &Limits::default()).unwrap();
        let metadata = file.metadata();
        let about: serde_json::Value = serde_json::from_str(&metadata["case"]).unwrap();
        let number = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
        let (batch, height, width) = (number(&about["batch"]), number(&about["size"][0]), number(&about["size"][1]));
        let mean = file.tensor("mean").unwrap();
        let latent: [usize; 4] = mean.shape.try_into().unwrap();
        let uniform = |name, count| random::uniform(name, count);
        let image = uniform("image", batch * height * width * 3).map(|value| value as f32).collect();
        let values = uniform("latent", latent.iter().product()).map(|value| (3.4 * value - 1.7) as f32).collect();
        Self {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            tensors: serde_json::from_str(&metadata["tensors"]).unwrap(),
            config: metadata.get("config").cloned(),
            image: Image::new([batch, height, width, 3], image).unwrap(),
            latent: Latent::new(latent, values).unwrap(),
            mean: floats(mean),
            deviation: file.tensor("deviation").map(floats),
            decoded: floats(file.tensor("decoded").unwrap()),
        }
    }

    /// Names and shapes of the model's tensors.
    pub fn tensors(&self) -> &BTreeMap<String, Vec<usize>> {
        &self.tensors
    }

    /// The bytes of the model's file, weights in f16.
    pub fn model(&self) -> Vec<u8> {
        let tensors: Vec<_> = self
            .tensors
            .iter()
            .map(|(name, shape)| safetensors_file::f16_tensor(name, shape, &random::parameter(name, shape)))
            .collect();
        safetensors_file::file(&tensors, &[])
    }

    /// Writes the model as people have it: a file, or a folder with config.json where the fixture has one.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let Some(config) = &self.config else {
            let path = folder.join(&self.name).with_extension("safetensors");
            fs::write(&path, self.model()).unwrap();
            return path;
        };
        let path = folder.join(&self.name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("config.json"), config).unwrap();
        fs::write(path.join("diffusion_pytorch_model.safetensors"), self.model()).unwrap();
        path
    }
}

fn floats(view: TensorView) -> Vec<f32> {
    view.bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// ‖ours − theirs‖ / ‖theirs‖.
///
/// # Panics
/// If the lengths differ.
pub fn relative_error(ours: &[f32], theirs: &[f32]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let difference = norm(&mut ours.iter().zip(theirs).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut theirs.iter().map(|&value| f64::from(value)))
}
