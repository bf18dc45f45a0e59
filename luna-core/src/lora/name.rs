//! What a tensor of a LoRA file is called. Enters: a stored name in any dialect. Leaves: which factor of an adapter it
//! is, which component it is for, and the name of its layer without dialect. It must not know models or numbers.
//!
//! Dialects: kohya and LyCORIS (`lora_unet_…`, `lora_te1_…`, `lycoris_…`), diffusers and PEFT (`unet.`, `transformer.`,
//! `text_encoder_2.`, `base_model.model.`), attention processors, OneTrainer (`lora_transformer_…`, `clip_l.`), ComfyUI
//! (`diffusion_model.`, `text_encoders.clip_l.`). Source: ComfyUI's `lora.py` and `weight_adapter/`.

use crate::text::EncoderKind;

/// Which factor of an adapter a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Part {
    Alpha,
    Down,
    Up,
    UpBias,
    Mid,
    DoraScale,
    Magnitude,
    HadaW1A,
    HadaW1B,
    HadaW2A,
    HadaW2B,
    HadaT1,
    HadaT2,
    LokrW1,
    LokrW1A,
    LokrW1B,
    LokrW2,
    LokrW2A,
    LokrW2B,
    LokrT2,
    Diff,
    DiffBias,
    OftBlocks,
    Rescale,
    GloraA1,
    GloraA2,
    GloraB1,
    GloraB2,
    /// Known, and refused by this name.
    Refused(&'static str),
}

/// Ends of names. Longer ones stand before those they end with.
const ENDS: &[(&str, Part)] = &[
    (".alpha", Part::Alpha),
    (".dora_scale", Part::DoraScale),
    (".lora_up.weight", Part::Up),
    (".lora_down.weight", Part::Down),
    (".lora_mid.weight", Part::Mid),
    ("_lora.up.weight", Part::Up),
    ("_lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora_linear_layer.up.weight", Part::Up),
    (".lora_linear_layer.down.weight", Part::Down),
    (".lora_B", Part::Up),
    (".lora_A", Part::Down),
    (".lora_magnitude_vector", Part::Magnitude),
    (".hada_w1_a", Part::HadaW1A),
    (".hada_w1_b", Part::HadaW1B),
    (".hada_w2_a", Part::HadaW2A),
    (".hada_w2_b", Part::HadaW2B),
    (".hada_t1", Part::HadaT1),
    (".hada_t2", Part::HadaT2),
    (".lokr_w1_a", Part::LokrW1A),
    (".lokr_w1_b", Part::LokrW1B),
    (".lokr_w1", Part::LokrW1),
    (".lokr_w2_a", Part::LokrW2A),
    (".lokr_w2_b", Part::LokrW2B),
    (".lokr_w2", Part::LokrW2),
    (".lokr_t2", Part::LokrT2),
    (".lokr_t1", Part::Refused("LoKr with a Tucker core on its first factor")),
    (".diff_b", Part::DiffBias),
    (".diff", Part::Diff),
    (".b_norm", Part::DiffBias),
    (".w_norm", Part::Diff),
    (".oft_blocks", Part::OftBlocks),
    (".oft_diag", Part::OftBlocks),
    (".rescale", Part::Rescale),
    (".a1.weight", Part::GloraA1),
    (".a2.weight", Part::GloraA2),
    (".b1.weight", Part::GloraB1),
    (".b2.weight", Part::GloraB2),
    (".set_weight", Part::Refused("set_weight, which replaces a weight")),
    (".reshape_weight", Part::Refused("reshape_weight, which widens a weight")),
    (".on_input", Part::Refused("IA3")),
    (".bias_ind", Part::Refused("sparse bias")),
    (".bias_val", Part::Refused("sparse bias")),
    (".bias_size", Part::Refused("sparse bias")),
];

/// What PEFT puts the name of the adapter behind: `.lora_A.default.weight`.
const PEFT: &[(&str, Part)] = &[
    (".lora_A.", Part::Down),
    (".lora_B.", Part::Up),
    (".lora_magnitude_vector.", Part::Magnitude),
    (".hada_w1_a.", Part::HadaW1A),
    (".hada_w1_b.", Part::HadaW1B),
    (".hada_w2_a.", Part::HadaW2A),
    (".hada_w2_b.", Part::HadaW2B),
    (".hada_t1.", Part::HadaT1),
    (".hada_t2.", Part::HadaT2),
    (".lokr_w1_a.", Part::LokrW1A),
    (".lokr_w1_b.", Part::LokrW1B),
    (".lokr_w1.", Part::LokrW1),
    (".lokr_w2_a.", Part::LokrW2A),
    (".lokr_w2_b.", Part::LokrW2B),
    (".lokr_w2.", Part::LokrW2),
    (".lokr_t2.", Part::LokrT2),
    (".lora_embedding_", Part::Refused("LoRA on an embedding table")),
    (".oft_R", Part::Refused("PEFT's OFT, which turns inputs")),
    (".oft_r", Part::Refused("PEFT's OFT, which turns inputs")),
    (".boft_", Part::Refused("PEFT's BOFT, which turns inputs")),
    (".ia3_", Part::Refused("IA3")),
    (".vera_", Part::Refused("VeRA")),
    (".modules_to_save.", Part::Refused("whole modules that PEFT saved")),
];

