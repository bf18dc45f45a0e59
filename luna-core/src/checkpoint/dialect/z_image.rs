//! Names of Z-Image transformers: diffusers', and those of the single files that ComfyUI loads, whose attentions hold
//! `qkv` side by side.

use super::Stored;
use crate::checkpoint::{Checkpoint, Component, Dialect};

/// Canonical → stored names of a Z-Image transformer.
pub(crate) fn z_image(checkpoint: &Checkpoint, component: &Component) -> impl Fn(&str) -> Stored + 'static {
    let (prefix, ldm) = (component.prefix.clone(), component.dialect == Dialect::Ldm);
    let hidden = checkpoint.shape(&format!("{prefix}x_embedder.weight")).map_or(0, |shape| shape[0]);
    move |canonical| {
        let stored = if ldm { single_file_name(canonical, hidden) } else { canonical.to_owned().into() };
        Stored { name: format!("{prefix}{}", stored.name), ..stored }
    }
}

fn single_file_name(canonical: &str, hidden: usize) -> Stored {
    let name = canonical
        .replace("all_x_embedder.2-1.", "x_embedder.")
        .replace("all_final_layer.2-1.", "final_layer.")
        .replace(".attention.to_out.0.", ".attention.out.")
        .replace(".attention.norm_q.", ".attention.q_norm.")
        .replace(".attention.norm_k.", ".attention.k_norm.");
    let parts = [(".attention.to_q.", 0), (".attention.to_k.", 1), (".attention.to_v.", 2)];
    match parts.iter().find(|(part, _)| name.contains(part)) {
        Some((part, place)) => Stored::part(name.replace(part, ".attention.qkv."), place * hidden),
        None => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_files_fuse_the_attention() {
        for (canonical, stored, row) in [
            ("layers.2.attention.to_v.weight", "layers.2.attention.qkv.weight", Some(384)),
            ("noise_refiner.0.attention.norm_q.weight", "noise_refiner.0.attention.q_norm.weight", None),
            ("context_refiner.1.attention.to_out.0.weight", "context_refiner.1.attention.out.weight", None),
            ("all_final_layer.2-1.linear.bias", "final_layer.linear.bias", None),
            ("cap_embedder.1.weight", "cap_embedder.1.weight", None),
        ] {
            assert_eq!(single_file_name(canonical, 192), Stored { name: stored.into(), first_row: row });
        }
    }
}
