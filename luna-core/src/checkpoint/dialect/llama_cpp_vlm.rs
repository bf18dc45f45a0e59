//! llama.cpp's names of vision-language models: those of the language model in one GGUF file, those of the vision part
//! (`mmproj-*.gguf`) in another.

use super::{Part, Stored, llama_cpp::decoder_name, unet::renamed};
use crate::checkpoint::{Checkpoint, Component, Family};

/// The architecture whose queries and keys llama.cpp stores with the halves of each head by turns.
const PAIRED: &str = "llama";

/// Canonical names, as [`super::vlm`] has them, → stored names.
pub(super) fn names(checkpoint: &Checkpoint, component: &Component) -> impl Fn(&str) -> Stored + 'static {
    let number = |name: &str| checkpoint.config("").and_then(|config| config["text_config"][name].as_u64());
    let heads = || number("hidden_size")?.checked_div(number("num_attention_heads")?);
    let is_paired = checkpoint.metadata().get("general.architecture").is_some_and(|name| name == PAIRED);
    let head = if is_paired { number("head_dim").or_else(heads).map(|head| head as usize) } else { None };
    let is_llava = component.family == Family::Llava;
    let has = |name: &str| checkpoint.shape(name).is_some();
    let frames = 1 + usize::from(has("v.patch_embd.weight.1"));
    let deep: Vec<usize> = (0..1000).filter(|layer| has(&format!("v.deepstack.{layer}.fc1.weight"))).collect();
    // The first converter called the feed-forward layers of LLaVA's vision part by each other's names.
    let rows = |name: &str| checkpoint.shape(name).and_then(|shape| shape.first().copied());
    let swapped = rows("v.blk.0.ffn_down.weight") > rows("v.blk.0.ffn_up.weight");
    move |canonical| match canonical.split_once('.') {
        Some(("language_model", rest)) => language(rest, head),
        Some(("lm_head", rest)) => format!("output.{rest}").into(),
        Some(("multi_modal_projector", rest)) => renamed(rest, &[("linear_1", "mm.0"), ("linear_2", "mm.2")]).into(),
        Some(("vision_tower", rest)) if is_llava => clip(rest, swapped).into(),
        Some(("visual", "patch_embed.proj.weight")) => {
            Stored { name: "v.patch_embd.weight".into(), part: Part::Frames(frames) }
        }
        Some(("visual", rest)) => visual(rest, &deep),
        _ => canonical.to_owned().into(),
    }
}

fn language(canonical: &str, head: Option<usize>) -> Stored {
    let name = decoder_name(canonical);
    match (name.rsplit_once('.'), head) {
        (Some((layer, tensor)), Some(head)) if layer.ends_with(".attn_q") || layer.ends_with(".attn_k") => {
            Stored::part(layer, tensor, Part::Pairs { head })
        }
        _ => name.into(),
    }
}

/// A CLIP's or SigLIP's.
fn clip(canonical: &str, swapped: bool) -> String {
    if canonical == "embeddings.class_embedding" {
        return "v.class_embd".into();
    }
    let Some((layer, rest)) = canonical.strip_prefix("encoder.layers.").and_then(|rest| rest.split_once('.')) else {
        let name = renamed(
            canonical,
            &[
                ("embeddings.patch_embedding", "patch_embd"),
                ("embeddings.position_embedding", "position_embd"),
                ("pre_layrnorm", "pre_ln"),
                ("post_layernorm", "post_ln"),
            ],
        );
        return format!("v.{name}");
    };
    let (up, down) = if swapped { ("ffn_down", "ffn_up") } else { ("ffn_up", "ffn_down") };
    let layers = [
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.out_proj", "attn_out"),
        ("layer_norm1", "ln1"),
        ("layer_norm2", "ln2"),
        ("mlp.fc1", up),
        ("mlp.fc2", down),
    ];
    format!("v.blk.{layer}.{}", renamed(rest, &layers))
}

/// Qwen3-VL's tower. `deep` says which layers have a deepstack merger.
fn visual(canonical: &str, deep: &[usize]) -> Stored {
    let block = canonical.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
    if let Some((layer, name)) = block {
        let (place, kind) = name.rsplit_once('.').unwrap_or((name, ""));
        let projections = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
        return match projections.iter().position(|projection| *projection == place) {
            Some(index) => Stored::part(&format!("v.blk.{layer}.attn_qkv"), kind, Part::Rows { index, of: 3 }),
            None => clip(&format!("encoder.layers.{canonical}").replacen("blocks.", "", 1), false).into(),
        };
    }
    let merger = canonical.strip_prefix("deepstack_merger_list.").and_then(|rest| rest.split_once('.'));
    if let Some((index, rest)) = merger {
        // A number that no layer has where there are no more mergers.
        let layer = index.parse().ok().and_then(|index: usize| deep.get(index)).copied().unwrap_or(usize::MAX);
        return format!("v.deepstack.{layer}.{rest}").into();
    }
    let names = [
        ("patch_embed.proj", "v.patch_embd"),
        ("pos_embed", "v.position_embd"),
        ("merger.norm", "v.post_ln"),
        ("merger.fc1", "mm.0"),
        ("merger.fc2", "mm.2"),
    ];
    renamed(canonical, &names).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_converters() {
        let whole = |name: &str| Stored::from(name.to_owned());
        assert_eq!(language("embed_tokens.weight", Some(8)), whole("token_embd.weight"));
        assert_eq!(language("layers.2.self_attn.v_proj.weight", Some(8)), whole("blk.2.attn_v.weight"));
        assert_eq!(language("layers.2.self_attn.q_norm.weight", None), whole("blk.2.attn_q_norm.weight"));
        let keys = language("layers.2.self_attn.k_proj.weight", Some(8));
        assert_eq!(keys, Stored { name: "blk.2.attn_k.weight".into(), part: Part::Pairs { head: 8 } });
        for (canonical, stored) in [
            ("embeddings.class_embedding", "v.class_embd"),
            ("pre_layrnorm.bias", "v.pre_ln.bias"),
            ("encoder.layers.22.mlp.fc1.weight", "v.blk.22.ffn_down.weight"),
            ("encoder.layers.22.self_attn.out_proj.bias", "v.blk.22.attn_out.bias"),
        ] {
            assert_eq!(clip(canonical, true), stored);
        }
        for (canonical, stored) in [
            ("blocks.3.mlp.fc1.bias", "v.blk.3.ffn_up.bias"),
            ("blocks.3.layer_norm2.weight", "v.blk.3.ln2.weight"),
            ("blocks.3.self_attn.out_proj.weight", "v.blk.3.attn_out.weight"),
            ("deepstack_merger_list.1.norm.weight", "v.deepstack.11.norm.weight"),
            ("pos_embed.weight", "v.position_embd.weight"),
            ("merger.fc2.bias", "mm.2.bias"),
        ] {
            assert_eq!(visual(canonical, &[5, 11]), whole(stored));
        }
        let values = visual("blocks.3.self_attn.v_proj.bias", &[]);
        assert_eq!(values, Stored { name: "v.blk.3.attn_qkv.bias".into(), part: Part::Rows { index: 2, of: 3 } });
    }
}
