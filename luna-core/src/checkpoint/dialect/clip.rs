//! Names of CLIP text encoders: transformers' and OpenCLIP's.

use super::{Part, Stored};
use crate::checkpoint::{Checkpoint, Component, Dialect};

/// Canonical (transformers') → stored names of a CLIP text encoder. OpenCLIP keeps queries, keys and values in one
/// matrix; the projection is a matrix `[in, out]` there and in files that ComfyUI saved long ago.
pub(crate) fn clip(checkpoint: &Checkpoint, component: &Component) -> impl Fn(&str) -> Stored + 'static {
    let prefix = component.prefix.clone();
    let open_clip = component.dialect == Dialect::OpenClip;
    let has_matrix = checkpoint.shape(&format!("{prefix}text_projection")).is_some();
    move |canonical| {
        let stored = match canonical {
            "text_projection.weight" if has_matrix => Stored { name: "text_projection".into(), part: Part::Transposed },
            _ if open_clip => open_clip_name(canonical),
            _ => canonical.to_owned().into(),
        };
        Stored { name: format!("{prefix}{}", stored.name), ..stored }
    }
}

/// The name in OpenCLIP's layout.
pub(crate) fn open_clip_name(canonical: &str) -> Stored {
    let fixed = match canonical {
        "text_model.embeddings.token_embedding.weight" => Some("token_embedding.weight"),
        "text_model.embeddings.position_embedding.weight" => Some("positional_embedding"),
        "text_model.final_layer_norm.weight" => Some("ln_final.weight"),
        "text_model.final_layer_norm.bias" => Some("ln_final.bias"),
        _ => None,
    };
    if let Some(name) = fixed {
        return name.to_owned().into();
    }
    match canonical.strip_prefix("text_model.encoder.layers.").and_then(|rest| rest.split_once('.')) {
        Some((layer, name)) => open_clip_block(layer, name),
        None => canonical.to_owned().into(),
    }
}

/// A block's tensors by transformers' names, in OpenCLIP's: text and vision towers have the same.
pub(super) fn open_clip_block(layer: &str, name: &str) -> Stored {
    let (place, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    let projections = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
    if let Some(index) = projections.iter().position(|projection| *projection == place) {
        let name = format!("transformer.resblocks.{layer}.attn.in_proj_{kind}");
        return Stored { name, part: Part::Rows { index, of: 3 } };
    }
    let place = match place {
        "layer_norm1" => "ln_1",
        "layer_norm2" => "ln_2",
        "mlp.fc1" => "mlp.c_fc",
        "mlp.fc2" => "mlp.c_proj",
        "self_attn.out_proj" => "attn.out_proj",
        other => other,
    };
    format!("transformer.resblocks.{layer}.{place}.{kind}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_clip_names_follow_the_layout_of_sdxl_checkpoints() {
        let layer = "text_model.encoder.layers.31.";
        for (canonical, stored) in [
            (format!("{layer}layer_norm1.bias"), "transformer.resblocks.31.ln_1.bias"),
            (format!("{layer}mlp.fc2.weight"), "transformer.resblocks.31.mlp.c_proj.weight"),
            (format!("{layer}self_attn.out_proj.bias"), "transformer.resblocks.31.attn.out_proj.bias"),
            ("text_model.embeddings.position_embedding.weight".into(), "positional_embedding"),
            ("text_model.final_layer_norm.weight".into(), "ln_final.weight"),
        ] {
            assert_eq!(open_clip_name(&canonical), Stored::from(stored.to_owned()));
        }
        assert_eq!(
            open_clip_name(&format!("{layer}self_attn.k_proj.bias")),
            Stored { name: "transformer.resblocks.31.attn.in_proj_bias".into(), part: Part::Rows { index: 1, of: 3 } }
        );
    }
}
