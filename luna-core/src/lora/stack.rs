//! A stack of LoRAs as a request brings it, and its way to patches. Enters: files with strengths, a model. Leaves: the
//! patches of that model's layers and a report of what became of every adapter.

use super::{
    adapter::{Adapter, DoraConvention},
    coverage::{Applied, Coverage, FileCoverage, Unmatched, Unsupported, WrongShape},
    file::LoraFile,
    fit::{Misfit, Share},
    target::{ModelKind, Target, Targets},
};
use crate::{
    Error, ErrorKind, Result,
    diffusion::Denoiser,
    nn::{LayerPatch, Patches},
    text::{EncoderKind, TextModel},
};
use std::{collections::BTreeMap, sync::Arc};

/// One LoRA of a stack.
#[derive(Debug, Clone)]
pub struct StackEntry {
    /// The file.
    pub lora: Arc<LoraFile>,
    /// Strength for the denoiser.
    pub model: f64,
    /// Strength for the text encoders.
    pub clip: f64,
}

/// The LoRAs of a request. Their differences add, so the order does not matter beyond rounding, and a LoRA that is there
/// twice counts twice. A strength of 0 leaves the model's results as they are, bit for bit.
///
/// ```no_run
/// use luna_core::{Limits, Runtime, diffusion::{Denoiser, ForwardOptions}, lora::{LoraFile, LoraStack, ResolveOptions}};
/// let denoiser = Denoiser::open("v1-5-pruned-emaonly.safetensors", &Runtime::cpu()?)?;
/// let stack = LoraStack::new()
///     .with(LoraFile::open("ink.safetensors", &Limits::default())?.into(), 0.8, 0.6)?
///     .with(LoraFile::open("fox.safetensors", &Limits::default())?.into(), 0.5, 0.5)?;
/// let resolved = stack.resolve(&denoiser, &ResolveOptions::default())?;
/// let options = ForwardOptions { patches: Some(resolved.patches), ..ForwardOptions::default() };
/// for file in &resolved.coverage.files {
///     assert!(file.is_complete(), "{file}");
/// }
/// # Ok::<(), luna_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct LoraStack {
    entries: Vec<StackEntry>,
}

/// How a stack is resolved.
#[derive(Debug, Clone, Default)]
pub struct ResolveOptions {
    /// Makes an error of every adapter for this model that cannot be applied.
    pub strict: bool,
    /// Allows a stack of which nothing applies.
    pub allow_nothing: bool,
    /// DoRA's convention, where it is not the one that the file's names tell.
    pub dora: Option<DoraConvention>,
}

/// A stack resolved for a denoiser.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Resolved {
    /// For [`crate::diffusion::ForwardOptions::patches`].
    pub patches: Arc<Patches>,
    /// What became of every adapter.
    pub coverage: Coverage,
}

/// A stack resolved for text encoders.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ResolvedText {
    /// For [`crate::text::TextOptions::patches`].
    pub patches: BTreeMap<EncoderKind, Arc<Patches>>,
    /// What became of every adapter.
    pub coverage: Coverage,
}

impl LoraStack {
    /// A stack without LoRAs.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more LoRA.
    ///
    /// # Errors
    /// `InvalidInput` for strengths that are no finite f32.
    pub fn with(mut self, lora: Arc<LoraFile>, model: f64, clip: f64) -> Result<Self> {
        for (strength, what) in [(model, "model"), (clip, "clip")] {
            if !(strength as f32).is_finite() {
                return Err(Error::new(ErrorKind::InvalidInput, format!("the {what} strength of a LoRA is no number"))
                    .expected("a finite number, mostly between -2 and 2")
                    .found(strength.to_string()));
            }
        }
        self.entries.push(StackEntry { lora, model, clip });
        Ok(self)
    }

    /// Its LoRAs.
    pub fn entries(&self) -> &[StackEntry] {
        &self.entries
    }

    /// Finds the layers of a denoiser that each adapter is for.
    ///
    /// # Errors
    /// `InvalidInput` if nothing applies, or with `strict` if something does not, with what was found instead.
    pub fn resolve(&self, denoiser: &Denoiser, options: &ResolveOptions) -> Result<Resolved> {
        let targets = [Targets::new(ModelKind::Denoiser(denoiser.family()), denoiser.frozen())];
        let (mut patches, coverage) = self.resolve_all(&targets, |entry| entry.model, options)?;
        Ok(Resolved { patches: Arc::new(patches.remove(0)), coverage })
    }

