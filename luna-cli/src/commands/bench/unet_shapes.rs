//! Random UNets of real shapes, as diffusers would write them.

use super::shapes::Named;
use crate::args::ShapeArg;

/// What the UNets of SD1.x and SDXL differ in.
struct UnetShape {
    /// Channels of each level.
    channels: &'static [usize],
    /// Transformer blocks at each place of a level.
    depths: &'static [usize],
    context: usize,
    pooled: Option<usize>,
    /// Whether the projections around transformers are linear layers instead of 1×1 convolutions.
    linear: bool,
}

const SD15: UnetShape =
    UnetShape { channels: &[320, 640, 1280, 1280], depths: &[1, 1, 1, 0], context: 768, pooled: None, linear: false };
const SDXL: UnetShape =
    UnetShape { channels: &[320, 640, 1280], depths: &[0, 2, 10], context: 2048, pooled: Some(2816), linear: true };

const BLOCKS: usize = 2;

/// Names and shapes of its tensors; nothing for an architecture without a UNet.
pub fn tensors(shape: ShapeArg) -> Option<Vec<Named>> {
    match shape {
        ShapeArg::Sd15 => Some(SD15.tensors()),
        ShapeArg::Sdxl => Some(SDXL.tensors()),
        ShapeArg::Flux | ShapeArg::Taesd | ShapeArg::ClipL | ShapeArg::ClipG => None,
    }
}

impl UnetShape {
    fn tensors(&self) -> Vec<Named> {
        let (first, last) = (self.channels[0], self.channels[self.channels.len() - 1]);
        let time = 4 * first;
        let mut list = List { named: Vec::new(), shape: self, time };
        list.conv("conv_in", 4, first, 3);
        list.linear("time_embedding.linear_1", first, time);
        list.linear("time_embedding.linear_2", time, time);
        if let Some(pooled) = self.pooled {
            list.linear("add_embedding.linear_1", pooled, time);
            list.linear("add_embedding.linear_2", time, time);
        }
        let mut skips = vec![first];
        let mut width = first;
        for (level, (&out, &depth)) in self.channels.iter().zip(self.depths).enumerate() {
            for block in 0..BLOCKS {
                list.block(&format!("down_blocks.{level}"), block, [width, out], depth);
                width = out;
                skips.push(width);
            }
            if level + 1 < self.channels.len() {
                list.conv(&format!("down_blocks.{level}.downsamplers.0.conv"), out, out, 3);
                skips.push(out);
            }
        }
        list.resnet("mid_block.resnets.0", last, last);
        list.transformer(
            "mid_block.attentions.0",
            last,
            self.depths.iter().copied().rev().find(|d| *d > 0).unwrap_or(1),
        );
        list.resnet("mid_block.resnets.1", last, last);
        for (level, (&out, &depth)) in self.channels.iter().zip(self.depths).rev().enumerate() {
            for block in 0..=BLOCKS {
                let skip = skips.pop().expect("as many as blocks");
                list.block(&format!("up_blocks.{level}"), block, [width + skip, out], depth);
                width = out;
            }
            if level + 1 < self.channels.len() {
                list.conv(&format!("up_blocks.{level}.upsamplers.0.conv"), out, out, 3);
            }
        }
        list.norm("conv_norm_out", first);
        list.conv("conv_out", first, 4, 3);
        list.named
    }
}

struct List<'a> {
    named: Vec<Named>,
    shape: &'a UnetShape,
    time: usize,
}

impl List<'_> {
    fn weight(&mut self, name: &str, shape: &[usize]) {
        self.named.push((format!("{name}.weight"), shape.to_vec()));
    }

    fn bias(&mut self, name: &str, width: usize) {
        self.named.push((format!("{name}.bias"), vec![width]));
    }

    fn conv(&mut self, name: &str, from: usize, to: usize, kernel: usize) {
        self.weight(name, &[to, from, kernel, kernel]);
        self.bias(name, to);
    }

    fn linear(&mut self, name: &str, from: usize, to: usize) {
        self.weight(name, &[to, from]);
        self.bias(name, to);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.weight(name, &[width]);
        self.bias(name, width);
    }

    /// A residual block, and the transformer after it where the level has one.
    fn block(&mut self, level: &str, block: usize, [from, to]: [usize; 2], depth: usize) {
        self.resnet(&format!("{level}.resnets.{block}"), from, to);
        if depth > 0 {
            self.transformer(&format!("{level}.attentions.{block}"), to, depth);
        }
    }

    fn resnet(&mut self, name: &str, from: usize, to: usize) {
        self.norm(&format!("{name}.norm1"), from);
        self.conv(&format!("{name}.conv1"), from, to, 3);
        self.linear(&format!("{name}.time_emb_proj"), self.time, to);
        self.norm(&format!("{name}.norm2"), to);
        self.conv(&format!("{name}.conv2"), to, to, 3);
        if from != to {
            self.conv(&format!("{name}.conv_shortcut"), from, to, 1);
        }
    }

    fn transformer(&mut self, name: &str, width: usize, depth: usize) {
        self.norm(&format!("{name}.norm"), width);
        for projection in ["proj_in", "proj_out"] {
            let projection = format!("{name}.{projection}");
            if self.shape.linear {
                self.linear(&projection, width, width)
            } else {
                self.conv(&projection, width, width, 1)
            }
        }
        for block in 0..depth {
            let name = format!("{name}.transformer_blocks.{block}");
            (1..=3).for_each(|norm| self.norm(&format!("{name}.norm{norm}"), width));
            for (attention, source) in [("attn1", width), ("attn2", self.shape.context)] {
                self.weight(&format!("{name}.{attention}.to_q"), &[width, width]);
                self.weight(&format!("{name}.{attention}.to_k"), &[width, source]);
                self.weight(&format!("{name}.{attention}.to_v"), &[width, source]);
                self.linear(&format!("{name}.{attention}.to_out.0"), width, width);
            }
            self.linear(&format!("{name}.ff.net.0.proj"), width, 8 * width);
            self.linear(&format!("{name}.ff.net.2"), 4 * width, width);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of the published models.
    #[test]
    fn shapes_have_the_parameters_of_the_real_models() {
        let parameters =
            |shape| -> usize { tensors(shape).unwrap().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum() };
        assert_eq!(parameters(ShapeArg::Sd15), 859_520_964);
        assert_eq!(parameters(ShapeArg::Sdxl), 2_567_463_684);
        assert!(tensors(ShapeArg::Taesd).is_none());
    }
}
