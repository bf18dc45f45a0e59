//! The bytes of safetensors files, sound or not.

use half::f16;
use serde_json::{Map, Value, json};

/// A tensor of a file: name, dtype as headers spell it, shape, bytes.
pub type Tensor = (String, &'static str, Vec<usize>, Vec<u8>);

/// An f32 tensor.
pub fn f32_tensor(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
    (name.to_owned(), "F32", shape.to_vec(), values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

/// An f16 tensor.
pub fn f16_tensor(name: &str, shape: &[usize], values: &[f16]) -> Tensor {
    (name.to_owned(), "F16", shape.to_vec(), values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

/// A sound file.
pub fn file(tensors: &[Tensor], metadata: &[(&str, &str)]) -> Vec<u8> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        let metadata: Map<String, Value> =
            metadata.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        header.insert("__metadata__".to_owned(), Value::Object(metadata));
    }
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let start = data.len();
        data.extend_from_slice(bytes);
        header.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, data.len()] }));
    }
    with_header(&Value::Object(header).to_string(), &data)
}

/// Any header before any data.
pub fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}
