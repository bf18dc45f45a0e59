//! llama.cpp's names of T5 encoders and Qwen3, which GGUF files bear.

use super::unet::renamed;
use crate::checkpoint::{Component, Dialect, Family};

/// Canonical (transformers') → stored names of a T5 or Qwen3, in llama.cpp's dialect or their own.
pub(crate) fn text(component: &Component) -> impl Fn(&str) -> String + 'static {
    let (prefix, family) = (component.prefix.clone(), component.family);
    let own = component.dialect != Dialect::LlamaCpp;
    move |canonical| match family {
        _ if own => format!("{prefix}{canonical}"),
        Family::T5 => format!("{prefix}{}", t5_name(canonical)),
        _ => format!("{prefix}{}", decoder_name(canonical)),
    }
}

fn t5_name(canonical: &str) -> String {
    let Some((block, rest)) = canonical.strip_prefix("encoder.block.").and_then(|rest| rest.split_once('.')) else {
        return renamed(canonical, &[("shared", "token_embd"), ("encoder.final_layer_norm", "enc.output_norm")]);
    };
    let rest = renamed(
        rest,
        &[
            ("layer.0.layer_norm", "attn_norm"),
            ("layer.0.SelfAttention.q", "attn_q"),
            ("layer.0.SelfAttention.k", "attn_k"),
            ("layer.0.SelfAttention.v", "attn_v"),
            ("layer.0.SelfAttention.o", "attn_o"),
            ("layer.0.SelfAttention.relative_attention_bias", "attn_rel_b"),
            ("layer.1.layer_norm", "ffn_norm"),
            ("layer.1.DenseReluDense.wi_0", "ffn_gate"),
            ("layer.1.DenseReluDense.wi_1", "ffn_up"),
            ("layer.1.DenseReluDense.wo", "ffn_down"),
        ],
    );
    format!("enc.blk.{block}.{rest}")
}

/// Of a Qwen3 or Llama decoder.
pub(super) fn decoder_name(canonical: &str) -> String {
    let Some((block, rest)) = canonical.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) else {
        return renamed(canonical, &[("embed_tokens", "token_embd"), ("norm", "output_norm")]);
    };
    let rest = renamed(
        rest,
        &[
            ("input_layernorm", "attn_norm"),
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("self_attn.o_proj", "attn_output"),
            ("self_attn.q_norm", "attn_q_norm"),
            ("self_attn.k_norm", "attn_k_norm"),
            ("post_attention_layernorm", "ffn_norm"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
            ("mlp.down_proj", "ffn_down"),
        ],
    );
    format!("blk.{block}.{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_llama_cpp() {
        for (canonical, stored) in [
            ("shared.weight", "token_embd.weight"),
            ("encoder.final_layer_norm.weight", "enc.output_norm.weight"),
            ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "enc.blk.0.attn_rel_b.weight"),
            ("encoder.block.23.layer.1.DenseReluDense.wi_1.weight", "enc.blk.23.ffn_up.weight"),
            ("encoder.block.23.layer.1.DenseReluDense.wi.weight", "enc.blk.23.layer.1.DenseReluDense.wi.weight"),
        ] {
            assert_eq!(t5_name(canonical), stored);
        }
        for (canonical, stored) in [
            ("embed_tokens.weight", "token_embd.weight"),
            ("norm.weight", "output_norm.weight"),
            ("layers.35.self_attn.o_proj.weight", "blk.35.attn_output.weight"),
            ("layers.0.self_attn.k_norm.weight", "blk.0.attn_k_norm.weight"),
            ("layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
        ] {
            assert_eq!(decoder_name(canonical), stored);
        }
    }
}
