//! Text encoders in this process. Enters: files and how they are to be read. Leaves: what works with all of them together.

use super::recipe_of;
use crate::{
    daemon::Reading,
    embedded::Embedded,
    error::{Result, wrong},
};
use luna_core::{
    Runtime,
    checkpoint::Checkpoint,
    registry::Lease,
    text::{Conditioner, ConditioningCache, EmbeddingFolders, EncoderKind, Recipe, TextLoadOptions, TextModel},
};
use std::path::Path;

/// The name that stands for the text encoder that the library carries, in `luna_text_load`.
const DEMO: &str = "demo";

/// Encoders in this process.
pub(super) struct Encoders {
    pub(super) models: Vec<Lease<TextModel>>,
    recipe: Recipe,
    folders: Option<EmbeddingFolders>,
    pub(super) cache: Option<ConditioningCache>,
}

impl Encoders {
    pub(super) fn load(
        embedded: &Embedded,
        files: &[(&str, Reading)],
        recipe: Option<&str>,
        folders: Option<EmbeddingFolders>,
        cache: u64,
    ) -> Result<Self> {
        let models =
            files.iter().map(|(path, reading)| acquire(embedded, path, *reading)).collect::<Result<Vec<_>>>()?;
        let recipe = match recipe {
            None => Conditioner::new(&models.iter().map(|model| &**model).collect::<Vec<_>>())?.recipe(),
            Some(name) => recipe_of(name)?,
        };
        let cache = usize::try_from(cache).unwrap_or(usize::MAX);
        let loaded = Self { models, recipe, folders, cache: (cache > 0).then(|| ConditioningCache::new(cache)) };
        loaded.conditioner(|_| Ok(()))?;
        Ok(loaded)
    }

    pub(super) fn conditioner<T>(&self, work: impl FnOnce(&Conditioner) -> Result<T>) -> Result<T> {
        let models: Vec<&TextModel> = self.models.iter().map(|model| &**model).collect();
        let mut conditioner = Conditioner::with_recipe(&models, self.recipe)?;
        if let Some(folders) = &self.folders {
            conditioner = conditioner.with_embeddings(folders);
        }
        if let Some(cache) = &self.cache {
            conditioner = conditioner.with_cache(cache);
        }
        work(&conditioner)
    }
}

/// The text encoders of one file. What they are known by is their file's digest, so that a cache need not read weights.
fn acquire(embedded: &Embedded, path: &str, reading: Reading) -> Result<Lease<TextModel>> {
    let usual = (path == DEMO).then_some(EncoderKind::ClipL);
    let options = TextLoadOptions {
        kind: reading.encoder.or(usual),
        tokenizer: reading.tokenizer.map(Path::to_owned),
        activation: reading.activation,
        ..TextLoadOptions::default()
    };
    let load = |checkpoint: &Checkpoint, runtime: &Runtime| TextModel::load(checkpoint, runtime, &options);
    if reading == Reading::default() {
        let bundled = Some((DEMO, TextModel::demo_checkpoint as fn() -> _));
        return embedded.acquire(path, bundled, load);
    }
    if path == DEMO {
        return Err(wrong("the text encoder that the library carries is read in one way only")
            .remedy("leave its tokenizer, encoder and activation at NULL; a file of that name is `./demo`")
            .into());
    }
    embedded.acquire_read(path, &(options.kind, &options.tokenizer, options.activation), load)
}
