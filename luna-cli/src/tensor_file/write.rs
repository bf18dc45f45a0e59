//! The bytes of a safetensors file. The crate `safetensors` orders metadata at random; here equal values give equal
//! bytes, so that files can be compared.

use half::f16;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A tensor to write: f32, row-major.
pub struct Tensor<'a> {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: &'a [f32],
}

/// A whole file, tensors in the given order.
///
/// # Panics
/// If the number of a tensor's values is not what its shape says.
pub fn to_bytes(tensors: &[Tensor], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let named = tensors.iter().map(|Tensor { name, shape, .. }| (name.as_str(), shape.as_slice()));
    let mut file = header("F32", size_of::<f32>(), named, metadata);
    for Tensor { name, shape, values } in tensors {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "the shape of {name}");
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    file
}

/// A whole file in f16 whose values are made as they are written: tensor number, how many of them.
pub fn half_bytes(tensors: &[(String, Vec<usize>)], values: impl Fn(usize, &[usize]) -> Vec<f32>) -> Vec<u8> {
    let named = tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()));
    let mut file = header("F16", size_of::<f16>(), named, &BTreeMap::new());
    for (index, (_, shape)) in tensors.iter().enumerate() {
        file.extend(values(index, shape).iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()));
    }
    file
}

/// Everything before the values, in a buffer that has room for them.
fn header<'a>(
    dtype: &str,
    size: usize,
    tensors: impl Iterator<Item = (&'a str, &'a [usize])>,
    metadata: &BTreeMap<String, String>,
) -> Vec<u8> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += size * shape.iter().product::<usize>();
        header.insert(name.to_owned(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }));
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    // Readers map files, so that values should start at a multiple of 8.
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut file = Vec::with_capacity(8 + text.len() + end);
    file.extend_from_slice(&(text.len() as u64).to_le_bytes());
    file.extend_from_slice(&text);
    file
}
