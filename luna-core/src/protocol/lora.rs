//! LoRAs of requests: stacks that a request brings along, what became of them, and the cache that they are kept in.

use crate::lora::{Coverage, Unsupported};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One LoRA of a request's stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraUse {
    /// Its id, 64 hexadecimal digits, as `lora_cache_put` and `lora_cache_get` tell; or its name or path below one of the
    /// daemon's LoRA folders.
    pub lora: String,
    /// Strength for a denoiser.
    #[serde(default = "full")]
    pub model: f64,
    /// Strength for text encoders.
    #[serde(default = "full")]
    pub clip: f64,
}

fn full() -> f64 {
    1.0
}

/// What became of a stack on a denoiser or a vision-language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraOutcome {
    /// `functional` or `merged`.
    pub mode: String,
    /// Why `auto` did not merge: `few_forwards`, `no_room`, `in_use`.
    pub not_merged: Option<String>,
    /// What became of every adapter of every file.
    pub coverage: Coverage,
}

/// What became of a stack on one model of text encoders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextLoraOutcome {
    /// The model, as the request named it.
    pub model: String,
    /// What became of every adapter of every file.
    #[serde(flatten)]
    pub coverage: Coverage,
}

/// `lora_cache_put`: the frame's tensors are a LoRA's, under the names that its file gives them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraCachePut {
    /// What reports shall call it.
    pub name: String,
    /// What the file's own `__metadata__` says: PEFT's configuration stands there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// `lora_cache_get`: a LoRA's facts, read from its folder if need be; with its tensors where they are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraCacheGet {
    /// Its id, or its name or path below a LoRA folder.
    pub lora: String,
    /// Whether the tensors of its file come along.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tensors: bool,
}

/// The reply to `lora_cache_put` and `lora_cache_get`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraInfo {
    /// What it is known by: BLAKE3 of its content, 64 hexadecimal digits.
    pub lora_id: String,
    /// What reports call it.
    pub name: String,
    /// Layers that it has an adapter for.
    pub adapters: usize,
    /// How many adapters there are of each kind.
    pub kinds: BTreeMap<String, usize>,
    /// Which model it looks made for, where names and sizes tell.
    pub made_for: Option<String>,
    /// What it holds that Luna cannot apply.
    pub unsupported: Vec<Unsupported>,
    /// Bytes that it takes in memory.
    pub bytes: u64,
    /// Where it was: `parsed`, `packed` (in memory, compressed), `read` (in its file, or new).
    pub source: String,
}

/// `lora_cache_check`: whether a LoRA is in memory. Nothing is read and nothing moves.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraCacheCheck {
    /// Its id.
    pub lora: String,
}

/// The reply to `lora_cache_check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoraChecked {
    /// Whether it is there.
    pub cached: bool,
    /// How: `parsed` or `packed`.
    pub source: Option<String>,
}

/// `lora_cache_stats`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraCacheStats {}

/// The reply to `lora_cache_stats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LoraStats {
    /// LoRAs held parsed.
    pub parsed: usize,
    /// Bytes they take.
    pub parsed_bytes: u64,
    /// LoRAs held compressed.
    pub packed: usize,
    /// Bytes they take.
    pub packed_bytes: u64,
    /// How often a LoRA was there, parsed.
    pub hits: u64,
    /// How often it was there, compressed.
    pub unpacked: u64,
    /// How often it was not there.
    pub misses: u64,
    /// How many parsed LoRAs made room for others.
    pub evicted: u64,
    /// Models with a merged copy of layers.
    pub merged: usize,
    /// Bytes of these copies.
    pub merged_bytes: u64,
}
