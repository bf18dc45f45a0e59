//! Encodes a prompt with a LoRA, and tells what became of each of its adapters. The LoRA is given as a file.

use luna_core::{
    Error, ErrorKind, Limits, Runtime,
    lora::{LoraFile, LoraStack},
    text::{Conditioner, TextModel, TextOptions},
};
use std::sync::Arc;

fn main() -> luna_core::Result<()> {
    let usage = || Error::new(ErrorKind::InvalidInput, "usage: apply_loras LORA");
    let path = std::env::args_os().nth(1).ok_or_else(usage)?;
    let model = TextModel::demo(&Runtime::cpu()?)?;
    let lora = Arc::new(LoraFile::open(path, &Limits::default())?);
    let resolved = LoraStack::new().with(lora, 0.8, 0.6)?.resolve_text(&model, &Default::default())?;
    for file in &resolved.coverage.files {
        for adapter in &file.applied {
            println!("{}: {} for {}", file.name, adapter.key, adapter.targets.join(", "));
        }
        println!("{} applied, {} not", file.applied.len(), file.unmatched.len());
    }
    let options = TextOptions { patches: resolved.patches, ..TextOptions::default() };
    let encoded = Conditioner::new(&[&model])?.encode(&["a red fox".into()], &options)?;
    println!("conditioning {:?}; {}", encoded.first().shape(), encoded.patched.values().next().expect("an encoder"));
    Ok(())
}
