//! Random models of real shapes. Enters: the name of an architecture. Leaves: the bytes of a file as diffusers would
//! write it. Values are the same on every machine.

use super::text_shapes;
use crate::{
    args::ShapeArg,
    tensor_file::{Tensor, half_bytes, to_bytes},
};
use std::collections::BTreeMap;

/// A tensor's name and shape.
pub type Named = (String, Vec<usize>);

/// How people call it.
pub fn name(shape: ShapeArg) -> &'static str {
    match shape {
        ShapeArg::Sdxl => "SDXL",
        ShapeArg::Sd15 => "SD1.5",
        ShapeArg::Flux => "Flux",
        ShapeArg::Taesd => "TAESD",
        ShapeArg::ClipL => "CLIP-L",
        ShapeArg::ClipG => "CLIP-G",
    }
}

/// Names and shapes of its VAE's tensors, or of what it has instead.
pub fn tensors(shape: ShapeArg) -> Vec<Named> {
    match shape {
        ShapeArg::Sdxl | ShapeArg::Sd15 => KlShape { latent: 4, quant: true }.tensors(),
        ShapeArg::Flux => KlShape { latent: 16, quant: false }.tensors(),
        ShapeArg::Taesd => taesd(4),
        ShapeArg::ClipL | ShapeArg::ClipG => text_shapes::tensors(shape).unwrap_or_default(),
    }
}

/// The AutoencoderKL of Stable Diffusion and Flux, which differ in no more than this.
struct KlShape {
    latent: usize,
    quant: bool,
}

const CHANNELS: [usize; 4] = [128, 256, 512, 512];
const BLOCKS: usize = 2;

impl KlShape {
    fn tensors(&self) -> Vec<Named> {
        let mut list = List(Vec::new());
        let [fine, .., coarse] = CHANNELS;
        list.conv("encoder.conv_in", 3, fine, 3);
        let mut width = fine;
        for (level, out) in CHANNELS.into_iter().enumerate() {
            for block in 0..BLOCKS {
                list.resnet(&format!("encoder.down_blocks.{level}.resnets.{block}"), width, out);
                width = out;
            }
            if level + 1 < CHANNELS.len() {
                list.conv(&format!("encoder.down_blocks.{level}.downsamplers.0.conv"), out, out, 3);
            }
        }
        list.middle("encoder.mid_block", coarse);
        list.norm("encoder.conv_norm_out", coarse);
        list.conv("encoder.conv_out", coarse, 2 * self.latent, 3);
        if self.quant {
            list.conv("quant_conv", 2 * self.latent, 2 * self.latent, 1);
            list.conv("post_quant_conv", self.latent, self.latent, 1);
        }
        list.conv("decoder.conv_in", self.latent, coarse, 3);
        list.middle("decoder.mid_block", coarse);
        for (level, out) in CHANNELS.into_iter().rev().enumerate() {
            for block in 0..=BLOCKS {
                list.resnet(&format!("decoder.up_blocks.{level}.resnets.{block}"), width, out);
                width = out;
            }
            if level + 1 < CHANNELS.len() {
                list.conv(&format!("decoder.up_blocks.{level}.upsamplers.0.conv"), out, out, 3);
            }
        }
        list.norm("decoder.conv_norm_out", fine);
        list.conv("decoder.conv_out", fine, 3, 3);
        list.0
    }
}

/// The tiny autoencoder: blocks of three 3×3 convolutions of 64 channels.
fn taesd(latent: usize) -> Vec<Named> {
    const WIDTH: usize = 64;
    let mut list = List(Vec::new());
    list.conv("encoder.layers.0", 3, WIDTH, 3);
    list.tiny_block("encoder.layers.1", WIDTH);
    for start in [2, 6, 10] {
        list.weight(&format!("encoder.layers.{start}"), WIDTH, WIDTH, 3);
        (1..=3).for_each(|block| list.tiny_block(&format!("encoder.layers.{}", start + block), WIDTH));
    }
    list.conv("encoder.layers.14", WIDTH, latent, 3);
    // Layer 1 is a ReLU, 5, 10 and 15 are upsamplings.
    list.conv("decoder.layers.0", latent, WIDTH, 3);
    for start in [2, 7, 12] {
        (0..3).for_each(|block| list.tiny_block(&format!("decoder.layers.{}", start + block), WIDTH));
        list.weight(&format!("decoder.layers.{}", start + 4), WIDTH, WIDTH, 3);
    }
    list.tiny_block("decoder.layers.17", WIDTH);
    list.conv("decoder.layers.18", WIDTH, 3, 3);
    list.0
}