/// The component that a layer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Home {
    Denoiser,
    /// The only text encoder, or the first.
    Text,
    /// The text encoder of this number, from 1.
    TextNumber(u8),
    TextKind(EncoderKind),
    /// The name does not say.
    Unknown,
}

impl Home {
    /// Whether a text encoder of this kind may be meant. `alone`: whether its model holds no CLIP-L beside it.
    pub(super) fn is_text(self, kind: EncoderKind, alone: bool) -> bool {
        use EncoderKind::{ClipG, ClipH, ClipL, Qwen3, T5};
        match self {
            Self::Denoiser => false,
            Self::Text => matches!(kind, ClipL | ClipH | T5 | Qwen3) || (kind == ClipG && alone),
            Self::TextNumber(1) => matches!(kind, ClipL | ClipH | T5 | Qwen3),
            Self::TextNumber(2) => matches!(kind, ClipG | T5),
            Self::TextNumber(_) => kind == T5,
            Self::TextKind(own) => own == kind,
            Self::Unknown => true,
        }
    }
}

/// What stands before a layer's name.
const PREFIXES: &[(&str, Home)] = &[
    ("lora_unet_", Home::Denoiser),
    ("lora_transformer_", Home::Denoiser),
    ("lora_te1_", Home::TextNumber(1)),
    ("lora_te2_", Home::TextNumber(2)),
    ("lora_te3_", Home::TextNumber(3)),
    ("lora_te_", Home::Text),
    ("unet.", Home::Denoiser),
    ("transformer.", Home::Denoiser),
    ("model.diffusion_model.", Home::Denoiser),
    ("diffusion_model.", Home::Denoiser),
    ("text_encoders.clip_l.transformer.", Home::TextKind(EncoderKind::ClipL)),
    ("text_encoders.clip_g.transformer.", Home::TextKind(EncoderKind::ClipG)),
    ("text_encoders.clip_h.transformer.", Home::TextKind(EncoderKind::ClipH)),
    ("text_encoders.t5xxl.transformer.", Home::TextKind(EncoderKind::T5)),
    ("text_encoders.qwen3_4b.transformer.", Home::TextKind(EncoderKind::Qwen3)),
    ("clip_l.", Home::TextKind(EncoderKind::ClipL)),
    ("clip_g.", Home::TextKind(EncoderKind::ClipG)),
    ("t5.", Home::TextKind(EncoderKind::T5)),
    ("text_encoder_2.", Home::TextNumber(2)),
    ("text_encoder_3.", Home::TextNumber(3)),
    ("text_encoder.", Home::TextNumber(1)),
];

/// What stands before or behind those and says nothing.
const WRAPPERS: &[&str] = &["lycoris_", "base_model.model."];

/// Where the names of layers of denoisers start.
const DENOISER_ROOTS: &[&str] = &[
    "down_blocks_",
    "up_blocks_",
    "mid_block_",
    "input_blocks_",
    "output_blocks_",
    "middle_block_",
    "conv_in",
    "conv_out",
    "time_embed",
    "label_emb",
    "add_embedding",
    "double_blocks_",
    "single_blocks_",
    "transformer_blocks_",
    "single_transformer_blocks_",
    "noise_refiner_",
    "context_refiner_",
    "joint_blocks_",
    "img_in",
    "txt_in",
    "x_embedder",
];

/// Where the names of layers of text encoders start.
const TEXT_ROOTS: &[&str] = &["text_model_", "text_projection", "encoder_block_", "shared"];

/// The layer a tensor is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LayerName {
    pub(super) home: Home,
    /// With `_` for every dot.
    pub(super) flat: String,
}

impl LayerName {
    pub(super) fn read(stored: &str) -> Self {
        let (mut home, mut rest) = (Home::Unknown, stored);
        loop {
            let wrapper = WRAPPERS.iter().find_map(|wrapper| rest.strip_prefix(wrapper));
            let prefix = PREFIXES.iter().find_map(|(prefix, home)| Some((rest.strip_prefix(prefix)?, *home)));
            match (wrapper, prefix) {
                (Some(inner), _) => rest = inner,
                (None, Some((inner, own))) if home == Home::Unknown => (rest, home) = (inner, own),
                _ => break,
            }
        }
        let flat = flattened(&rest.replace(".processor", ""));
        if home == Home::Unknown {
            let starts = |roots: &[&str]| roots.iter().any(|root| flat.starts_with(root));
            home = match (starts(DENOISER_ROOTS), starts(TEXT_ROOTS)) {
                (true, _) => Home::Denoiser,
                (_, true) => Home::Text,
                _ => home,
            };
        }
        Self { home, flat }
    }
}

