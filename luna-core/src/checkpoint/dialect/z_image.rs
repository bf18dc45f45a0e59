//! Names of Z-Image transformers: diffusers', and those of the single files that ComfyUI loads, whose attentions hold
//! `qkv` side by side.

use super::{Part, Stored};
use crate::checkpoint::{Component, Dialect};

/// Canonical → stored names of a Z-Image transformer.
pub(crate) fn z_image(component: &Component) -> impl Fn(&str) -> Stored + 'static {
    let (prefix, ldm) = (component.prefix.clone(), component.dialect == Dialect::Ldm);
    move |canonical| {
        let stored = if ldm { single_file_name(canonical) } else { canonical.to_owned().into() };
        Stored { name: format!("{prefix}{}", stored.name), ..stored }
    }
}

/// The name in the single files that ComfyUI loads.
pub(crate) fn single_file_name(canonical: &str) -> Stored {
    let name = canonical
        .replace("all_x_embedder.2-1.", "x_embedder.")
        .replace("all_final_layer.2-1.", "final_layer.")
        .replace(".attention.to_out.0.", ".attention.out.")
        .replace(".attention.norm_q.", ".attention.q_norm.")
        .replace(".attention.norm_k.", ".attention.k_norm.");
    let parts = [(".attention.to_q", 0), (".attention.to_k", 1), (".attention.to_v", 2)];
    let found = name.rsplit_once('.').and_then(|(layer, tensor)| {
        let (attention, index) = parts.iter().find_map(|(part, index)| Some((layer.strip_suffix(part)?, *index)))?;
        Some(Stored::part(&format!("{attention}.attention.qkv"), tensor, Part::Rows { index, of: 3 }))
    });
    found.unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_files_fuse_the_attention() {
        for (canonical, stored, index) in [
            ("layers.2.attention.to_v.weight", "layers.2.attention.qkv.weight", Some(2)),
            ("noise_refiner.0.attention.norm_q.weight", "noise_refiner.0.attention.q_norm.weight", None),
            ("context_refiner.1.attention.to_out.0.weight", "context_refiner.1.attention.out.weight", None),
            ("all_final_layer.2-1.linear.bias", "final_layer.linear.bias", None),
            ("cap_embedder.1.weight", "cap_embedder.1.weight", None),
        ] {
            let part = index.map_or(Part::Whole, |index| Part::Rows { index, of: 3 });
            assert_eq!(single_file_name(canonical), Stored { name: stored.into(), part });
        }
    }
}
