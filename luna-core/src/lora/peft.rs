//! What PEFT writes down beside the factors: `adapter_config.json` in a folder, `lora_adapter_metadata` in the header of
//! diffusers' files. Enters: those. Leaves: the scale of an adapter by its name. It must not know factors.

use crate::{Error, ErrorKind, Limits, Result, limits::check_at_most};
use regex::Regex;
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Weights in a folder, in order of preference.
const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "pytorch_lora_weights.safetensors"];
/// The key in the header of diffusers' files.
const METADATA: &str = "lora_adapter_metadata";

/// The configurations of a file: one, or one for each component of a pipeline.
#[derive(Debug)]
pub(super) struct Config {
    components: Vec<Component>,
}

#[derive(Debug)]
struct Component {
    /// What its keys start with: `unet.`, or nothing.
    prefix: String,
    alpha: f64,
    /// Scale by the root of the rank.
    rooted: bool,
    /// Which layers have another alpha.
    alphas: Vec<(Regex, f64)>,
}

/// The weights at a path, a file or a folder, and what a header must say for them to be read alike without the folder.
pub(super) fn weights_and_header(path: &Path, limits: &Limits) -> Result<(PathBuf, BTreeMap<String, String>)> {
    let (weights, beside) = weights(path, limits)?;
    Ok((weights, beside.into_iter().map(|(_, text)| (METADATA.to_owned(), text)).collect()))
}

/// The weights at a path, and path and text of the configuration beside them where the path is a folder.
fn weights(path: &Path, limits: &Limits) -> Result<(PathBuf, Option<(PathBuf, String)>)> {
    if !path.is_dir() {
        return Ok((path.to_owned(), None));
    }
    let Some(weights) = WEIGHTS.iter().map(|name| path.join(name)).find(|weights| weights.is_file()) else {
        return Err(Error::new(ErrorKind::NotFound, format!("{}: the folder holds no LoRA", path.display()))
            .expected(WEIGHTS.join(" or ")));
    };
    let file = path.join("adapter_config.json");
    if !file.is_file() {
        return Ok((weights, None));
    }
    let io = |error| Error::io(format!("read {}", file.display()), error);
    let size = fs::metadata(&file).map_err(io)?.len();
    check_at_most("bytes of adapter_config.json", size, limits.header_bytes)?;
    let text = fs::read_to_string(&file).map_err(io)?;
    Ok((weights, Some((file, text))))
}

impl Config {
    /// The weights at a path, and the configuration beside them where the path is a folder.
    pub(super) fn beside(path: &Path, limits: &Limits) -> Result<(PathBuf, Option<Self>)> {
        let (weights, beside) = weights(path, limits)?;
        let Some((file, text)) = beside else { return Ok((weights, None)) };
        let config = serde_json::from_str::<Value>(&text).map_err(|error| {
            Error::new(ErrorKind::InvalidFile, format!("{} is no JSON: {error}", file.display())).source(error)
        })?;
        let component = Component::read("", |key| &config[key]).map_err(|error| error.at(file.display()))?;
        Ok((weights, component.map(|component| Self { components: vec![component] })))
    }

    /// What diffusers keeps in the header.
    pub(super) fn in_metadata(metadata: &BTreeMap<String, String>) -> Result<Option<Self>> {
        let Some(text) = metadata.get(METADATA) else { return Ok(None) };
        let values: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
            Error::new(ErrorKind::InvalidFile, format!("`{METADATA}` is no JSON: {error}")).source(error)
        })?;
        let none = Value::Null;
        let mut components = Vec::new();
        for prefix in ["", "unet.", "transformer.", "text_encoder.", "text_encoder_2.", "text_encoder_3."] {
            let get = |key: &str| values.get(&format!("{prefix}{key}")).unwrap_or(&none);
            components.extend(Component::read(prefix, get)?);
        }
        Ok((!components.is_empty()).then_some(Self { components }))
    }

    /// `alpha / rank` or `alpha / √rank` of the adapter with this key.
    pub(super) fn scale(&self, key: &str, rank: usize) -> Option<f32> {
        let component = self.components.iter().find(|component| key.starts_with(&component.prefix))?;
        let layer = &key[component.prefix.len()..];
        let layer = layer.strip_prefix("base_model.model.").unwrap_or(layer);
        let own = component.alphas.iter().find(|(pattern, _)| pattern.is_match(layer));
        let alpha = own.map_or(component.alpha, |(_, alpha)| *alpha);
        let rank = rank as f64;
        Some((alpha / if component.rooted { rank.sqrt() } else { rank }) as f32)
    }
}

impl Component {
    /// `None` where no alpha is written down.
    fn read<'a>(prefix: &str, get: impl Fn(&str) -> &'a Value) -> Result<Option<Self>> {
        // LoHa and LoKr of PEFT call it `alpha`.
        let alpha = [get("lora_alpha"), get("alpha")].into_iter().find_map(Value::as_f64);
        let Some(alpha) = alpha else { return Ok(None) };
        let mut alphas = Vec::new();
        for (pattern, own) in get("alpha_pattern").as_object().into_iter().flatten() {
            // As PEFT asks: the whole of the name, or its end after a dot.
            let wrong = || {
                Error::new(ErrorKind::InvalidFile, "`alpha_pattern` is no pattern with a number").found(pattern.clone())
            };
            let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$")).map_err(|error| wrong().source(error))?;
            alphas.push((regex, own.as_f64().ok_or_else(wrong)?));
        }
        let rooted = get("use_rslora").as_bool().unwrap_or_default();
        Ok(Some(Self { prefix: prefix.to_owned(), alpha, rooted, alphas }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let metadata = BTreeMap::from([(METADATA.to_owned(), text.to_owned())]);
        Config::in_metadata(&metadata).unwrap().unwrap()
    }

    #[test]
    fn scales_follow_rank_root_and_patterns() {
        let plain = config(r#"{"unet.lora_alpha": 8, "unet.r": 4, "text_encoder.lora_alpha": 2}"#);
        assert_eq!(plain.scale("unet.conv_in", 4), Some(2.0));
        assert_eq!(plain.scale("text_encoder.text_model.x", 4), Some(0.5));
        assert_eq!(plain.scale("transformer.x", 4), None);
        let rooted = config(r#"{"lora_alpha": 8, "use_rslora": true, "alpha_pattern": {"attn.*to_q": 4, "b": 1}}"#);
        assert_eq!(rooted.scale("base_model.model.x.to_k", 16), Some(2.0));
        assert_eq!(rooted.scale("base_model.model.x.attn1.to_q", 16), Some(1.0));
        assert_eq!(rooted.scale("x.ab", 16), Some(2.0));
    }
}