/// As kohya writes names.
pub(super) fn flattened(name: &str) -> String {
    name.replace('.', "_")
}

/// The stored name of a tensor's layer and what the tensor is there; `None` if no adapter has such a tensor.
pub(super) fn split(stored: &str) -> Option<(&str, Part)> {
    if let Some((base, part)) = ENDS.iter().find_map(|(end, part)| Some((stored.strip_suffix(end)?, *part))) {
        return Some((base, part));
    }
    PEFT.iter().find_map(|(middle, part)| {
        let at = stored.rfind(middle)?;
        let part = match (part, stored.ends_with(".bias")) {
            (Part::Up, true) => Part::UpBias,
            (Part::Down | Part::Magnitude, true) => Part::Refused("a bias inside an adapter"),
            _ => *part,
        };
        Some((&stored[..at], part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_dialect_come_to_the_same_layer() {
        let layer = "down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_q";
        let dotted = "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q";
        let processor = "down_blocks.0.attentions.1.transformer_blocks.0.attn1.processor.to_q";
        for (stored, part) in [
            (format!("lora_unet_{layer}.lora_down.weight"), Part::Down),
            (format!("lycoris_{layer}.lora_up.weight"), Part::Up),
            (format!("lora_transformer_{layer}.alpha"), Part::Alpha),
            (format!("unet.{dotted}.lora_A.weight"), Part::Down),
            (format!("base_model.model.{dotted}.lora_B.default.weight"), Part::Up),
            (format!("unet.base_model.model.{dotted}.lora_B.bias"), Part::UpBias),
            (format!("base_model.model.{dotted}.lora_magnitude_vector"), Part::Magnitude),
            (format!("base_model.model.{dotted}.lora_magnitude_vector.default.weight"), Part::Magnitude),
            (format!("transformer.{dotted}.lora.down.weight"), Part::Down),
            (format!("{dotted}.hada_w1_a"), Part::HadaW1A),
            (format!("diffusion_model.{dotted}.diff_b"), Part::DiffBias),
            (format!("unet.{processor}_lora.up.weight"), Part::Up),
            (format!("{processor}_lora.down.weight"), Part::Down),
            (format!("base_model.model.{dotted}.lokr_w1_b.default"), Part::LokrW1B),
        ] {
            let (base, found) = split(&stored).unwrap_or_else(|| panic!("{stored}"));
            assert_eq!(found, part, "{stored}");
            let expected = LayerName { home: Home::Denoiser, flat: layer.to_owned() };
            assert_eq!(LayerName::read(base), expected, "{stored}");
        }
    }

    #[test]
    fn text_encoders_are_told_apart() {
        let flat = "text_model_encoder_layers_3_mlp_fc1";
        let dotted = "text_model.encoder.layers.3.mlp.fc1";
        for (stored, home) in [
            (format!("lora_te_{flat}"), Home::Text),
            (format!("lora_te1_{flat}"), Home::TextNumber(1)),
            (format!("lora_te2_{flat}"), Home::TextNumber(2)),
            (format!("text_encoder.{dotted}"), Home::TextNumber(1)),
            (format!("text_encoder_2.{dotted}"), Home::TextNumber(2)),
            (format!("text_encoders.clip_g.transformer.{dotted}"), Home::TextKind(EncoderKind::ClipG)),
            (format!("clip_l.{dotted}"), Home::TextKind(EncoderKind::ClipL)),
            (format!("base_model.model.{dotted}"), Home::Text),
        ] {
            assert_eq!(LayerName::read(&stored), LayerName { home, flat: flat.to_owned() }, "{stored}");
        }
        assert!(Home::TextNumber(1).is_text(EncoderKind::ClipL, false));
        assert!(!Home::TextNumber(1).is_text(EncoderKind::ClipG, true));
        assert!(Home::Text.is_text(EncoderKind::ClipG, true) && !Home::Text.is_text(EncoderKind::ClipG, false));
        assert!(Home::TextNumber(2).is_text(EncoderKind::T5, false));
    }

    #[test]
    fn what_no_adapter_has_is_no_factor() {
        for name in ["", "x", "emb_params", "lora_unet_a.weight", "a.lora_down", ".lora_C.weight"] {
            assert_eq!(split(name), None, "{name}");
        }
        assert_eq!(split(".alpha"), Some(("", Part::Alpha)));
        assert!(matches!(split("a.lora_embedding_A.default"), Some(("a", Part::Refused(_)))));
    }
}
