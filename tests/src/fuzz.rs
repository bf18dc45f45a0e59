//! What a fuzz target does with its bytes, so that the normal tests can run over saved inputs too.

use luna_core::{
    Limits, Runtime,
    checkpoint::Checkpoint,
    lora::{LoraFile, LoraStack, ResolveOptions},
    text::TextModel,
    vae::Vae,
};
use std::sync::OnceLock;

/// Opens the bytes as a checkpoint, recognises it, builds its VAE. Whatever they are: an error or a value, no panic.
pub fn checkpoint(data: &[u8]) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let Ok(checkpoint) = Checkpoint::from_bytes("fuzz", data.to_vec(), &Limits::default()) else { return };
    let found = checkpoint.recognise();
    let bytes: u64 = found.components.iter().map(|component| component.bytes).sum();
    assert!(bytes <= checkpoint.file_bytes() * found.components.len() as u64);
    assert!(checkpoint.tensors().all(|tensor| tensor.bytes.len() <= data.len()));
    let runtime = RUNTIME.get_or_init(|| Runtime::cpu().expect("a thread can be started"));
    let _ = Vae::load(&checkpoint, runtime);
}

/// Reads the bytes as a LoRA file, and as names of one: lines of keys, each with a small tensor. What can be read is
/// resolved for a model; every adapter is in the report then.
pub fn lora(data: &[u8]) {
    static MODEL: OnceLock<TextModel> = OnceLock::new();
    let model = MODEL.get_or_init(|| {
        let runtime = Runtime::cpu().expect("a thread can be started");
        TextModel::demo(&runtime).expect("the demonstration model is built in")
    });
    let names = String::from_utf8_lossy(data);
    let mut keys: Vec<_> = names.lines().filter(|name| !name.is_empty()).take(64).collect();
    keys.sort_unstable();
    keys.dedup();
    let tensors: Vec<_> =
        keys.iter().map(|name| crate::safetensors_file::f32_tensor(name, &[2, 2], &[0.5; 4])).collect();
    for bytes in [data.to_vec(), crate::safetensors_file::file(&tensors, &[])] {
        let Ok(lora) = LoraFile::from_bytes("fuzz", bytes, &Limits::default()) else { continue };
        let adapters = lora.adapters();
        let stack = LoraStack::new().with(lora.into(), 1.0, 1.0).expect("1 is a strength");
        let options = ResolveOptions { allow_nothing: true, ..ResolveOptions::default() };
        let Ok(resolved) = stack.resolve_text(model, &options) else { continue };
        let file = &resolved.coverage.files[0];
        let told = file.applied.len() + file.unmatched.len() + file.wrong_shape.len() + file.elsewhere;
        assert!(told + file.unsupported.len() >= adapters, "{adapters} adapters, {file:?}");
    }
}

/// Reads the bytes as frames of the daemon's wire, and their requests. Whatever they are: an error or a value, no panic,
/// nothing larger than what came, and what was understood is written as it was read.
pub fn frame(data: &[u8]) {
    use luna_core::protocol::{FrameLimits, Message, RequestHead, TensorRef, read_body, write_frame};
    let limits = FrameLimits::of_bytes(1 << 20);
    let mut rest = data;
    while let Ok(Some(body)) = read_body(&mut rest, &limits) {
        let Ok(message) = Message::parse(body, &limits) else { continue };
        let tensors: Vec<TensorRef> = message.tensors().map(|tensor| tensor.view()).collect();
        assert!(tensors.iter().map(|tensor| tensor.bytes.len()).sum::<usize>() <= data.len());
        message.tensors().for_each(|tensor| drop(tensor.values()));
        let mut written = Vec::new();
        write_frame(&mut written, message.role(), message.json(), &tensors, u64::MAX).expect("a vector takes anything");
        let again = read_body(&mut &*written, &FrameLimits::default()).expect("one's own frame").expect("a frame");
        let again = Message::parse(again, &FrameLimits::default()).expect("one's own body");
        assert_eq!((again.role(), again.json()), (message.role(), message.json()));
        let _ = RequestHead::parse(message.json());
    }
}
