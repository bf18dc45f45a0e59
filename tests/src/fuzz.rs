//! What a fuzz target does with its bytes, so that the normal tests can run over saved inputs too.

use luna_core::{Limits, Runtime, checkpoint::Checkpoint, vae::Vae};
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
