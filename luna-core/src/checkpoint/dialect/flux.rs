//! Names of Flux transformers. The ldm layout (Black Forest Labs') holds `qkv` of an attention side by side, and in
//! single blocks the feed-forward projection behind it.

use super::{Part, Stored, unet::renamed};
use crate::checkpoint::{Checkpoint, Component, Dialect};

/// Canonical → stored names of a Flux transformer. Canonical names are diffusers', but for `norm_out.linear`, whose
/// halves are `norm_out.scale` and `norm_out.shift`: the two layouts hold them in different order.
pub(crate) fn flux(checkpoint: &Checkpoint, component: &Component) -> impl Fn(&str) -> Stored + 'static {
    let (prefix, ldm) = (component.prefix.clone(), component.dialect == Dialect::Ldm);
    let hidden = checkpoint.shape(&format!("{prefix}img_in.weight")).map_or(0, |shape| shape[0]);
    move |canonical| {
        let stored = if ldm { ldm_name(canonical, hidden) } else { diffusers_name(canonical) };
        Stored { name: format!("{prefix}{}", stored.name), ..stored }
    }
}

/// Canonical → stored names of a Flux transformer of this width in both layouts.
pub(crate) fn flux_names(canonical: &str, hidden: usize) -> [Stored; 2] {
    [ldm_name(canonical, hidden), diffusers_name(canonical)]
}

fn diffusers_name(canonical: &str) -> Stored {
    match canonical.rsplit_once('.') {
        Some(("norm_out.scale", tensor)) => Stored::part("norm_out.linear", tensor, Part::Rows { index: 0, of: 2 }),
        Some(("norm_out.shift", tensor)) => Stored::part("norm_out.linear", tensor, Part::Rows { index: 1, of: 2 }),
        _ => canonical.to_owned().into(),
    }
}

fn ldm_name(canonical: &str, hidden: usize) -> Stored {
    let parts: Vec<_> = canonical.splitn(3, '.').collect();
    match *parts {
        ["transformer_blocks", index, rest] => double_block(index, rest),
        ["single_transformer_blocks", index, rest] => single_block(index, rest, hidden),
        _ => outer(canonical),
    }
}

/// `layer.tensor`, where the layer is found in `pairs`.
fn part(rest: &str, pairs: &[(&str, &str, Part)]) -> Option<Stored> {
    let (layer, tensor) = rest.rsplit_once('.')?;
    let (_, stored, part) = pairs.iter().find(|(canonical, ..)| *canonical == layer)?;
    Some(Stored::part(stored, tensor, *part))
}

fn double_block(index: &str, rest: &str) -> Stored {
    let third = |index| Part::Rows { index, of: 3 };
    let fused = [
        ("attn.to_q", "img_attn.qkv", third(0)),
        ("attn.to_k", "img_attn.qkv", third(1)),
        ("attn.to_v", "img_attn.qkv", third(2)),
        ("attn.add_q_proj", "txt_attn.qkv", third(0)),
        ("attn.add_k_proj", "txt_attn.qkv", third(1)),
        ("attn.add_v_proj", "txt_attn.qkv", third(2)),
    ];
    let plain = [
        ("norm1.linear", "img_mod.lin"),
        ("norm1_context.linear", "txt_mod.lin"),
        ("attn.to_out.0", "img_attn.proj"),
        ("attn.to_add_out", "txt_attn.proj"),
        ("ff.net.0.proj", "img_mlp.0"),
        ("ff.net.2", "img_mlp.2"),
        ("ff_context.net.0.proj", "txt_mlp.0"),
        ("ff_context.net.2", "txt_mlp.2"),
    ];
    let norms = [
        ("attn.norm_q.weight", "img_attn.norm.query_norm.scale"),
        ("attn.norm_k.weight", "img_attn.norm.key_norm.scale"),
        ("attn.norm_added_q.weight", "txt_attn.norm.query_norm.scale"),
        ("attn.norm_added_k.weight", "txt_attn.norm.key_norm.scale"),
    ];
    let stored = part(rest, &fused).unwrap_or_else(|| whole(rest, &norms, &plain).into());
    Stored { name: format!("double_blocks.{index}.{}", stored.name), ..stored }
}

