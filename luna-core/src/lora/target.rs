//! The layers of a model by every name that LoRA files call them. Enters: a frozen model's layers. Leaves: for a name
//! without dialect, the layers that are meant and which rows of the file's tensors are theirs.

use super::name::{Home, LayerName, flattened};
use crate::{
    checkpoint::{
        Family,
        dialect::{self, Part, Stored},
    },
    nn::{FrozenLayer, FrozenWeights},
    text::EncoderKind,
    vlm::VlmFamily,
};
use std::{collections::HashMap, ops::Range, sync::Arc};

/// What a model is, for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModelKind {
    Denoiser(Family),
    /// A text encoder; whether no CLIP-L stands beside it.
    Text(EncoderKind, bool),
    VisionLanguage(VlmFamily),
}

/// A layer that a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Its number.
    pub(super) layer: usize,
    /// Which rows of the named matrix are its outputs; all if there is none.
    pub(super) rows: Option<Range<usize>>,
}

/// All names of a model's layers.
pub(super) struct Targets<'a> {
    pub(super) kind: ModelKind,
    frozen: &'a FrozenWeights,
    names: HashMap<String, Vec<Target>>,
}

impl<'a> Targets<'a> {
    pub(super) fn new(kind: ModelKind, frozen: &'a FrozenWeights) -> Self {
        let mut targets = Self { kind, frozen, names: HashMap::new() };
        let others = other_names(kind, frozen);
        for layer in frozen.layers() {
            targets.add(&layer.path, Target { layer: layer.index, rows: None });
            for stored in others(&format!("{}.weight", layer.path)) {
                let name = stored.name.strip_suffix(".weight").or(stored.name.strip_suffix(".scale"));
                let outputs = layer.matrix().0;
                let rows = match stored.part {
                    Part::Whole | Part::Transposed | Part::Frames(_) | Part::Pairs { .. } => None,
                    Part::Rows { index, .. } => Some(index * outputs..(index + 1) * outputs),
                    Part::RowsFrom(first) => Some(first..first + outputs),
                };
                targets.add(name.unwrap_or(&stored.name), Target { layer: layer.index, rows });
            }
        }
        targets
    }

    fn add(&mut self, name: &str, target: Target) {
        // diffusers' processors hold the projection itself where its modules hold a list.
        if let Some(short) = name.strip_suffix(".to_out.0") {
            self.insert(flattened(&format!("{short}.to_out")), target.clone());
        }
        self.insert(flattened(name), target);
    }

    fn insert(&mut self, name: String, target: Target) {
        let known = self.names.entry(name).or_default();
        if !known.contains(&target) {
            known.push(target);
        }
    }

    /// Whether a name is for this model.
    pub(super) fn is_home(&self, name: &LayerName) -> bool {
        match self.kind {
            ModelKind::Denoiser(_) => matches!(name.home, Home::Denoiser | Home::Unknown),
            ModelKind::Text(kind, alone) => name.home.is_text(kind, alone),
            // No dialect has a name for its component.
            ModelKind::VisionLanguage(_) => name.home == Home::Unknown,
        }
    }

    /// The layers that a name means; none if there are none.
    pub(super) fn find(&self, name: &LayerName) -> &[Target] {
        // Language models are often named without their first segment, or with it.
        let found = self.names.get(&name.flat).or_else(|| self.names.get(name.flat.strip_prefix("model_")?));
        found.map_or(&[], Vec::as_slice)
    }

    pub(super) fn layer(&self, target: &Target) -> &'a Arc<FrozenLayer> {
        &self.frozen.layers()[target.layer]
    }

    pub(super) fn frozen(&self) -> &'a FrozenWeights {
        self.frozen
    }

    /// The name that shares most of its beginning and end with another.
    pub(super) fn nearest(&self, name: &str) -> Option<&str> {
        let same = |(a, b): &(char, char)| a == b;
        let shared = |other: &str| {
            let start = name.chars().zip(other.chars()).take_while(same).count();
            let end = name.chars().rev().zip(other.chars().rev()).take_while(same).count();
            (start + end).min(name.len().min(other.len()))
        };
        let nearest = self.names.keys().max_by_key(|other| {
            (shared(other), std::cmp::Reverse(other.len().abs_diff(name.len())), std::cmp::Reverse(other.as_str()))
        })?;
        (shared(nearest) * 3 >= name.len()).then_some(nearest)
    }
}

/// See [`other_names`].
type OtherNames = Box<dyn Fn(&str) -> Vec<Stored>>;

/// From a canonical tensor name to what other dialects call it.
fn other_names(kind: ModelKind, frozen: &FrozenWeights) -> OtherNames {
    match kind {
        ModelKind::Denoiser(Family::SdUnet) => {
            let ldm = dialect::sd_unet_ldm(frozen.layers().iter().map(|layer| &*layer.path));
            Box::new(move |canonical| vec![ldm(canonical).into()])
        }
        ModelKind::Denoiser(Family::Flux) => {
            let embedder = frozen.layers().iter().find(|layer| layer.path == "x_embedder");
            let hidden = embedder.map_or(0, |layer| layer.matrix().0);
            Box::new(move |canonical| dialect::flux_names(canonical, hidden).into())
        }
        ModelKind::Denoiser(Family::ZImage) => Box::new(|canonical| vec![dialect::z_image_single_file_name(canonical)]),
        ModelKind::VisionLanguage(family) => {
            Box::new(move |canonical| dialect::vlm_names(canonical, family == VlmFamily::Llava))
        }
        ModelKind::Text(kind, _) if kind.is_clip() => Box::new(|canonical| vec![dialect::open_clip_name(canonical)]),
        _ => Box::new(|_| Vec::new()),
    }
}
