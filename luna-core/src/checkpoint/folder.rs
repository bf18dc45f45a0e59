//! Models that are more than one file: shards with an index, `save_pretrained` folders, diffusers pipelines,
//! folders of GGUF files.

use super::{Checkpoint, projector};
use crate::{Error, ErrorKind, Limits, Result, limits::check_at_most};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Weight files of a component folder, in order of preference.
const WEIGHTS: [&str; 6] = [
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.fp16.safetensors",
];

/// Whether the path names the index of a sharded model.
pub(super) fn is_index(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".index.json")
}

/// Reads a component folder or a pipeline folder.
pub(super) fn read(checkpoint: &mut Checkpoint, folder: &Path, limits: &Limits) -> Result<()> {
    if !folder.join("model_index.json").is_file() {
        return read_component(checkpoint, folder, "", limits);
    }
    let index = read_json(&folder.join("model_index.json"), limits)?;
    let parts =
        index.as_object().into_iter().flatten().filter(|(name, value)| !name.starts_with('_') && value.is_array());
    for (name, _) in parts {
        let part = folder.join(name);
        if WEIGHTS.iter().any(|file| part.join(file).is_file()) {
            read_component(checkpoint, &part, &format!("{name}."), limits)?;
        }
    }
    if checkpoint.tensors.is_empty() {
        return Err(Error::new(ErrorKind::InvalidFile, "the pipeline folder holds no component with weights"));
    }
    Ok(())
}

fn read_component(checkpoint: &mut Checkpoint, folder: &Path, prefix: &str, limits: &Limits) -> Result<()> {
    let config = folder.join("config.json");
    if config.is_file() {
        checkpoint.configs.insert(prefix.to_owned(), read_json(&config, limits)?);
    }
    let Some(weights) = WEIGHTS.iter().map(|name| folder.join(name)).find(|path| path.is_file()) else {
        if let Some(gguf) = only_gguf(folder)? {
            checkpoint.add_file(&gguf, prefix, limits).map_err(|error| error.at(gguf.display()))?;
            return projector::add_beside(checkpoint, &gguf, limits);
        }
        let pickles = ["diffusion_pytorch_model.bin", "pytorch_model.bin"];
        let error = Error::new(ErrorKind::InvalidFile, "the folder holds no weights")
            .expected(format!("one of {}", WEIGHTS.join(", ")));
        return Err(match pickles.into_iter().find(|name| folder.join(name).is_file()) {
            Some(pickle) => error.found(format!("{pickle}, a pickle")).remedy("convert it to safetensors"),
            None => error.remedy("name the folder that holds config.json and the weights"),
        });
    };
    if is_index(&weights) {
        read_index(checkpoint, &weights, prefix, limits)
    } else {
        checkpoint.add_file(&weights, prefix, limits).map_err(|error| error.at(weights.display()))
    }
}

/// The GGUF file of a folder, vision parts aside, if there is any.
fn only_gguf(folder: &Path) -> Result<Option<PathBuf>> {
    let is_gguf = |path: &PathBuf| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    let models = projector::files(folder)?.into_iter().filter(is_gguf).filter(|path| !projector::is_projector(path));
    match &*models.collect::<Vec<_>>() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        several => {
            let names: Vec<_> = several.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy())).collect();
            Err(Error::new(ErrorKind::InvalidInput, "the folder holds several GGUF models")
                .expected("one, with its mmproj file where it has one")
                .found(names.join(", "))
                .remedy("name the file instead of the folder"))
        }
    }
}

/// Reads the shards an index names.
pub(super) fn read_index(checkpoint: &mut Checkpoint, index: &Path, prefix: &str, limits: &Limits) -> Result<()> {
    let wrong = |message: &str| Error::new(ErrorKind::InvalidFile, message.to_owned());
    let json = read_json(index, limits)?;
    let map =
        json.get("weight_map").and_then(Value::as_object).ok_or_else(|| wrong("the index has no `weight_map`"))?;
    let shards: Option<BTreeSet<&str>> = map.values().map(Value::as_str).collect();
    let shards = shards.ok_or_else(|| wrong("the index names a shard that is not a file name"))?;
    check_at_most("shards", shards.len() as u64, limits.shards as u64)?;
    for shard in shards {
        if shard.contains(['/', '\\', ':']) || shard.starts_with('.') {
            return Err(wrong("the index names a shard outside its folder").found(format!("`{shard}`")));
        }
        let path = index.with_file_name(shard);
        checkpoint.add_file(&path, prefix, limits).map_err(|error| error.at(shard))?;
    }
    match map.keys().find(|name| !checkpoint.tensors.contains_key(&format!("{prefix}{name}"))) {
        Some(name) => Err(wrong("the shards lack a tensor of the index").found(format!("no `{name}`"))),
        None => Ok(()),
    }
}

/// TAESD's own files hold layers without a prefix, encoder and decoder apart: `NAME_encoder.safetensors` and
/// `NAME_decoder.safetensors`. Naming either opens both, where both are there.
pub(super) fn read_taesd_pair(checkpoint: &mut Checkpoint, path: &Path, limits: &Limits) -> Result<bool> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(false) };
    let Some((half, other)) =
        [("encoder", "decoder"), ("decoder", "encoder")].into_iter().find(|(half, _)| name.contains(half))
    else {
        return Ok(false);
    };
    let bytes = super::mmap::map(path)?;
    let header = super::header::read(&bytes, limits)?;
    if !header.tensors.iter().all(|(name, _)| name.starts_with(|c: char| c.is_ascii_digit())) {
        return Ok(false);
    }
    checkpoint.add_bytes(bytes, &format!("{half}."), limits)?;
    let sibling = path.with_file_name(name.replacen(half, other, 1));
    if sibling.is_file() {
        checkpoint.add_file(&sibling, &format!("{other}."), limits).map_err(|error| error.at(sibling.display()))?;
    }
    Ok(true)
}

/// A JSON file that need not be there.
pub(super) fn read_json_if_there(path: &Path, limits: &Limits) -> Result<Option<Value>> {
    if path.is_file() { read_json(path, limits).map(Some) } else { Ok(None) }
}

fn read_json(path: &Path, limits: &Limits) -> Result<Value> {
    let failed = |error| Error::io(format!("read {}", path.display()), error);
    check_at_most("bytes in a JSON file", fs::metadata(path).map_err(failed)?.len(), limits.header_bytes)?;
    serde_json::from_slice(&fs::read(path).map_err(failed)?).map_err(|error| {
        Error::new(ErrorKind::InvalidFile, format!("{} is not valid JSON: {error}", path.display())).source(error)
    })
}
