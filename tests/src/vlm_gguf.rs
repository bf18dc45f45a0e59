//! Vision-language models as the two GGUF files that llama.cpp's converter makes of them, from `fixtures/vlm/gguf.json`.

use crate::{
    gguf_file::{self, Tensor, Value},
    random, workspace,
};
use half::f16;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What make_gguf.py tells of one file.
#[derive(Deserialize, Clone)]
pub struct VlmGguf {
    /// Type and value by key.
    pub metadata: BTreeMap<String, (String, serde_json::Value)>,
    tensors: Vec<Told>,
}

#[derive(Deserialize, Clone)]
struct Told {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    shape: Vec<usize>,
    hash: String,
    from: Vec<serde_json::Value>,
}

/// How the weights of a language model are stored.
#[derive(Clone, Copy, PartialEq)]
pub enum Storage {
    /// As the converter was told: matrices in f16.
    AsConverted,
    /// Matrices whose rows are whole blocks in Q8_0.
    Q8_0,
}

/// Language model and vision part of the model of a fixture, whose shapes are `sources`.
///
/// # Panics
/// If the fixture cannot be read.
pub fn read(case: &str) -> [VlmGguf; 2] {
    let path = workspace::root().join("tests/fixtures/vlm/gguf.json");
    let mut all: BTreeMap<String, BTreeMap<String, VlmGguf>> =
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut files = all.remove(case).unwrap();
    ["text", "mmproj"].map(|name| files.remove(name).unwrap())
}

impl VlmGguf {
    /// The bytes of the file. `sources` has the shapes of the model's own tensors.
    ///
    /// # Panics
    /// If what is made differs from what the converter made.
    pub fn bytes(&self, sources: &BTreeMap<String, Vec<usize>>, storage: Storage) -> Vec<u8> {
        let tensors: Vec<Tensor> = self.tensors.iter().map(|told| told.tensor(sources, storage)).collect();
        let metadata: Vec<_> =
            self.metadata.iter().map(|(key, (kind, said))| (key.as_str(), value(kind, said))).collect();
        gguf_file::file(&tensors, &metadata)
    }
}

/// Writes both files, the vision part under its usual name, and gives the path of the language model.
///
/// # Panics
/// If the system refuses.
pub fn write(case: &str, sources: &BTreeMap<String, Vec<usize>>, folder: &Path, storage: Storage) -> PathBuf {
    let [text, vision] = read(case);
    let path = folder.join(format!("{case}.gguf"));
    std::fs::write(&path, text.bytes(sources, storage)).unwrap();
    std::fs::write(folder.join(format!("mmproj-{case}-f16.gguf")), vision.bytes(sources, Storage::AsConverted))
        .unwrap();
    path
}

impl Told {
    fn tensor(&self, sources: &BTreeMap<String, Vec<usize>>, storage: Storage) -> Tensor {
        let name = self.from[0].as_str().unwrap();
        let shape = &sources[name];
        let values = random::parameter(name, shape);
        let number = |at: usize| self.from[at].as_u64().unwrap() as usize;
        let values = match self.from[1].as_str().unwrap() {
            "whole" => values,
            "frame" => frame(&values, shape, number(2)),
            "pairs" => pairs(&values, shape, number(2)),
            other => panic!("no way to make {other}"),
        };
        let own: Vec<u8> = match self.kind.as_str() {
            "F32" => values.iter().flat_map(|value| value.to_f32().to_le_bytes()).collect(),
            "F16" => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            other => panic!("no way to write {other}"),
        };
        assert_eq!(fnv(&own), self.hash, "{} is not what the converter wrote", self.name);
        let row = self.shape.last().copied().unwrap_or(1);
        if storage == Storage::Q8_0 && self.shape.len() == 2 && row.is_multiple_of(32) {
            return (self.name.clone(), 8, self.shape.clone(), q8_0(&values));
        }
        (self.name.clone(), if self.kind == "F32" { 0 } else { 1 }, self.shape.clone(), own)
    }
}

/// One frame of `[width, channels, frames, side, side]`.
fn frame(values: &[f16], shape: &[usize], index: usize) -> Vec<f16> {
    let side: usize = shape[3..].iter().product();
    values.chunks_exact(side * shape[2]).flat_map(|channel| &channel[index * side..][..side]).copied().collect()
}

/// Rows of each head's first and second half by turns.
fn pairs(values: &[f16], shape: &[usize], heads: usize) -> Vec<f16> {
    let row = values.len() / shape[0];
    let half = shape[0] / heads / 2;
    let at = |head: usize, index: usize| head * 2 * half + index % 2 * half + index / 2;
    let rows = (0..heads).flat_map(|head| (0..2 * half).map(move |index| at(head, index)));
    rows.flat_map(|from| &values[from * row..][..row]).copied().collect()
}

/// Blocks of 32 as llama.cpp rounds them.
fn q8_0(values: &[f16]) -> Vec<u8> {
    let block = |block: &[f16]| {
        let most = block.iter().map(|value| value.to_f32().abs()).fold(0.0, f32::max);
        let step = most / 127.0;
        let rounded =
            block.iter().map(move |value| if step > 0.0 { (value.to_f32() / step).round() as i8 as u8 } else { 0 });
        f16::from_f32(step).to_le_bytes().into_iter().chain(rounded).collect::<Vec<u8>>()
    };
    values.chunks_exact(32).flat_map(block).collect()
}

fn fnv(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// A metadata value as make_gguf.py tells it.
///
/// # Panics
/// For a type that no converter writes here.
pub fn value(kind: &str, said: &serde_json::Value) -> Value {
    let number = || said.as_u64().unwrap() as u32;
    let items = || said.as_array().unwrap().iter();
    match kind {
        "UINT32" => Value::U32(number()),
        "FLOAT32" => Value::F32(said.as_f64().unwrap() as f32),
        "STRING" => Value::Text(said.as_str().unwrap().to_owned()),
        "BOOL" => Value::Bool(said.as_bool().unwrap()),
        "[STRING]" => Value::Texts(items().map(|text| text.as_str().unwrap().to_owned()).collect()),
        "[INT32]" => Value::I32s(items().map(|number| number.as_i64().unwrap() as i32).collect()),
        "[FLOAT32]" => Value::F32s(items().map(|number| number.as_f64().unwrap() as f32).collect()),
        "[BOOL]" => Value::Bools(items().map(|flag| flag.as_bool().unwrap()).collect()),
        other => panic!("no value of type {other}"),
    }
}
