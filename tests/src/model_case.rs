//! A model fixture: names and shapes from which the model is made, and what its reference computes with it.

use crate::{random, safetensors_file};
use half::{bf16, f16};
use luna_core::{
    Limits,
    checkpoint::{Checkpoint, TensorView},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// One fixture.
pub struct ModelCase {
    /// Its name.
    pub name: String,
    /// The tensors of the model's file.
    pub tensors: BTreeMap<String, Vec<usize>>,
    /// Its config.json, where it has one.
    pub config: Option<serde_json::Value>,
    file: Checkpoint,
}

impl ModelCase {
    /// Reads a fixture.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn read(path: &Path) -> Self {
        let file = Checkpoint::open(path, &Limits::default()).unwrap();
        let json = |name: &str| file.metadata().get(name).map(|text| serde_json::from_str(text).unwrap());
        Self {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            tensors: serde_json::from_value(json("tensors").unwrap()).unwrap(),
            config: json("config"),
            file,
        }
    }

    /// What the fixture says about itself under this name.
    ///
    /// # Panics
    /// If it says nothing.
    pub fn said(&self, name: &str) -> serde_json::Value {
        serde_json::from_str(&self.file.metadata()[name]).unwrap()
    }

    /// Whether the fixture says something about itself under this name.
    pub fn says(&self, name: &str) -> bool {
        self.file.metadata().contains_key(name)
    }

    /// Whether the fixture holds an array.
    pub fn has(&self, name: &str) -> bool {
        self.file.shape(name).is_some()
    }

    /// The shape of an array.
    ///
    /// # Panics
    /// If there is no such array.
    pub fn shape(&self, name: &str) -> &[usize] {
        self.file.shape(name).unwrap_or_else(|| panic!("{} has no {name}", self.name))
    }

    /// An array of f32.
    ///
    /// # Panics
    /// If there is no such array.
    pub fn floats(&self, name: &str) -> Vec<f32> {
        self.view(name).bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    /// An array of i64.
    ///
    /// # Panics
    /// If there is no such array.
    pub fn integers(&self, name: &str) -> Vec<i64> {
        self.view(name).bytes.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect()
    }

    fn view(&self, name: &str) -> TensorView<'_> {
        self.file.tensor(name).unwrap_or_else(|| panic!("{} has no {name}", self.name))
    }

    /// The bytes of the model's file, weights in f16.
    pub fn model(&self) -> Vec<u8> {
        self.model_stored("F16")
    }

    /// The bytes of the model's file, weights in this type: F32, F16, BF16 or F8_E4M3.
    ///
    /// # Panics
    /// For another type.
    pub fn model_stored(&self, dtype: &'static str) -> Vec<u8> {
        let tensor = |(name, shape): (&String, &Vec<usize>)| {
            let values = random::parameter(name, shape);
            (name.clone(), dtype, shape.clone(), values.iter().flat_map(|&value| stored(value, dtype)).collect())
        };
        safetensors_file::file(&self.tensors.iter().map(tensor).collect::<Vec<_>>(), &[])
    }

    /// Writes the model as people have it: a file, or a folder with config.json where the fixture has one.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn write(&self, folder: &Path) -> PathBuf {
        self.write_instead(folder, &self.model())
    }

    /// As [`ModelCase::write`] with another file in the model's place.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn write_instead(&self, folder: &Path, model: &[u8]) -> PathBuf {
        let Some(config) = &self.config else {
            let path = folder.join(&self.name).with_extension("safetensors");
            fs::write(&path, model).unwrap();
            return path;
        };
        let path = folder.join(&self.name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("config.json"), config.to_string()).unwrap();
        fs::write(path.join("model.safetensors"), model).unwrap();
        path
    }
}

fn stored(value: f16, dtype: &str) -> Vec<u8> {
    match dtype {
        "F32" => value.to_f32().to_le_bytes().to_vec(),
        "F16" => value.to_le_bytes().to_vec(),
        "BF16" => bf16::from_f32(value.to_f32()).to_le_bytes().to_vec(),
        "F8_E4M3" => vec![nearest_e4m3(value.to_f32())],
        other => panic!("no way to write {other}"),
    }
}

/// The e4m3 number next to a value, by trying all: what it is for are small models.
fn nearest_e4m3(value: f32) -> u8 {
    let magnitude = |byte: u8| f16::from_bits(u16::from(byte) << 7).to_f32() * 256.0;
    let nearest = (0..0x7f).min_by(|&a, &b| {
        let distance = |byte| (magnitude(byte) - value.abs()).abs();
        distance(a).total_cmp(&distance(b))
    });
    nearest.unwrap_or(0) | if value.is_sign_negative() { 0x80 } else { 0 }
}