fn single_block(index: &str, rest: &str, hidden: usize) -> Stored {
    let fused = [
        ("attn.to_q", "linear1", Part::RowsFrom(0)),
        ("attn.to_k", "linear1", Part::RowsFrom(hidden)),
        ("attn.to_v", "linear1", Part::RowsFrom(2 * hidden)),
        ("proj_mlp", "linear1", Part::RowsFrom(3 * hidden)),
    ];
    let plain = [("norm.linear", "modulation.lin"), ("proj_out", "linear2")];
    let norms = [("attn.norm_q.weight", "norm.query_norm.scale"), ("attn.norm_k.weight", "norm.key_norm.scale")];
    let stored = part(rest, &fused).unwrap_or_else(|| whole(rest, &norms, &plain).into());
    Stored { name: format!("single_blocks.{index}.{}", stored.name), ..stored }
}

/// A tensor by its whole name, or by the name of its layer.
fn whole(rest: &str, tensors: &[(&str, &str)], layers: &[(&str, &str)]) -> String {
    match tensors.iter().find(|(canonical, _)| *canonical == rest) {
        Some((_, stored)) => (*stored).to_owned(),
        None => renamed(rest, layers),
    }
}

fn outer(canonical: &str) -> Stored {
    let fused = [
        ("norm_out.shift", "final_layer.adaLN_modulation.1", Part::Rows { index: 0, of: 2 }),
        ("norm_out.scale", "final_layer.adaLN_modulation.1", Part::Rows { index: 1, of: 2 }),
    ];
    let plain = [
        ("x_embedder", "img_in"),
        ("context_embedder", "txt_in"),
        ("time_text_embed.timestep_embedder.linear_1", "time_in.in_layer"),
        ("time_text_embed.timestep_embedder.linear_2", "time_in.out_layer"),
        ("time_text_embed.guidance_embedder.linear_1", "guidance_in.in_layer"),
        ("time_text_embed.guidance_embedder.linear_2", "guidance_in.out_layer"),
        ("time_text_embed.text_embedder.linear_1", "vector_in.in_layer"),
        ("time_text_embed.text_embedder.linear_2", "vector_in.out_layer"),
        ("proj_out", "final_layer.linear"),
    ];
    part(canonical, &fused).unwrap_or_else(|| renamed(canonical, &plain).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fused_projections_are_parts() {
        let third = |index| Part::Rows { index, of: 3 };
        for (canonical, stored, part) in [
            ("transformer_blocks.3.attn.to_k.weight", "double_blocks.3.img_attn.qkv.weight", third(1)),
            ("transformer_blocks.3.attn.add_v_proj.bias", "double_blocks.3.txt_attn.qkv.bias", third(2)),
            (
                "transformer_blocks.0.attn.norm_added_q.weight",
                "double_blocks.0.txt_attn.norm.query_norm.scale",
                Part::Whole,
            ),
            ("transformer_blocks.0.norm1_context.linear.weight", "double_blocks.0.txt_mod.lin.weight", Part::Whole),
            ("transformer_blocks.0.ff.net.0.proj.weight", "double_blocks.0.img_mlp.0.weight", Part::Whole),
            ("single_transformer_blocks.7.proj_mlp.bias", "single_blocks.7.linear1.bias", Part::RowsFrom(192)),
            ("single_transformer_blocks.7.norm.linear.bias", "single_blocks.7.modulation.lin.bias", Part::Whole),
            ("single_transformer_blocks.7.attn.norm_k.weight", "single_blocks.7.norm.key_norm.scale", Part::Whole),
            ("norm_out.shift.weight", "final_layer.adaLN_modulation.1.weight", Part::Rows { index: 0, of: 2 }),
            ("proj_out.weight", "final_layer.linear.weight", Part::Whole),
        ] {
            assert_eq!(ldm_name(canonical, 64), Stored { name: stored.into(), part });
        }
        let half = Stored { name: "norm_out.linear.bias".into(), part: Part::Rows { index: 1, of: 2 } };
        assert_eq!(diffusers_name("norm_out.shift.bias"), half);
    }
}
