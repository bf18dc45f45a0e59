//! Names of VAEs: ldm and diffusers for AutoencoderKL, diffusers and its own for TAESD.

use crate::checkpoint::{Checkpoint, Component, Dialect};

/// Canonical → stored names of an AutoencoderKL.
pub(crate) fn kl_vae(checkpoint: &Checkpoint, component: &Component) -> impl Fn(&str) -> String + 'static {
    let prefix = component.prefix.clone();
    let has = |name: &str| checkpoint.shape(&format!("{prefix}{name}")).is_some();
    let ldm = component.dialect == Dialect::Ldm;
    let levels = (0..).take_while(|level| has(&format!("decoder.up.{level}.block.0.conv1.weight"))).count();
    // Before 2023 diffusers called the projections of the mid-block attention by other names.
    let old = ["encoder", "decoder"].iter().any(|half| has(&format!("{half}.mid_block.attentions.0.query.weight")));
    move |canonical| {
        let stored = match (ldm, old) {
            (true, _) => ldm_name(canonical, levels),
            (false, true) => old_diffusers_name(canonical),
            (false, false) => canonical.to_owned(),
        };
        format!("{prefix}{stored}")
    }
}

fn ldm_name(canonical: &str, levels: usize) -> String {
    let mut out = Vec::new();
    let mut segments = canonical.split('.');
    while let Some(segment) = segments.next() {
        let mut index = || segments.next().and_then(|index| index.parse::<usize>().ok()).unwrap_or_default();
        let renamed = match segment {
            "down_blocks" => format!("down.{}", index()),
            // ldm counts up-sampling levels from the finest. A level past the coarsest has no name there.
            "up_blocks" => match levels.checked_sub(index() + 1) {
                Some(level) => format!("up.{level}"),
                None => "up.none".into(),
            },
            "resnets" if out.last().is_some_and(|last| last == "mid") => format!("block_{}", index() + 1),
            "resnets" => format!("block.{}", index()),
            "downsamplers" => {
                index();
                "downsample".into()
            }
            "upsamplers" => {
                index();
                "upsample".into()
            }
            "attentions" => format!("attn_{}", index() + 1),
            "to_out" => {
                index();
                "proj_out".into()
            }
            "mid_block" => "mid".into(),
            "conv_shortcut" => "nin_shortcut".into(),
            "conv_norm_out" => "norm_out".into(),
            "group_norm" => "norm".into(),
            "to_q" => "q".into(),
            "to_k" => "k".into(),
            "to_v" => "v".into(),
            other => other.to_owned(),
        };
        out.push(renamed);
    }
    out.join(".")
}

fn old_diffusers_name(canonical: &str) -> String {
    let pairs = [(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")];
    pairs.iter().fold(canonical.to_owned(), |name, (new, old)| name.replace(new, old))
}

/// Canonical → stored names of a TAESD. Its own files count the clamp at the start of the decoder as layer 0.
pub(crate) fn taesd(component: &Component) -> impl Fn(&str) -> String + 'static {
    let (prefix, own) = (component.prefix.clone(), component.dialect == Dialect::Taesd);
    move |canonical| {
        let stored = match canonical.split_once(".layers.") {
            Some((half, rest)) if own => {
                let (index, rest) = rest.split_once('.').unwrap_or((rest, ""));
                let index = index.parse::<usize>().unwrap_or_default() + usize::from(half == "decoder");
                format!("{half}.{index}.{rest}")
            }
            _ => canonical.to_owned(),
        };
        format!("{prefix}{stored}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldm_names_follow_the_layout_of_single_file_checkpoints() {
        for (canonical, stored) in [
            ("encoder.down_blocks.1.resnets.0.conv_shortcut.weight", "encoder.down.1.block.0.nin_shortcut.weight"),
            ("encoder.down_blocks.0.downsamplers.0.conv.bias", "encoder.down.0.downsample.conv.bias"),
            ("decoder.up_blocks.0.resnets.2.norm1.weight", "decoder.up.3.block.2.norm1.weight"),
            ("decoder.up_blocks.2.upsamplers.0.conv.weight", "decoder.up.1.upsample.conv.weight"),
            ("decoder.mid_block.resnets.1.conv2.weight", "decoder.mid.block_2.conv2.weight"),
            ("decoder.mid_block.attentions.0.to_out.0.weight", "decoder.mid.attn_1.proj_out.weight"),
            ("decoder.mid_block.attentions.0.group_norm.bias", "decoder.mid.attn_1.norm.bias"),
            ("decoder.conv_norm_out.weight", "decoder.norm_out.weight"),
            ("post_quant_conv.weight", "post_quant_conv.weight"),
        ] {
            assert_eq!(ldm_name(canonical, 4), stored);
        }
        assert_eq!(
            old_diffusers_name("encoder.mid_block.attentions.0.to_out.0.bias"),
            "encoder.mid_block.attentions.0.proj_attn.bias"
        );
    }
}
