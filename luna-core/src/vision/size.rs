//! The sizes of a vision encoder. Enters: shapes of weights and, where there is one, `config.json`. Leaves: sizes that
//! both agree on.

use super::{VisionActivation, VisionKind};
use crate::{Error, ErrorKind, Result, nn::Weights};
use serde_json::Value;

/// All that the layers are built from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Size {
    pub(crate) kind: VisionKind,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) layers: usize,
    /// Side of a patch, in pixels.
    pub(crate) patch: usize,
    /// Patches along a side of a picture.
    pub(crate) grid: usize,
    /// Side of the pictures it takes, in pixels: what is left of the last whole patch counts nothing.
    pub(crate) side: usize,
    pub(crate) eps: f32,
    pub(crate) activation: VisionActivation,
}

impl Size {
    /// Reads the sizes off the weights and compares them with what `config.json` states.
    pub(crate) fn of(weights: &Weights, config: Option<&Value>, activation: Option<VisionActivation>) -> Result<Self> {
        let [width, patch] = patch_kernel(weights)?;
        let has_class = weights.has("embeddings.class_embedding");
        let kind = if has_class { VisionKind::Clip } else { VisionKind::Siglip };
        let positions = weights.shape("embeddings.position_embedding.weight")?[0];
        let grid = grid(positions - usize::from(has_class && positions > 0))?;
        let layers = weights.at("encoder.layers").count("layer_norm1.weight");
        let stated = Stated(
            config.map(|config| if config["vision_config"].is_object() { &config["vision_config"] } else { config }),
        );
        for (name, found) in [("hidden_size", width), ("patch_size", patch), ("num_hidden_layers", layers)] {
            stated.check(name, found)?;
        }
        let side = match stated.number("image_size")? {
            Some(side) if side / patch == grid => side,
            Some(side) => return Err(disagreement("image_size", side, grid * patch)),
            None => usual_side(kind, grid, patch),
        };
        if layers < 2 {
            return Err(Error::new(ErrorKind::InvalidFile, "this vision encoder has too few layers")
                .expected("at least 2, numbered from 0")
                .found(layers.to_string()));
        }
        let heads = stated.number("num_attention_heads")?.unwrap_or_else(|| usual_heads(width));
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(Error::new(
                ErrorKind::InvalidFile,
                "the width of this vision encoder is no multiple of its heads",
            )
            .expected(format!("a multiple of {heads}"))
            .found(width.to_string())
            .remedy("put the config.json of the model beside its weights"));
        }
        let activation = match activation {
            Some(activation) => activation,
            None => stated.activation()?.unwrap_or(usual_activation(kind, width)),
        };
        let usual_eps = if kind == VisionKind::Clip { 1e-5 } else { 1e-6 };
        let eps = stated.0.and_then(|config| config["layer_norm_eps"].as_f64()).map_or(usual_eps, |eps| eps as f32);
        Ok(Self { kind, width, heads, layers, patch, grid, side, eps, activation })
    }

    /// Tokens of a picture.
    pub(crate) fn tokens(&self) -> usize {
        self.grid * self.grid + usize::from(self.kind == VisionKind::Clip)
    }
}

/// Width and side of `[width, 3, side, side]`.
fn patch_kernel(weights: &Weights) -> Result<[usize; 2]> {
    let name = "embeddings.patch_embedding.weight";
    match *weights.shape(name)? {
        [width, 3, height, side] if height == side && side > 0 && width > 0 => Ok([width, side]),
        [_, _] => Err(Error::new(ErrorKind::Unsupported, "this is a SigLIP2 of variable resolution (naflex)")
            .expected("a SigLIP2 of fixed resolution")
            .remedy("use one whose name ends in its resolution, such as siglip2-base-patch16-224")),
        ref shape => Err(Error::new(ErrorKind::InvalidFile, format!("`{name}` has a wrong shape"))
            .expected("[width, 3, side, side]")
            .found(format!("{shape:?}"))),
    }
}

/// The side of a square of this many patches.
fn grid(patches: usize) -> Result<usize> {
    let side = patches.isqrt();
    if side > 0 && side * side == patches {
        return Ok(side);
    }
    Err(Error::new(ErrorKind::InvalidFile, "the position embeddings are of no square picture")
        .expected("a square number of patches")
        .found(patches.to_string()))
}

/// Side of the pictures, where nothing states it.
fn usual_side(kind: VisionKind, grid: usize, patch: usize) -> usize {
    match (kind, grid, patch) {
        // SigLIP so400m at 384 pixels, of which its patches of 14 leave 6.
        (VisionKind::Siglip, 27, 14) => 384,
        _ => grid * patch,
    }
}

/// Heads of the known encoders, where nothing states them: 64 wide but for the largest.
fn usual_heads(width: usize) -> usize {
    match width {
        // SigLIP so400m, CLIP H and g, bigG, SigLIP2 giant.
        1152 | 1280 | 1408 | 1664 | 1536 => 16,
        width => width / 64,
    }
}

/// What an encoder of its kind and size was trained with, where nothing states it.
fn usual_activation(kind: VisionKind, width: usize) -> VisionActivation {
    match (kind, width) {
        (VisionKind::Siglip, _) => VisionActivation::GeluTanh,
        (VisionKind::Clip, 1280..) => VisionActivation::Gelu,
        (VisionKind::Clip, _) => VisionActivation::QuickGelu,
    }
}

fn disagreement(name: &str, stated: usize, found: usize) -> Error {
    Error::new(ErrorKind::InvalidFile, format!("config.json and the weights disagree on `{name}`"))
        .expected(format!("{stated}, as config.json states"))
        .found(format!("{found} in the weights"))
        .remedy("put the config.json of this very model beside its weights")
}

/// What `config.json` states, where there is one.
struct Stated<'a>(Option<&'a Value>);

impl Stated<'_> {
    fn number(&self, name: &str) -> Result<Option<usize>> {
        match self.0.map(|config| &config[name]) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().filter(|&number| number < 1 << 20) {
                Some(number) => Ok(Some(number as usize)),
                None => Err(Error::new(ErrorKind::InvalidFile, format!("config.json states a wrong `{name}`"))
                    .expected("a whole number")
                    .found(value.to_string())),
            },
        }
    }

    fn check(&self, name: &str, found: usize) -> Result<()> {
        match self.number(name)? {
            Some(stated) if stated != found => Err(disagreement(name, stated, found)),
            _ => Ok(()),
        }
    }

    fn activation(&self) -> Result<Option<VisionActivation>> {
        let Some(name) = self.0.and_then(|config| config["hidden_act"].as_str()) else { return Ok(None) };
        VisionActivation::named(name).map(Some).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "config.json names an activation that no such encoder is known to have")
                .expected("quick_gelu, gelu or gelu_pytorch_tanh")
                .found(name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{VisionKind, usual_side};

    /// google/siglip-so400m-patch14-384 and openai/clip-vit-large-patch14 have patches of one size; only the first
    /// takes pictures that they do not divide.
    #[test]
    fn where_nothing_states_it_only_siglip_so400m_leaves_pixels_over() {
        assert_eq!(usual_side(VisionKind::Siglip, 27, 14), 384);
        assert_eq!(usual_side(VisionKind::Clip, 27, 14), 378);
        assert_eq!(usual_side(VisionKind::Siglip, 16, 14), 224);
        assert_eq!(usual_side(VisionKind::Clip, 24, 14), 336);
    }
}
