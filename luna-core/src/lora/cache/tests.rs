use super::*;
use std::thread;

/// A LoRA of rank 4 for one layer; `seed` makes its content its own.
fn bytes(seed: u8) -> Vec<u8> {
    let (down, up) = (vec![seed; 4 * 64 * 2], vec![seed; 64 * 4 * 2]);
    let view = |shape: [usize; 2], data| {
        safetensors::tensor::TensorView::new(safetensors::Dtype::F16, shape.to_vec(), data).unwrap()
    };
    let base = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";
    let tensors = [
        (format!("{base}.lora_down.weight"), view([4, 64], &down)),
        (format!("{base}.lora_up.weight"), view([64, 4], &up)),
    ];
    safetensors::serialize(tensors, None).unwrap()
}

fn file(folder: &Path, name: &str, seed: u8) -> PathBuf {
    let path = folder.join(name).with_extension("safetensors");
    fs::write(&path, bytes(seed)).unwrap();
    path
}

fn cache(parsed: u64) -> LoraCache {
    LoraCache::new(parsed, 1 << 20, Limits::default())
}

fn size() -> u64 {
    LoraFile::from_bytes("x", bytes(1), &Limits::default()).unwrap().bytes()
}

#[test]
fn equal_content_is_shared_and_a_changed_file_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (file(folder.path(), "a", 1), file(folder.path(), "b", 1));
    let cache = cache(1 << 20);
    let first = cache.open(&a).unwrap();
    assert_eq!(first.source, LoraSource::Read);
    assert!(Arc::ptr_eq(&first.lora, &cache.open(&b).unwrap().lora));
    assert_eq!(cache.open(&a).unwrap().source, LoraSource::Parsed);
    assert_eq!(cache.usage().parsed, 1);

    fs::remove_file(&a).unwrap();
    file(folder.path(), "a", 2);
    let changed = cache.open(&a).unwrap();
    assert_eq!(changed.source, LoraSource::Read);
    assert_ne!(changed.lora.digest(), first.lora.digest());
}

#[test]
fn what_falls_out_is_kept_compressed() {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (1..=3).map(|seed| file(folder.path(), &seed.to_string(), seed)).collect();
    let cache = cache(2 * size());
    let digests: Vec<_> = paths.iter().map(|path| cache.open(path).unwrap().lora.digest()).collect();
    assert_eq!(cache.check(digests[0]), Some(LoraSource::Packed));
    assert_eq!(cache.check(digests[2]), Some(LoraSource::Parsed));
    let usage = cache.usage();
    assert_eq!((usage.parsed, usage.parsed_bytes, usage.packed, usage.evicted), (2, 2 * size(), 1, 1));
    assert!(usage.packed_bytes > 0 && usage.packed_bytes < size());

    // The compressed tier serves even when the file is gone, and by digest as well as by path.
    let back = cache.get(digests[0]).unwrap();
    assert_eq!((back.source, back.lora.digest()), (LoraSource::Packed, digests[0]));
    assert_eq!(cache.check(digests[1]), Some(LoraSource::Packed), "the least recently used made room");
    cache.clear();
    assert_eq!(cache.check(digests[0]), Some(LoraSource::Parsed), "in use");
    assert_eq!(cache.check(digests[1]), None);
    drop(back);
    cache.clear();
    assert_eq!((cache.usage().parsed, cache.usage().packed), (0, 0));
}

#[test]
fn what_is_in_use_stays_and_what_never_fits_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(size());
    let held = cache.open(file(folder.path(), "held", 1)).unwrap();
    let error = cache.open(file(folder.path(), "other", 2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert_eq!(cache.check(held.lora.digest()), Some(LoraSource::Parsed));
    drop(held);
    cache.open(file(folder.path(), "other", 2)).unwrap();

    let small = LoraCache::new(size() - 1, 0, Limits::default());
    let error = small.put("big", bytes(3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!(error.to_string().contains(&size().to_string()) && error.to_string().contains(&(size() - 1).to_string()));
}

#[test]
fn what_a_client_sent_survives_eviction() {
    let cache = cache(size());
    let first = cache.put("first", bytes(1)).unwrap().digest();
    cache.put("second", bytes(2)).unwrap();
    let back = cache.get(first).unwrap();
    assert_eq!((back.source, back.lora.name()), (LoraSource::Packed, "first"));
    assert!(cache.get(blake3::hash(b"another")).is_none());
    let usage = cache.usage();
    assert_eq!((usage.unpacked, usage.misses), (1, 1));
}

#[test]
fn threads_agree_on_one_copy() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "a", 1);
    let cache = cache(1 << 20);
    let loras: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| cache.open(&path).unwrap().lora)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(loras.iter().all(|lora| Arc::ptr_eq(lora, &loras[0])));
    assert_eq!(cache.usage().parsed, 1);
}
