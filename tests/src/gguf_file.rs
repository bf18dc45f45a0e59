//! The bytes of GGUF files, sound or not, and the fixtures that are made of them.

use crate::{random, workspace};
use half::f16;
use luna_core::{Limits, checkpoint::Checkpoint};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A tensor of a file: name, number of its type, shape (outermost side first), bytes.
pub type Tensor = (String, u32, Vec<usize>, Vec<u8>);

/// The value of a metadata entry.
#[derive(Clone)]
pub enum Value {
    /// Type 4.
    U32(u32),
    /// Type 6.
    F32(f32),
    /// Type 7.
    Bool(bool),
    /// Type 8.
    Text(String),
    /// Type 9 of type 8.
    Texts(Vec<String>),
    /// Type 9 of type 5.
    I32s(Vec<i32>),
    /// Type 9 of type 6.
    F32s(Vec<f32>),
    /// Type 9 of type 7.
    Bools(Vec<bool>),
}

/// Where tensors begin, as files have it that say nothing else.
const ALIGNMENT: usize = 32;

/// A sound file of version 3.
pub fn file(tensors: &[Tensor], metadata: &[(&str, Value)]) -> Vec<u8> {
    let mut header = start(3, tensors.len() as u64, metadata.len() as u64);
    for (key, value) in metadata {
        put_text(&mut header, key);
        match value {
            Value::U32(value) => header.extend([4u32.to_le_bytes(), value.to_le_bytes()].concat()),
            Value::F32(value) => header.extend([6u32.to_le_bytes(), value.to_le_bytes()].concat()),
            Value::Bool(value) => header.extend([&7u32.to_le_bytes()[..], &[u8::from(*value)]].concat()),
            Value::Text(value) => {
                header.extend(8u32.to_le_bytes());
                put_text(&mut header, value);
            }
            Value::Texts(list) => {
                put_list(&mut header, 8, list.len());
                list.iter().for_each(|text| put_text(&mut header, text));
            }
            Value::I32s(list) => {
                put_list(&mut header, 5, list.len());
                header.extend(list.iter().flat_map(|value| value.to_le_bytes()));
            }
            Value::F32s(list) => {
                put_list(&mut header, 6, list.len());
                header.extend(list.iter().flat_map(|value| value.to_le_bytes()));
            }
            Value::Bools(list) => {
                put_list(&mut header, 7, list.len());
                header.extend(list.iter().map(|&value| u8::from(value)));
            }
        }
    }
    let mut data = Vec::new();
    for (name, kind, shape, bytes) in tensors {
        put_tensor(&mut header, name, shape, *kind, data.len() as u64);
        data.extend_from_slice(bytes);
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
    [header, data].concat()
}

/// Magic, version and counts.
pub fn start(version: u32, tensors: u64, entries: u64) -> Vec<u8> {
    [&b"GGUF"[..], &version.to_le_bytes(), &tensors.to_le_bytes(), &entries.to_le_bytes()].concat()
}

/// Types of a list and its items, and how many there are.
fn put_list(to: &mut Vec<u8>, kind: u32, count: usize) {
    to.extend([9u32.to_le_bytes(), kind.to_le_bytes()].concat());
    to.extend((count as u64).to_le_bytes());
}

/// A length and a text.
pub fn put_text(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u64).to_le_bytes());
    to.extend_from_slice(text.as_bytes());
}

/// What the header says of a tensor; its sides stand innermost first.
pub fn put_tensor(to: &mut Vec<u8>, name: &str, shape: &[usize], kind: u32, offset: u64) {
    put_text(to, name);
    to.extend((shape.len() as u32).to_le_bytes());
    shape.iter().rev().for_each(|&side| to.extend((side as u64).to_le_bytes()));
    to.extend(kind.to_le_bytes());
    to.extend(offset.to_le_bytes());
}

