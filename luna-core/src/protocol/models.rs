//! Requests and replies about which models the daemon holds.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `register_model_by_path`: a file or folder that the daemon can read, under one of its model roots.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterModelByPath {
    /// Where it lies on the daemon's machine: absolute, or below a model root.
    pub model_path: String,
    /// What requests shall call it; the file's name if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of text encoders: the only one that is wanted, and which CLIP a file of no known size holds: `clip_l`, `clip_g`,
    /// `clip_h`, `t5`, `qwen3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<String>,
    /// The `tokenizer.json` of a T5, Qwen3 or vision-language model, below a model root; the one beside the weights if not
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// The vision part of a GGUF language model, below a model root; the one `mmproj-*.gguf` beside it that fits if not
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projector: Option<String>,
}

/// `register_model`: the frame's tensors are the model's, under the names that a checkpoint gives them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterModel {
    /// What requests shall call it.
    pub name: String,
    /// As of `register_model_by_path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<String>,
    /// What the file's own `__metadata__` says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// A model that requests may name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// What requests call it.
    pub name: String,
    /// What it is known by: BLAKE3 of its content, 64 hexadecimal digits, which requests may use as well.
    pub model_id: String,
    /// Where it came from; `None` for an upload.
    #[serde(default)]
    pub path: Option<String>,
    /// The components that the daemon can use: `vae`, `text_encoder`, `diffusion`, `vision`, `vision_language`.
    pub components: Vec<String>,
    /// Bytes of weights in memory now; 0 before its first use and after it was unloaded.
    pub bytes: u64,
    /// Whether it is in memory.
    pub loaded: bool,
    /// Requests that use it now.
    pub leases: usize,
}

/// `list_models`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListModels {}

/// The reply to `list_models`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Models {
    /// Each of them, by name.
    pub models: Vec<ModelInfo>,
}

/// `unload_models`: gives memory back. A model from a path stays registered and is read again when it is used next;
/// an uploaded one is forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnloadModels {
    /// Names or ids; all models if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
}

/// The reply to `unload_models`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unloaded {
    /// Models whose memory is free.
    pub freed: Vec<String>,
    /// Models whose memory is free as soon as running requests are done.
    pub when_returned: Vec<String>,
    /// Bytes that are free now.
    pub freed_bytes: u64,
}
