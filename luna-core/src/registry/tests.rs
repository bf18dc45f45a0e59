use super::*;
use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

struct Dummy(u64);

impl Model for Dummy {
    fn weight_bytes(&self) -> u64 {
        self.0
    }

    fn expected_bytes(_: &Checkpoint) -> u64 {
        100
    }
}

/// A safetensors file with one f32 of this value.
fn file(folder: &Path, name: &str, value: f32) -> PathBuf {
    let header = r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &value.to_le_bytes()].concat();
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn hundred(_: &Checkpoint) -> Result<Dummy> {
    Ok(Dummy(100))
}

#[test]
fn equal_bytes_share_one_model_and_a_changed_file_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (file(folder.path(), "a", 1.0), file(folder.path(), "b", 1.0));
    let registry = Registry::new(1 << 20);
    let first = registry.acquire(&a, hundred).unwrap();
    let second = registry.acquire(&b, |_| -> Result<Dummy> { panic!("loaded twice") }).unwrap();
    assert!(std::ptr::eq(&*first, &*second));
    assert_eq!(registry.residents().len(), 1);

    fs::remove_file(&a).unwrap();
    file(folder.path(), "a", 2.0);
    let third = registry.acquire(&a, hundred).unwrap();
    assert_ne!(third.id(), first.id());
    assert!(!std::ptr::eq(&*third, &*first));
}

#[test]
fn many_callers_cause_one_load() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "a", 1.0);
    let registry = Registry::new(1 << 20);
    let loads = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let lease = registry.acquire(&path, |_| {
                    loads.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(30));
                    Ok(Dummy(1))
                });
                assert_eq!(lease.unwrap().0, 1);
            });
        }
    });
    assert_eq!(loads.into_inner(), 1);
}

#[test]
fn a_failed_or_panicking_load_does_not_block_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "a", 1.0);
    let registry = Registry::new(1 << 20);
    let failed = registry.acquire(&path, |_| Err::<Dummy, _>(Error::new(ErrorKind::InvalidFile, "broken")));
    assert_eq!(failed.map(drop).unwrap_err().message(), "broken");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        registry.acquire(&path, |_| -> Result<Dummy> { panic!("on purpose") }).map(drop)
    }));
    assert!(panicked.is_err());
    assert!(registry.acquire(&path, hundred).is_ok());
}

#[test]
fn idle_models_go_least_recently_used_first_and_leased_or_pinned_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..4).map(|i| file(folder.path(), &i.to_string(), i as f32)).collect();
    let registry = Registry::new(350);
    let ids: Vec<_> = paths[..3].iter().map(|path| registry.acquire(path, hundred).unwrap().id()).collect();
    assert!(registry.pin(ids[1], true));
    let leased = registry.acquire(&paths[0], hundred).unwrap();
    registry.acquire(&paths[3], hundred).unwrap();
    let left: Vec<_> = registry.residents().iter().map(|resident| resident.id).collect();
    assert!(left.contains(&ids[0]) && left.contains(&ids[1]) && !left.contains(&ids[2]), "{left:?}");

    let all: Vec<_> = registry.residents().iter().map(|resident| resident.id).collect();
    all.iter().for_each(|&id| assert!(registry.pin(id, true)));
    let error = registry.acquire(&paths[2], hundred).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");

    assert_eq!(registry.unload(ids[0]), Unloaded::WhenReturned(1));
    assert_eq!(leased.0, 100);
    assert_eq!(registry.unload(ids[1]), Unloaded::Freed);
    assert_eq!(registry.unload(ids[1]), Unloaded::Absent);
}