    /// Finds the layers of text encoders that each adapter is for. A stack is resolved for each model that works
    /// together; the encoders' patches go into one map.
    ///
    /// # Errors
    /// As [`LoraStack::resolve`].
    pub fn resolve_text(&self, model: &TextModel, options: &ResolveOptions) -> Result<ResolvedText> {
        let encoders: Vec<_> = model.frozen().collect();
        let alone = encoders.iter().all(|(kind, _)| *kind != EncoderKind::ClipL);
        let targets: Vec<_> =
            encoders.iter().map(|(kind, frozen)| Targets::new(ModelKind::Text(*kind, alone), frozen)).collect();
        let (patches, coverage) = self.resolve_all(&targets, |entry| entry.clip, options)?;
        let kinds = encoders.iter().map(|(kind, _)| *kind);
        Ok(ResolvedText { patches: kinds.zip(patches.into_iter().map(Arc::new)).collect(), coverage })
    }

    /// As [`LoraStack::resolve_text`] for models that work together: nothing may apply to one of several, but not to
    /// all of them. One result for each model, in their order.
    ///
    /// # Errors
    /// As [`LoraStack::resolve`].
    pub fn resolve_texts(&self, models: &[&TextModel], options: &ResolveOptions) -> Result<Vec<ResolvedText>> {
        let each = ResolveOptions { allow_nothing: options.allow_nothing || models.len() > 1, ..options.clone() };
        let resolved: Vec<_> = models.iter().map(|model| self.resolve_text(model, &each)).collect::<Result<_>>()?;
        if options.allow_nothing || resolved.iter().any(|resolved| resolved.coverage.applied() > 0) {
            return Ok(resolved);
        }
        let files = resolved.iter().flat_map(|resolved| &resolved.coverage.files).map(ToString::to_string);
        Err(Error::new(ErrorKind::InvalidInput, "nothing of the LoRAs applies to these text encoders")
            .found(files.collect::<Vec<_>>().join("; "))
            .remedy("use a LoRA that was made for them"))
    }

    fn resolve_all(
        &self,
        targets: &[Targets],
        strength: impl Fn(&StackEntry) -> f64,
        options: &ResolveOptions,
    ) -> Result<(Vec<Patches>, Coverage)> {
        let mut layers: Vec<BTreeMap<usize, LayerPatch>> = targets.iter().map(|_| BTreeMap::new()).collect();
        let mut digest = blake3::Hasher::new();
        let mut coverage = Coverage::default();
        for entry in &self.entries {
            let strength = strength(entry);
            let mut resolution = Resolution { targets, layers: &mut layers, strength, dora: options.dora };
            let file = resolution.add(&entry.lora);
            check_strict(&file, options)?;
            coverage.files.push(file);
            if strength != 0.0 {
                digest.update(entry.lora.digest().as_bytes()).update(&(strength as f32).to_le_bytes());
            }
        }
        digest.update(format!("{:?}", options.dora).as_bytes());
        if !self.entries.is_empty() && coverage.applied() == 0 && !options.allow_nothing {
            return Err(nothing_applies(&coverage, targets));
        }
        let digest = digest.finalize();
        let patches = layers.into_iter().zip(targets);
        Ok((patches.map(|(layers, targets)| Patches::new(layers, targets.frozen(), digest)).collect(), coverage))
    }
}

/// The way of one file's adapters to the layers of a model's parts.
struct Resolution<'a, 'm> {
    targets: &'a [Targets<'m>],
    layers: &'a mut [BTreeMap<usize, LayerPatch>],
    strength: f64,
    dora: Option<DoraConvention>,
}

/// Unmatched names of a file whose nearest neighbours are looked for.
const NEAREST: usize = 32;