struct List(Vec<Named>);

impl List {
    fn weight(&mut self, name: &str, from: usize, to: usize, kernel: usize) {
        self.0.push((format!("{name}.weight"), vec![to, from, kernel, kernel]));
    }

    fn bias(&mut self, name: &str, width: usize) {
        self.0.push((format!("{name}.bias"), vec![width]));
    }

    fn conv(&mut self, name: &str, from: usize, to: usize, kernel: usize) {
        self.weight(name, from, to, kernel);
        self.bias(name, to);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.0.push((format!("{name}.weight"), vec![width]));
        self.bias(name, width);
    }

    fn resnet(&mut self, name: &str, from: usize, to: usize) {
        self.norm(&format!("{name}.norm1"), from);
        self.conv(&format!("{name}.conv1"), from, to, 3);
        self.norm(&format!("{name}.norm2"), to);
        self.conv(&format!("{name}.conv2"), to, to, 3);
        if from != to {
            self.conv(&format!("{name}.conv_shortcut"), from, to, 1);
        }
    }

    fn middle(&mut self, name: &str, width: usize) {
        self.resnet(&format!("{name}.resnets.0"), width, width);
        self.norm(&format!("{name}.attentions.0.group_norm"), width);
        for projection in ["to_q", "to_k", "to_v", "to_out.0"] {
            let name = format!("{name}.attentions.0.{projection}");
            self.0.push((format!("{name}.weight"), vec![width, width]));
            self.bias(&name, width);
        }
        self.resnet(&format!("{name}.resnets.1"), width, width);
    }

    fn tiny_block(&mut self, name: &str, width: usize) {
        for conv in [0, 2, 4] {
            self.conv(&format!("{name}.conv.{conv}"), width, width, 3);
        }
    }
}

/// A safetensors file with random f32 values: weights that keep the variance, norms near 1, biases near 0.
pub fn random_file(tensors: &[Named]) -> Vec<u8> {
    let values: Vec<_> =
        tensors.iter().enumerate().map(|(seed, (name, shape))| random_parameter(seed, name, shape)).collect();
    let tensors: Vec<_> = tensors
        .iter()
        .zip(&values)
        .map(|((name, shape), values)| Tensor { name: name.clone(), shape: shape.clone(), values })
        .collect();
    to_bytes(&tensors, &BTreeMap::new())
}

/// The same in f16, as checkpoints of this size are stored.
pub fn random_half_file(tensors: &[Named]) -> Vec<u8> {
    half_bytes(tensors, |seed, shape| random_parameter(seed, &tensors[seed].0, shape))
}

fn random_parameter(seed: usize, name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    match shape {
        [_] if name.ends_with(".weight") => vec![1.0; count],
        _ if name.contains("embedding.weight") => random_values(seed as u64, count, 0.02),
        [_] => random_values(seed as u64, count, 0.02),
        [_, inputs @ ..] => {
            let fan_in = inputs.iter().product::<usize>() as f32;
            random_values(seed as u64, count, (3.0 / fan_in).sqrt())
        }
        [] => unreachable!("no tensor of a model is a scalar"),
    }
}

/// Uniform values in −`most`..`most` by SplitMix64.
pub fn random_values(seed: u64, count: usize, most: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..count).map(|_| ((next() >> 40) as f32 / (1 << 23) as f32 - 1.0) * most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(shape: ShapeArg) -> usize {
        tensors(shape).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Counts of the published models.
    #[test]
    fn shapes_have_the_parameters_of_the_real_models() {
        assert_eq!(parameters(ShapeArg::Sdxl), 83_653_863);
        assert_eq!(parameters(ShapeArg::Flux), 83_819_683);
        assert_eq!(parameters(ShapeArg::Taesd), 2_445_063);
    }

    #[test]
    fn random_values_keep_within_their_bound() {
        let values = random_values(7, 10_000, 0.5);
        assert!(values.iter().all(|value| value.abs() <= 0.5));
        assert!(values.iter().sum::<f32>().abs() / 10_000.0 < 0.01);
        assert_ne!(random_values(8, 4, 0.5), values[..4]);
    }
}
