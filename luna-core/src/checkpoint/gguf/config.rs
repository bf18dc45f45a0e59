//! What models ask a config.json, out of a GGUF file's metadata. Enters: metadata of a language model or of the vision
//! part beside it. Leaves: the keys that transformers has for them.

use super::List;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The architecture that vision parts name.
const VISION: &str = "clip";

/// The config of a file, where its metadata say any of it.
pub(super) fn config(
    metadata: &BTreeMap<String, String>,
    lists: &BTreeMap<String, List>,
    file: &[u8],
) -> Option<Value> {
    let stated = Stated { metadata, lists, file, architecture: metadata.get("general.architecture")? };
    let config = if stated.architecture == VISION { stated.vision() } else { stated.text() };
    (!config.is_empty()).then_some(config.into())
}

struct Stated<'a> {
    metadata: &'a BTreeMap<String, String>,
    lists: &'a BTreeMap<String, List>,
    file: &'a [u8],
    architecture: &'a str,
}

impl Stated<'_> {
    fn number(&self, key: &str) -> Option<Value> {
        let text = self.metadata.get(&format!("{}.{key}", self.architecture))?;
        text.parse::<u64>().map(Value::from).or_else(|_| text.parse::<f64>().map(Value::from)).ok()
    }

    fn numbers(&self, key: &str) -> Option<Vec<f64>> {
        self.lists.get(&format!("{}.{key}", self.architecture))?.numbers(self.file)
    }

    fn pick(&self, keys: &[(&str, &str)]) -> Map<String, Value> {
        keys.iter().filter_map(|(key, name)| Some(((*name).to_owned(), self.number(key)?))).collect()
    }

    /// Of a language model: what text encoders ask, and as `text_config` what vision-language models ask.
    fn text(&self) -> Map<String, Value> {
        let mut config = self.pick(&[
            ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
            ("attention.layer_norm_rms_epsilon", "layer_norm_epsilon"),
            ("rope.freq_base", "rope_theta"),
        ]);
        let mut text = self.pick(&[
            ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
            ("rope.freq_base", "rope_theta"),
            ("context_length", "max_position_embeddings"),
            ("embedding_length", "hidden_size"),
            ("block_count", "num_hidden_layers"),
            ("attention.head_count", "num_attention_heads"),
            ("attention.key_length", "head_dim"),
        ]);
        if let Some([time, height, width, ..]) = self.numbers("rope.dimension_sections").as_deref() {
            text.insert(
                "rope_scaling".into(),
                json!({ "mrope_section": [*time as u64, *height as u64, *width as u64] }),
            );
        }
        let ends =
            ["eos", "eot"].map(|name| self.metadata.get(&format!("tokenizer.ggml.{name}_token_id"))?.parse().ok());
        let ends: Vec<u64> = ends.into_iter().flatten().collect();
        if !ends.is_empty() {
            text.insert("eos_token_id".into(), ends.into());
        }
        if !text.is_empty() {
            config.insert("text_config".into(), text.into());
        }
        config
    }

    /// Of a vision part: `vision_config`, `vision_feature_layer` and, as in processor_config.json, `image_processor`.
    fn vision(&self) -> Map<String, Value> {
        let mut vision = self.pick(&[
            ("vision.image_size", "image_size"),
            ("vision.patch_size", "patch_size"),
            ("vision.embedding_length", "hidden_size"),
            ("vision.block_count", "num_hidden_layers"),
            ("vision.block_count", "depth"),
            ("vision.attention.head_count", "num_attention_heads"),
            ("vision.attention.head_count", "num_heads"),
            ("vision.attention.layer_norm_epsilon", "layer_norm_eps"),
        ]);
        // llama.cpp knows one GELU besides the quick one; which of the two it means is known by the kind of encoder.
        if self.metadata.get("clip.use_gelu").is_some_and(|use_gelu| use_gelu == "false") {
            vision.insert("hidden_act".into(), "quick_gelu".into());
        }
        if let Some(deep) = self.numbers("vision.is_deepstack_layers") {
            let indexes: Vec<usize> = (0..).zip(&deep).filter(|(_, is)| **is != 0.0).map(|(index, _)| index).collect();
            vision.insert("deepstack_visual_indexes".into(), indexes.into());
        }
        let mut processor =
            self.pick(&[("vision.image_min_pixels", "min_pixels"), ("vision.image_max_pixels", "max_pixels")]);
        for name in ["image_mean", "image_std"] {
            processor.extend(self.numbers(&format!("vision.{name}")).map(|values| (name.to_owned(), values.into())));
        }
        // Without a word on it all layers count: those behind the one that is looked at are not in the file.
        let layer = match self.numbers("vision.feature_layer").as_deref() {
            Some([layer]) => json!(*layer as i64),
            Some(several) => json!(several),
            None => json!(-1),
        };
        let parts =
            [("vision_config", vision.into()), ("vision_feature_layer", layer), ("image_processor", processor.into())];
        parts.into_iter().map(|(name, part): (&str, Value)| (name.to_owned(), part)).collect()
    }
}
