//! LoRAs: facts of files.

use luna_core::{
    lora::{LoraFile, LoraSource},
    protocol::LoraInfo,
};

pub fn lora_info(lora: &LoraFile, source: LoraSource) -> LoraInfo {
    LoraInfo {
        lora_id: lora.digest().to_hex().to_string(),
        name: lora.name().to_owned(),
        adapters: lora.adapters(),
        kinds: lora.kinds().into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
        made_for: lora.made_for().map(str::to_owned),
        unsupported: lora.unsupported().to_vec(),
        bytes: lora.bytes(),
        source: source_name(source).to_owned(),
    }
}

pub fn source_name(source: LoraSource) -> &'static str {
    match source {
        LoraSource::Parsed => "parsed",
        LoraSource::Packed => "packed",
        _ => "read",
    }
}
