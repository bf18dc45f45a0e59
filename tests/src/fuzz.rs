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
