//! Names of vision encoders: transformers' (with and without `vision_model.`) and OpenCLIP's.

use super::{Part, Stored, clip::open_clip_block};
use crate::checkpoint::{Checkpoint, Component, Dialect};

/// Canonical → stored names of a CLIP or SigLIP vision encoder. Canonical names are transformers' below `vision_model`,
/// and `visual_projection`, which stands beside it.
pub(crate) fn vision(checkpoint: &Checkpoint, component: &Component) -> impl Fn(&str) -> Stored + 'static {
    let prefix = component.prefix.clone();
    let open_clip = component.dialect == Dialect::OpenClip;
    let nested = checkpoint.shape(&format!("{prefix}vision_model.embeddings.patch_embedding.weight")).is_some();
    move |canonical| {
        let stored = match open_clip {
            true => open_clip_name(canonical),
            false => transformers_name(canonical, nested),
        };
        Stored { name: format!("{prefix}{}", stored.name), ..stored }
    }
}

/// As [`vision`], for transformers' names alone; `nested` if they stand below `vision_model`.
pub(super) fn transformers_name(canonical: &str, nested: bool) -> Stored {
    let inside = |name: String| if nested { format!("vision_model.{name}") } else { name };
    if canonical.starts_with("visual_projection.") {
        return canonical.to_owned().into();
    }
    // The probe's attention is torch's own layer, which keeps queries, keys and values in one matrix.
    let projections = ["q_proj", "k_proj", "v_proj"];
    if let Some((projection, kind)) = canonical.strip_prefix("head.attention.").and_then(|rest| rest.split_once('.'))
        && let Some(index) = projections.iter().position(|name| *name == projection)
    {
        let name = inside(format!("head.attention.in_proj_{kind}"));
        return Stored { name, part: Part::Rows { index, of: 3 } };
    }
    inside(canonical.to_owned()).into()
}

fn open_clip_name(canonical: &str) -> Stored {
    let fixed = match canonical {
        "embeddings.class_embedding" => "class_embedding",
        "embeddings.patch_embedding.weight" => "conv1.weight",
        "embeddings.position_embedding.weight" => "positional_embedding",
        "pre_layrnorm.weight" => "ln_pre.weight",
        "pre_layrnorm.bias" => "ln_pre.bias",
        "post_layernorm.weight" => "ln_post.weight",
        "post_layernorm.bias" => "ln_post.bias",
        "visual_projection.weight" => return Stored { name: "proj".into(), part: Part::Transposed },
        _ => {
            return match canonical.strip_prefix("encoder.layers.").and_then(|rest| rest.split_once('.')) {
                Some((layer, name)) => open_clip_block(layer, name),
                None => canonical.to_owned().into(),
            };
        }
    };
    fixed.to_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_both_layouts() {
        let whole = |name: &str| Stored::from(name.to_owned());
        let part = |name: &str, index| Stored { name: name.into(), part: Part::Rows { index, of: 3 } };
        assert_eq!(transformers_name("post_layernorm.bias", true), whole("vision_model.post_layernorm.bias"));
        assert_eq!(transformers_name("visual_projection.weight", true), whole("visual_projection.weight"));
        assert_eq!(transformers_name("head.attention.k_proj.bias", false), part("head.attention.in_proj_bias", 1));
        assert_eq!(transformers_name("head.attention.out_proj.bias", false), whole("head.attention.out_proj.bias"));
        let layer = "encoder.layers.7.";
        for (canonical, stored) in [
            ("layer_norm2.weight", "transformer.resblocks.7.ln_2.weight"),
            ("mlp.fc1.bias", "transformer.resblocks.7.mlp.c_fc.bias"),
            ("self_attn.out_proj.weight", "transformer.resblocks.7.attn.out_proj.weight"),
        ] {
            assert_eq!(open_clip_name(&format!("{layer}{canonical}")), whole(stored));
        }
        let values = open_clip_name(&format!("{layer}self_attn.v_proj.weight"));
        assert_eq!(values, part("transformer.resblocks.7.attn.in_proj_weight", 2));
        assert_eq!(open_clip_name("visual_projection.weight").part, Part::Transposed);
        assert_eq!(open_clip_name("embeddings.patch_embedding.weight"), whole("conv1.weight"));
    }
}
