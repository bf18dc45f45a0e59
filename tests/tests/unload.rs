//! What a registry gives back to the system, measured as the system sees it. Alone in its file, for other tests in the
//! same process would be measured too.

use half::f16;
use luna_core::{
    Runtime, memory,
    registry::{Registry, Unloaded},
    vae::Vae,
};
use luna_tests::{safetensors_file, vae};
use std::path::{Path, PathBuf};

/// The layout of a fixture, twelve times as wide: about 100 MB of weights.
fn wide_model(folder: &Path) -> PathBuf {
    let widen = |&side: &usize| if side >= 16 { side * 12 } else { side };
    let tensors: Vec<_> = vae::case("diffusers_batch")
        .tensors()
        .iter()
        .map(|(name, shape)| {
            let shape: Vec<usize> = shape.iter().map(widen).collect();
            let count: usize = shape.iter().product();
            let values: Vec<f16> = (0..count).map(|i| f16::from_f64(((i % 1009) as f64 - 504.0) / 1e5)).collect();
            safetensors_file::f16_tensor(name, &shape, &values)
        })
        .collect();
    let path = folder.join("wide.safetensors");
    std::fs::write(&path, safetensors_file::file(&tensors, &[])).unwrap();
    path
}

#[test]
fn unloading_gives_the_memory_back_to_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let path = wide_model(folder.path());
    let runtime = Runtime::cpu().unwrap();
    let registry = Registry::new(1 << 30);
    let resident = || memory::resident().expect("known on every tested system");
    for round in 0..3 {
        let before = resident();
        let lease = registry.acquire(&path, |checkpoint| Vae::load(checkpoint, &runtime)).unwrap();
        let (id, bytes) = (lease.id(), lease.weight_bytes());
        assert!(bytes > 50 << 20, "the model is too small to be measured: {bytes}");
        let loaded = resident();
        assert!(loaded >= before + bytes * 9 / 10, "round {round}: {bytes} bytes loaded, {before} to {loaded}");
        assert!(loaded <= before + bytes * 3 / 2, "round {round}: held more than once, {before} to {loaded}");
        assert_eq!(registry.unload(id), Unloaded::WhenReturned(1));
        assert!(resident() >= before + bytes * 9 / 10, "freed under a lease");
        drop(lease);
        let after = resident();
        assert!(after <= before + bytes / 10, "round {round}: {bytes} bytes unloaded, {before} to {after}");
    }
}
