//! Which model a LoRA file looks made for. Enters: its adapters' names and sizes. Leaves: a usual name, or nothing.

use super::{
    adapter::{Adapter, Kind},
    name::Home,
};

/// The model, as people call it.
pub(super) fn made_for(adapters: &[Adapter]) -> Option<&'static str> {
    let starts = |root: &str| adapters.iter().any(|adapter| adapter.layer.flat.starts_with(root));
    let holds = |part: &str| adapters.iter().any(|adapter| adapter.layer.flat.contains(part));
    if starts("double_blocks_") || starts("single_transformer_blocks_") || starts("single_blocks_") {
        return Some("Flux");
    }
    if starts("noise_refiner_")
        || starts("context_refiner_")
        || holds("_adaLN_modulation_")
        || holds("_feed_forward_w1")
    {
        return Some("Z-Image");
    }
    if starts("joint_blocks_") {
        return Some("SD3");
    }
    // The width of the context that cross-attention looks at tells the UNets apart.
    let context = adapters.iter().find_map(|adapter| {
        let looks = ["attn2_to_k", "attn2_to_v"].iter().any(|end| adapter.layer.flat.ends_with(end));
        match &adapter.weight.as_ref()?.kind {
            Kind::Rotation(_) => None,
            kind if looks => kind.matrix().1,
            _ => None,
        }
    });
    match context {
        Some(768) => return Some("SD1.5"),
        Some(1024) => return Some("SD2"),
        Some(1280) => return Some("the SDXL refiner"),
        Some(2048) => return Some("SDXL"),
        _ => {}
    }
    // SD1.x has no blocks with ten transformers, SDXL no fourth level.
    if holds("transformer_blocks_9_") || adapters.iter().any(|adapter| adapter.layer.home == Home::TextNumber(2)) {
        return Some("SDXL");
    }
    (holds("input_blocks_10_") || holds("input_blocks_11_") || holds("up_blocks_3_")).then_some("SD1.5 or SD2")
}
