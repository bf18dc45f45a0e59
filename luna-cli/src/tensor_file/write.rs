//! The bytes of a safetensors file. The crate `safetensors` orders metadata at random; here equal values give equal
//! bytes, so that files can be compared.

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
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut end = 0;
    for Tensor { name, shape, values } in tensors {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "the shape of {name}");
        let start = end;
        end += size_of_val(*values);
        header.insert(name.clone(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] }));
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    // Readers map files, so that values should start at a multiple of 8.
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut file = Vec::with_capacity(8 + text.len() + end);
    file.extend_from_slice(&(text.len() as u64).to_le_bytes());
    file.extend_from_slice(&text);
    for tensor in tensors {
        file.extend(tensor.values.iter().flat_map(|value| value.to_le_bytes()));
    }
    file
}
