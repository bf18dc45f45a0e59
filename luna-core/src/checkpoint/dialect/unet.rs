//! Names of Stable Diffusion UNets. ldm counts blocks through all levels, and a block's layers by their position;
//! diffusers counts levels, then blocks, and names the layers.

use crate::checkpoint::{Checkpoint, Component, Dialect};
use std::collections::BTreeSet;

/// Canonical → stored names of a UNet.
pub(crate) fn sd_unet(checkpoint: &Checkpoint, component: &Component) -> impl Fn(&str) -> String + 'static {
    let prefix = component.prefix.clone();
    let has = |name: &str| checkpoint.shape(&format!("{prefix}{name}")).is_some();
    let layout = (component.dialect == Dialect::Ldm).then(|| Layout::read(has));
    move |canonical| match &layout {
        Some(layout) => format!("{prefix}{}", layout.name(canonical)),
        None => format!("{prefix}{canonical}"),
    }
}

/// Canonical → ldm names of a UNet with these canonical layer paths, whatever names its file bears.
pub(crate) fn sd_unet_ldm<'a>(paths: impl Iterator<Item = &'a str>) -> impl Fn(&str) -> String + 'static {
    let layout = Layout::of_paths(&paths.collect());
    move |canonical| layout.name(canonical)
}

/// Which of ldm's numbered blocks make up each level.
#[derive(Default)]
struct Layout {
    down: Vec<Level>,
    up: Vec<Level>,
}

/// One level's residual blocks by their ldm numbers, and the layer that changes the size after them.
#[derive(Default)]
struct Level {
    blocks: Vec<usize>,
    resample: Option<String>,
}

impl Layout {
    fn read(has: impl Fn(&str) -> bool) -> Self {
        let mut layout = Self { down: vec![Level::default()], up: vec![Level::default()] };
        for block in 1.. {
            let level = layout.down.last_mut().expect("starts with one");
            if has(&format!("input_blocks.{block}.0.in_layers.0.weight")) {
                level.blocks.push(block);
            } else if has(&format!("input_blocks.{block}.0.op.weight")) {
                level.resample = Some(format!("input_blocks.{block}.0.op"));
                layout.down.push(Level::default());
            } else {
                break;
            }
        }
        for block in (0..).take_while(|block| has(&format!("output_blocks.{block}.0.in_layers.0.weight"))) {
            let level = layout.up.last_mut().expect("starts with one");
            level.blocks.push(block);
            // The doubling stands after the transformer, where there is one.
            let resample = [1, 2].map(|place| format!("output_blocks.{block}.{place}.conv"));
            if let Some(name) = resample.into_iter().find(|name| has(&format!("{name}.weight"))) {
                level.resample = Some(name);
                layout.up.push(Level::default());
            }
        }
        layout
    }

    /// The numbers that ldm gives to the blocks of a UNet with these canonical layer paths.
    fn of_paths(paths: &BTreeSet<&str>) -> Self {
        let has = |path: String| paths.contains(&*path);
        let levels = |side: &str| (0..).take_while(|level| has(format!("{side}.{level}.resnets.0.conv1"))).count();
        let count = |place: &str| (0..).take_while(|index| has(format!("{place}.resnets.{index}.conv1"))).count();
        let (mut down, mut up) = (Vec::new(), Vec::new());
        let mut block = 1;
        for level in 0..levels("down_blocks") {
            let place = format!("down_blocks.{level}");
            let blocks: Vec<_> = (block..block + count(&place)).collect();
            block += blocks.len();
            let resample = has(format!("{place}.downsamplers.0.conv")).then(|| format!("input_blocks.{block}.0.op"));
            block += usize::from(resample.is_some());
            down.push(Level { blocks, resample });
        }
        block = 0;
        for level in 0..levels("up_blocks") {
            let place = format!("up_blocks.{level}");
            let blocks: Vec<_> = (block..block + count(&place)).collect();
            block += blocks.len();
            // The doubling stands after the transformer, where there is one.
            let after = 1 + usize::from(has(format!("{place}.attentions.0.proj_in")));
            let name = || format!("output_blocks.{}.{after}.conv", block - 1);
            up.push(Level { blocks, resample: has(format!("{place}.upsamplers.0.conv")).then(name) });
        }
        Self { down, up }
    }

    /// The ldm name. What ldm has no name for keeps its own, which no ldm file holds.
    fn name(&self, canonical: &str) -> String {
        let parts: Vec<_> = canonical.split('.').collect();
        let number = |place: usize| parts.get(place).and_then(|part| part.parse::<usize>().ok());
        let rest = |from: usize| parts[from.min(parts.len())..].join(".");
        let levels = match parts[0] {
            "down_blocks" => &self.down,
            "up_blocks" => &self.up,
            "mid_block" => return middle(&parts).unwrap_or_else(|| canonical.to_owned()),
            _ => return outer(canonical),
        };
        let found = number(1).and_then(|level| levels.get(level)).zip(parts.get(2)).and_then(|(level, &kind)| {
            let side = if parts[0] == "down_blocks" { "input_blocks" } else { "output_blocks" };
            let block = || number(3).and_then(|index| level.blocks.get(index));
            match kind {
                "resnets" => Some(format!("{side}.{}.0.{}", block()?, resnet(&rest(4)))),
                "attentions" => Some(format!("{side}.{}.1.{}", block()?, rest(4))),
                // `downsamplers.0.conv.weight`: ldm has no name for the segment `conv`.
                _ => Some(format!("{}.{}", level.resample.as_ref()?, rest(5))),
            }
        });
        found.unwrap_or_else(|| canonical.to_owned())
    }
}

