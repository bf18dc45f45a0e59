//! How many floating-point operations a VAE is, read off the names and shapes of its weights. Counts what dominates:
//! convolutions and projections (twice their weights for each pixel they are applied to) and attention.

use crate::args::Direction;
use luna_core::checkpoint::{Checkpoint, Component, Dialect, Family};

/// The weights of a VAE by the size of the picture they are applied to.
pub struct Work {
    parts: Vec<Part>,
    factor: u64,
    parameters: u64,
}

/// One weight matrix or convolution.
struct Part {
    direction: Direction,
    /// Multiplications for each pixel.
    weights: u64,
    /// The pixels' side is the latent's times 2 to this power.
    level: u32,
    /// Channels of the attention that this output projection ends.
    attention: Option<u64>,
}

impl Work {
    /// Reads the names and shapes of `component`.
    pub fn of(checkpoint: &Checkpoint, component: &Component, factor: usize) -> Self {
        let levels = factor.ilog2();
        let names: Vec<_> = checkpoint
            .tensors()
            .filter_map(|tensor| Some((tensor.name.strip_prefix(component.prefix.as_str())?, tensor.shape)))
            .collect();
        let biases: Vec<&str> = names.iter().filter_map(|(name, _)| name.strip_suffix(".bias")).collect();
        let parts = names
            .iter()
            .filter_map(|&(name, shape)| {
                let path = name.strip_suffix(".weight").filter(|_| shape.len() >= 2)?;
                let direction = match path.split('.').next()? {
                    "encoder" | "quant_conv" => Direction::Encode,
                    "decoder" | "post_quant_conv" => Direction::Decode,
                    _ => return None,
                };
                let level = if component.family == Family::Taesd {
                    let resamplings = |at: usize| bare_convolutions(&names, &biases, path, at);
                    let passed = resamplings(layer(path)?) as u32;
                    if direction == Direction::Decode { passed } else { levels.saturating_sub(passed) }
                } else {
                    kl_level(path, component.dialect, levels)
                };
                let attention = path.contains("attentions.0.to_out") || path.ends_with("attn_1.proj_out");
                Some(Part {
                    direction,
                    weights: shape.iter().product::<usize>() as u64,
                    level,
                    attention: attention.then(|| shape[0] as u64),
                })
            })
            .collect();
        Self { parts, factor: factor as u64, parameters: component.parameters }
    }

    /// Parameters of the component.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Operations for a latent of `height`×`width`, in one piece.
    pub fn operations(&self, direction: Direction, height: u64, width: u64) -> u64 {
        debug_assert!(self.factor > 0);
        let parts = self.parts.iter().filter(|part| part.direction == direction);
        parts
            .map(|part| {
                let pixels = (height << part.level) * (width << part.level);
                // Scores and sums over values: pixels² · channels multiplications each.
                2 * part.weights * pixels + part.attention.map_or(0, |channels| 4 * pixels * pixels * channels)
            })
            .sum()
    }
}

/// The level of a layer of an AutoencoderKL: 0 is the latent's, `finest` the picture's.
fn kl_level(path: &str, dialect: Dialect, finest: u32) -> u32 {
    let index = |after: &str| -> Option<u32> { path.split(after).nth(1)?.split('.').next()?.parse().ok() };
    let resampler = u32::from(path.contains("sample"));
    let (down, up) = match dialect {
        Dialect::Ldm => (index(".down."), index(".up.").map(|level| finest.saturating_sub(level))),
        _ => (index(".down_blocks."), index(".up_blocks.")),
    };
    match (down, up) {
        (Some(level), _) => finest.saturating_sub(level + resampler),
        (_, Some(level)) => level + resampler,
        _ if path == "encoder.conv_in" || path == "decoder.conv_out" => finest,
        _ => 0,
    }
}

/// The layer's number in a TAESD.
fn layer(path: &str) -> Option<usize> {
    path.split('.').find_map(|segment| segment.parse().ok())
}

/// Convolutions without a bias up to layer `at` of the half that `path` is in: a TAESD has one after each change of
/// resolution.
fn bare_convolutions(names: &[(&str, &[usize])], biases: &[&str], path: &str, at: usize) -> usize {
    let half = path.split('.').next();
    names
        .iter()
        .filter_map(|(name, shape)| name.strip_suffix(".weight").filter(|_| shape.len() == 4))
        .filter(|other| other.split('.').next() == half && !biases.contains(other) && !other.contains("skip"))
        .filter(|other| layer(other).is_some_and(|layer| layer <= at))
        .count()
}

#[cfg(test)]
mod tests {
    use super::{super::shapes, *};
    use crate::args::ShapeArg;
    use luna_core::{Limits, checkpoint::ComponentKind};

    fn work(shape: ShapeArg) -> Work {
        let tensors: Vec<_> = shapes::tensors(shape);
        let checkpoint = Checkpoint::from_bytes("x", shapes::random_file(&tensors), &Limits::default()).unwrap();
        let found = checkpoint.recognise();
        Work::of(&checkpoint, found.component(ComponentKind::Vae).unwrap(), 8)
    }

    /// Counted by torch's FlopCounterMode over diffusers' models.
    #[test]
    fn operations_are_those_that_torch_counts() {
        let sdxl = work(ShapeArg::Sdxl);
        for (direction, expected) in [(Direction::Decode, 622_187_282_432), (Direction::Encode, 272_722_165_760)] {
            assert_eq!(sdxl.operations(direction, 32, 32), expected, "{direction:?}");
        }
        let taesd = work(ShapeArg::Taesd);
        for (direction, expected) in [(Direction::Decode, 35_337_535_488), (Direction::Encode, 30_581_194_752)] {
            assert_eq!(taesd.operations(direction, 32, 32), expected, "{direction:?}");
        }
    }

    #[test]
    fn ldm_levels_count_from_the_finest() {
        for (path, level) in [
            ("decoder.up.3.block.0.conv1", 0),
            ("decoder.up.3.upsample.conv", 1),
            ("decoder.up.0.block.2.conv2", 3),
            ("encoder.down.0.block.0.conv1", 3),
            ("encoder.down.2.downsample.conv", 0),
            ("decoder.mid.block_1.conv1", 0),
        ] {
            assert_eq!(kl_level(path, Dialect::Ldm, 3), level, "{path}");
        }
    }
}