/// An element type by the name that make.py has for it: its number, elements and bytes of a block, the factors of a
/// block for weights of variance 1, each with its place.
struct Kind {
    number: u32,
    block: [usize; 2],
    factors: &'static [(usize, f64)],
}

fn kind(name: &str) -> Kind {
    let (number, block, factors): (_, _, &[_]) = match name {
        "F32" => (0, [1, 4], &[]),
        "F16" => (1, [1, 2], &[]),
        "Q8_0" => (8, [32, 34], &[(0, 1.0 / 127.0)]),
        "Q4_K" => (12, [256, 144], &[(0, 1.0 / 300.0), (2, 7.5 / 300.0)]),
        "Q5_K" => (13, [256, 176], &[(0, 1.0 / 600.0), (2, 15.5 / 600.0)]),
        "Q6_K" => (14, [256, 210], &[(208, 1.0 / 2400.0)]),
        other => panic!("no type {other}"),
    };
    Kind { number, block, factors }
}

/// A tensor whose numbers follow from its name, as make.py makes it.
pub fn tensor(name: &str, shape: &[usize], type_name: &str) -> Tensor {
    let Kind { number, block: [elements, size], factors } = kind(type_name);
    let bytes = match type_name {
        "F32" => random::parameter(name, shape).iter().flat_map(|value| value.to_f32().to_le_bytes()).collect(),
        "F16" => random::parameter(name, shape).iter().flat_map(|value| value.to_le_bytes()).collect(),
        _ => {
            let count = shape.iter().product::<usize>() / elements;
            let mut bytes: Vec<u8> =
                random::uniform(name, count * size).map(|value| (256.0 * value).floor() as u8).collect();
            let bound = (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
            for block in bytes.chunks_exact_mut(size) {
                for &(at, factor) in factors {
                    block[at..at + 2].copy_from_slice(&f16::from_f64(bound * factor).to_le_bytes());
                }
            }
            bytes
        }
    };
    (name.to_owned(), number, shape.to_vec(), bytes)
}

#[derive(Deserialize)]
struct Described {
    shape: Vec<usize>,
    #[serde(rename = "type")]
    kind: String,
}

/// One fixture: a model, what it is given and what it answers.
pub struct GgufCase {
    file: Checkpoint,
    tensors: BTreeMap<String, Described>,
}

impl GgufCase {
    /// The fixture of this name.
    pub fn open(name: &str) -> Self {
        let path = workspace::root().join("tests/fixtures/gguf").join(name).with_extension("safetensors");
        let file = Checkpoint::open(path, &Limits::default()).unwrap();
        let tensors = serde_json::from_str(&file.metadata()["tensors"]).unwrap();
        Self { file, tensors }
    }

    /// The bytes of the model's GGUF file.
    pub fn model(&self, metadata: &[(&str, Value)]) -> Vec<u8> {
        let architecture = Value::Text(self.file.metadata()["architecture"].clone());
        let metadata = [&[("general.architecture", architecture)], metadata].concat();
        let tensors: Vec<_> = self.tensors.iter().map(|(name, told)| tensor(name, &told.shape, &told.kind)).collect();
        file(&tensors, &metadata)
    }

    /// Bytes of all its tensors as stored.
    pub fn stored_bytes(&self) -> u64 {
        let bytes = |told: &Described| {
            let [elements, size] = kind(&told.kind).block;
            told.shape.iter().product::<usize>() / elements * size
        };
        self.tensors.values().map(bytes).sum::<usize>() as u64
    }

    /// Parameters of all its tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors.values().map(|told| told.shape.iter().product::<usize>()).sum::<usize>() as u64
    }

    /// An input or the output: shape and values.
    pub fn get(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let view = self.file.tensor(name).unwrap();
        let values = view.bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        (view.shape.to_vec(), values)
    }

    /// Whole numbers.
    pub fn integers(&self, name: &str) -> Vec<u32> {
        let view = self.file.tensor(name).unwrap();
        view.bytes.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes) as u32).collect()
    }
}
