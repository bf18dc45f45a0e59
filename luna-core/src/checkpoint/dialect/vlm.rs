//! Names of vision-language models: transformers', as they are today and as they were before its version 4.52, and
//! llama.cpp's.

use super::{Part, Stored, vision::transformers_name};
use crate::checkpoint::{Checkpoint, Component, Dialect, Family};

/// Canonical → stored names of a vision-language model. Canonical are `language_model.*` with transformers' names below,
/// `lm_head`, and for the vision part `visual.*` (Qwen3-VL, blocks with CLIP's names) or `vision_tower.*` (LLaVA, as for
/// vision encoders) with `multi_modal_projector.*`.
pub(crate) fn vlm(checkpoint: &Checkpoint, component: &Component) -> Box<dyn Fn(&str) -> Stored> {
    match component.dialect {
        Dialect::LlamaCpp => Box::new(super::llama_cpp_vlm::names(checkpoint, component)),
        _ => Box::new(transformers(checkpoint, component)),
    }
}

fn transformers(checkpoint: &Checkpoint, component: &Component) -> impl Fn(&str) -> Stored + 'static {
    let prefix = component.prefix.clone();
    let has = |name: &str| checkpoint.shape(&format!("{prefix}{name}")).is_some();
    let is_llava = component.family == Family::Llava;
    let old = has("language_model.model.embed_tokens.weight");
    let nested = has(&format!("{}vision_model.embeddings.patch_embedding.weight", tower(old)));
    let layout = Layout { is_llava, old, nested };
    move |canonical| {
        let stored = layout.stored(canonical);
        Stored { name: format!("{prefix}{}", stored.name), ..stored }
    }
}

/// A canonical name in every layout that files of the family have.
pub(crate) fn vlm_names(canonical: &str, is_llava: bool) -> Vec<Stored> {
    let layouts = [(false, false), (false, true), (true, false), (true, true)];
    layouts.into_iter().map(|(old, nested)| Layout { is_llava, old, nested }.stored(canonical)).collect()
}

/// Whose names a file has.
struct Layout {
    is_llava: bool,
    /// As before transformers 4.52.
    old: bool,
    /// Whether names of the vision tower stand below `vision_model`.
    nested: bool,
}

impl Layout {
    fn stored(&self, canonical: &str) -> Stored {
        match (canonical.split_once('.'), self.old) {
            (Some(("vision_tower", rest)), old) if self.is_llava => {
                let Stored { name, part } = transformers_name(rest, self.nested);
                Stored { name: format!("{}{name}", tower(old)), part }
            }
            (Some(("visual", rest)), _) => qwen3_vl_visual(rest),
            (Some(("language_model", rest)), true) => format!("language_model.model.{rest}").into(),
            (Some(("lm_head", _)), true) => format!("language_model.{canonical}").into(),
            (Some(("lm_head", _)), false) | (_, true) => canonical.to_owned().into(),
            (_, false) => format!("model.{canonical}").into(),
        }
    }
}

fn tower(old: bool) -> &'static str {
    if old { "vision_tower." } else { "model.vision_tower." }
}

/// Qwen3-VL's vision tower keeps queries, keys and values in one matrix and calls layers by names of its own.
fn qwen3_vl_visual(canonical: &str) -> Stored {
    let Some((layer, name)) = canonical.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) else {
        let name = canonical.replace(".fc1.", ".linear_fc1.").replace(".fc2.", ".linear_fc2.");
        return format!("model.visual.{name}").into();
    };
    let (place, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    let at = format!("model.visual.blocks.{layer}");
    let projections = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
    if let Some(index) = projections.iter().position(|projection| *projection == place) {
        return Stored::part(&format!("{at}.attn.qkv"), kind, Part::Rows { index, of: 3 });
    }
    let place = match place {
        "layer_norm1" => "norm1",
        "layer_norm2" => "norm2",
        "self_attn.out_proj" => "attn.proj",
        "mlp.fc1" => "mlp.linear_fc1",
        "mlp.fc2" => "mlp.linear_fc2",
        other => other,
    };
    format!("{at}.{place}.{kind}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vision_tower_of_qwen3_vl_has_names_of_its_own() {
        for (canonical, stored) in [
            ("patch_embed.proj.bias", "model.visual.patch_embed.proj.bias"),
            ("merger.fc1.weight", "model.visual.merger.linear_fc1.weight"),
            ("deepstack_merger_list.2.norm.bias", "model.visual.deepstack_merger_list.2.norm.bias"),
            ("blocks.11.layer_norm2.weight", "model.visual.blocks.11.norm2.weight"),
            ("blocks.11.self_attn.out_proj.bias", "model.visual.blocks.11.attn.proj.bias"),
        ] {
            assert_eq!(qwen3_vl_visual(canonical), Stored::from(stored.to_owned()));
        }
        let values = qwen3_vl_visual("blocks.3.self_attn.v_proj.bias");
        let part = Part::Rows { index: 2, of: 3 };
        assert_eq!(values, Stored { name: "model.visual.blocks.3.attn.qkv.bias".into(), part });
    }
}