impl Resolution<'_, '_> {
    fn add(&mut self, lora: &LoraFile) -> FileCoverage {
        let mut file = FileCoverage {
            name: lora.name().to_owned(),
            strength: self.strength,
            made_for: lora.made_for().map(Into::into),
            unsupported: lora.unsupported.clone(),
            ..FileCoverage::default()
        };
        for adapter in &lora.adapters {
            let homes: Vec<_> = (0..self.targets.len()).filter(|&i| self.targets[i].is_home(&adapter.layer)).collect();
            let found = homes.iter().copied().find(|&home| !self.targets[home].find(&adapter.layer).is_empty());
            match found {
                Some(home) => self.fit(home, adapter, &mut file),
                None if homes.is_empty() => file.elsewhere += 1,
                None => {
                    let search = file.unmatched.len() < NEAREST;
                    let nearest = homes
                        .first()
                        .filter(|_| search)
                        .and_then(|home| self.targets[*home].nearest(&adapter.layer.flat).map(str::to_owned));
                    file.unmatched.push(Unmatched { key: adapter.key.clone(), nearest });
                }
            }
        }
        file
    }

    /// Gives each layer its share, or none of them.
    fn fit(&mut self, home: usize, adapter: &Adapter, file: &mut FileCoverage) {
        let targets = &self.targets[home];
        let found = targets.find(&adapter.layer);
        let end = |target: &Target| target.rows.as_ref().map_or(targets.layer(target).matrix().0, |rows| rows.end);
        let total = found.iter().map(end).max().unwrap_or_default();
        let strength = self.strength as f32;
        let mut shares = Vec::new();
        for target in found {
            let layer = targets.layer(target);
            let share = Share::new(adapter, layer, target, total);
            let parts = share.delta(strength, self.dora).and_then(|delta| Ok((delta, share.bias(strength)?)));
            match parts {
                Ok((delta, bias)) => shares.push((target.layer, delta, bias)),
                Err(Misfit::Unsupported(what)) => {
                    return file.unsupported.push(Unsupported { key: adapter.key.clone(), what });
                }
                Err(Misfit::Shape { expected, found }) => {
                    let (key, target) = (adapter.key.clone(), layer.path.clone());
                    return file.wrong_shape.push(WrongShape { key, target, expected, found });
                }
            }
        }
        let paths = found.iter().map(|target| targets.layer(target).path.clone()).collect();
        file.applied.push(Applied { key: adapter.key.clone(), kind: adapter.name().into(), targets: paths });
        if strength == 0.0 {
            return;
        }
        for (layer, delta, bias) in shares {
            let patch = self.layers[home].entry(layer).or_default();
            patch.deltas.extend(delta.map(|delta| Arc::new(delta) as _));
            patch.bias = match (patch.bias.take(), bias) {
                (Some(sum), Some(bias)) => Some(sum.iter().zip(bias).map(|(sum, value)| sum + value).collect()),
                (one, other) => one.or(other),
            };
        }
    }
}

fn check_strict(file: &FileCoverage, options: &ResolveOptions) -> Result<()> {
    if !options.strict || file.is_complete() {
        return Ok(());
    }
    let first = file.unmatched.first().map(|entry| match &entry.nearest {
        Some(nearest) => format!("`{}` (nearest: `{nearest}`)", entry.key),
        None => format!("`{}`", entry.key),
    });
    let first = first.or_else(|| {
        let entry = file.wrong_shape.first()?;
        Some(format!("`{}`: {} where {} is expected", entry.key, entry.found, entry.expected))
    });
    let first = first.or_else(|| file.unsupported.first().map(|entry| format!("`{}`: {}", entry.key, entry.what)));
    Err(Error::new(ErrorKind::InvalidInput, format!("the LoRA `{}` does not fit the model wholly", file.name))
        .expected("every adapter to be applied, as `strict` asks")
        .found(format!("{file}; the first: {}", first.unwrap_or_default()))
        .remedy("use a LoRA made for this model, or do without `strict`"))
}

fn nothing_applies(coverage: &Coverage, targets: &[Targets]) -> Error {
    let model: Vec<_> = targets
        .iter()
        .map(|targets| match targets.kind {
            ModelKind::Denoiser(family) => family.name().to_owned(),
            ModelKind::Text(kind, _) => kind.to_string(),
        })
        .collect();
    let found: Vec<_> = coverage
        .files
        .iter()
        .map(|file| match &file.made_for {
            Some(family) => format!("{file} (it looks made for {family})"),
            None => file.to_string(),
        })
        .collect();
    Error::new(ErrorKind::InvalidInput, "nothing of the LoRA stack applies to this model")
        .expected(format!("adapters for a {}", model.join(" or ")))
        .found(found.join("; "))
        .remedy("use a LoRA made for this model; the coverage report lists every name")
}