/// `mid_block.resnets.0`, `mid_block.attentions.0`, `mid_block.resnets.1` stand in this order.
fn middle(parts: &[&str]) -> Option<String> {
    let (kind, index, rest) = (parts.get(1)?, parts.get(2)?, parts.get(3..)?.join("."));
    match (*kind, *index) {
        ("resnets", "0") => Some(format!("middle_block.0.{}", resnet(&rest))),
        ("attentions", "0") => Some(format!("middle_block.1.{rest}")),
        ("resnets", "1") => Some(format!("middle_block.2.{}", resnet(&rest))),
        _ => None,
    }
}

fn resnet(name: &str) -> String {
    renamed(
        name,
        &[
            ("norm1", "in_layers.0"),
            ("conv1", "in_layers.2"),
            ("time_emb_proj", "emb_layers.1"),
            ("norm2", "out_layers.0"),
            ("conv2", "out_layers.3"),
            ("conv_shortcut", "skip_connection"),
        ],
    )
}

/// What stands outside the levels.
fn outer(name: &str) -> String {
    renamed(
        name,
        &[
            ("time_embedding.linear_1", "time_embed.0"),
            ("time_embedding.linear_2", "time_embed.2"),
            ("add_embedding.linear_1", "label_emb.0.0"),
            ("add_embedding.linear_2", "label_emb.0.2"),
            ("conv_in", "input_blocks.0.0"),
            ("conv_norm_out", "out.0"),
            ("conv_out", "out.2"),
        ],
    )
}

/// Replaces the part before the last dot.
pub(super) fn renamed(name: &str, pairs: &[(&str, &str)]) -> String {
    let (layer, tensor) = name.rsplit_once('.').unwrap_or((name, ""));
    match pairs.iter().find(|(canonical, _)| *canonical == layer) {
        Some((_, stored)) => format!("{stored}.{tensor}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As SD1.5: four levels, two blocks down and three up, transformers in all but the coarsest.
    fn layout() -> Layout {
        Layout::read(|name| {
            let parts: Vec<_> = name.split('.').collect();
            let block: usize = parts[1].parse().unwrap();
            match (parts[0], parts[2], parts[3]) {
                ("input_blocks", "0", "op") => [3, 6, 9].contains(&block),
                ("input_blocks", "0", _) => block < 12 && !block.is_multiple_of(3),
                ("output_blocks", "0", _) => block < 12,
                ("output_blocks", "1", "conv") => block == 2,
                ("output_blocks", "2", "conv") => [5, 8].contains(&block),
                _ => false,
            }
        })
    }

    #[test]
    fn ldm_names_follow_the_numbered_blocks() {
        for (canonical, stored) in [
            ("down_blocks.0.resnets.1.conv1.weight", "input_blocks.2.0.in_layers.2.weight"),
            ("down_blocks.3.resnets.0.time_emb_proj.bias", "input_blocks.10.0.emb_layers.1.bias"),
            ("down_blocks.1.attentions.0.proj_in.weight", "input_blocks.4.1.proj_in.weight"),
            ("down_blocks.0.downsamplers.0.conv.weight", "input_blocks.3.0.op.weight"),
            ("mid_block.resnets.1.norm2.bias", "middle_block.2.out_layers.0.bias"),
            (
                "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.weight",
                "middle_block.1.transformer_blocks.0.attn2.to_out.0.weight",
            ),
            ("up_blocks.0.resnets.2.conv_shortcut.weight", "output_blocks.2.0.skip_connection.weight"),
            ("up_blocks.0.upsamplers.0.conv.bias", "output_blocks.2.1.conv.bias"),
            ("up_blocks.1.upsamplers.0.conv.bias", "output_blocks.5.2.conv.bias"),
            ("up_blocks.3.attentions.2.norm.weight", "output_blocks.11.1.norm.weight"),
            ("add_embedding.linear_2.weight", "label_emb.0.2.weight"),
            ("conv_norm_out.bias", "out.0.bias"),
            ("down_blocks.4.resnets.0.conv1.weight", "down_blocks.4.resnets.0.conv1.weight"),
            ("up_blocks.3.upsamplers.0.conv.weight", "up_blocks.3.upsamplers.0.conv.weight"),
        ] {
            assert_eq!(layout().name(canonical), stored);
        }
    }

    /// The numbers can be told from canonical paths, too.
    #[test]
    fn canonical_paths_give_the_same_numbers() {
        let mut paths = BTreeSet::new();
        for (side, resnets, resample) in [("down_blocks", 2, "downsamplers"), ("up_blocks", 3, "upsamplers")] {
            for level in 0..4 {
                let coarsest = if side == "down_blocks" { 3 } else { 0 };
                for index in 0..resnets {
                    paths.insert(format!("{side}.{level}.resnets.{index}.conv1"));
                    if level != coarsest {
                        paths.insert(format!("{side}.{level}.attentions.{index}.proj_in"));
                    }
                }
                if level != 3 {
                    paths.insert(format!("{side}.{level}.{resample}.0.conv"));
                }
            }
        }
        let (read, told) = (layout(), Layout::of_paths(&paths.iter().map(String::as_str).collect()));
        let names =
            |layout: &Layout| paths.iter().map(|path| layout.name(&format!("{path}.weight"))).collect::<Vec<_>>();
        assert_eq!(names(&read), names(&told));
        assert!(names(&told).iter().all(|name| name.starts_with("input_blocks") || name.starts_with("output_blocks")));
    }
}
