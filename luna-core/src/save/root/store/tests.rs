use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
};

use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};

use super::{Attribute, MARK};
use crate::{
    ErrorKind,
    files::IfExists,
    picture::Format,
    save::{
        Fate, Gate, GateMode, JobState, JobStatus, Picture, SaveConfig, SaveImage, SaveJob, SavePool, Target, Template,
        new_id,
        spool::{ReadyFile, Spool, Step},
    },
};

/// Stores that outlive the pools that use them, as real ones do.
static STORES: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

pub(super) fn memory(bucket: &str) -> Arc<InMemory> {
    Arc::clone(STORES.lock().unwrap().entry(bucket.to_owned()).or_default())
}

fn config(bucket: &str) -> SaveConfig {
    let target = Target::store(&format!("memory://{bucket}/art"), [("", ""); 0]).unwrap();
    SaveConfig { retry_delays: Vec::new(), ..SaveConfig::new(target) }
}

fn job(name: &str, values: &[u8]) -> SaveJob {
    let image = |value: &u8| SaveImage::new(Picture::from_u8([1, 4, 6, 3], vec![*value; 72]).unwrap(), Format::PNG);
    SaveJob { name: Template::parse(name).unwrap(), ..SaveJob::new(values.iter().map(image).collect()) }
}

fn run(pool: &SavePool, job: SaveJob) -> JobStatus {
    let id = pool.submit(job).unwrap();
    pool.wait(id, None).unwrap()
}

fn keys(bucket: &str) -> Vec<String> {
    let mut keys: Vec<_> = wait(memory(bucket).list_with_delimiter(Some(&Path::parse("art").unwrap())))
        .unwrap()
        .objects
        .into_iter()
        .map(|object| object.location.to_string())
        .collect();
    keys.sort();
    keys
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn content(bucket: &str, key: &str) -> Vec<u8> {
    let path = Path::parse(key).unwrap();
    wait(async { memory(bucket).get(&path).await.unwrap().bytes().await.unwrap().to_vec() })
}

#[test]
fn objects_hold_what_the_job_says() {
    let pool = SavePool::new(config("says")).unwrap();
    let status = run(&pool, job("a/100%%_%counter:3%", &[7, 8]));
    assert_eq!(status.state(), JobState::Done, "{status:?}");
    for (picture, key) in status.pictures.iter().zip(["art/a/100%_001.png", "art/a/100%_002.png"]) {
        let Fate::Written(file) = &picture.fate else { panic!() };
        assert!(file.path.to_str().unwrap().starts_with("memory://says/art/a/100%_00"), "{file:?}");
        let bytes = content("says", key);
        assert_eq!(bytes.len() as u64, file.bytes);
        let found = wait(memory("says").get(&Path::parse(key).unwrap())).unwrap();
        assert_eq!(found.attributes.get(&Attribute::ContentType).unwrap().as_ref(), "image/png");
    }
    let gate = Gate::new(GateMode::Variance);
    let status = run(&pool, SaveJob { gate, ..job("x", &[1]) });
    let Fate::Rejected { kept: Some(kept), .. } = &status.pictures[0].fate else { panic!() };
    assert!(kept.path.ends_with("art/_discarded/x.png"), "{kept:?}");
}

#[test]
fn what_exists_is_numbered_replaced_or_refused_as_asked() {
    let pool = SavePool::new(config("exists")).unwrap();
    for value in 1..=3 {
        assert_eq!(run(&pool, job("x", &[value])).state(), JobState::Done);
    }
    assert_eq!(keys("exists"), ["art/x-2.png", "art/x-3.png", "art/x.png"]);
    // Another process knows no numbers and has to look.
    let other = SavePool::new(config("exists")).unwrap();
    assert_eq!(run(&other, job("x", &[4])).state(), JobState::Done);
    let first = content("exists", "art/x.png");
    let refuse = SaveJob { if_exists: IfExists::Refuse, ..job("x", &[5]) };
    let Fate::Failed(error) = &run(&other, refuse).pictures[0].fate else { panic!() };
    assert!(error.to_string().contains("memory://exists/art/x.png exists already"), "{error}");
    assert_eq!(content("exists", "art/x.png"), first);
    let replace = SaveJob { if_exists: IfExists::Replace, ..job("x", &[200]) };
    assert_eq!(run(&other, replace).state(), JobState::Done);
    assert_ne!(content("exists", "art/x.png"), first);
    assert_eq!(keys("exists").len(), 4);
}

#[test]
fn pools_that_share_a_store_share_its_numbers() {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let pool = SavePool::new(config("race")).unwrap();
                for value in 0..10 {
                    let status = run(&pool, job("n_%counter:4%", &[thread * 10 + value]));
                    assert_eq!(status.state(), JobState::Done, "{status:?}");
                }
            });
        }
    });
    let expected: Vec<_> = (1..=40).map(|number| format!("art/n_{number:04}.png")).collect();
    assert_eq!(keys("race"), expected);
}

/// A job as a process leaves it that died when it had tried `x.png`; whether the store had taken it, and the mark.
fn died(bucket: &str, object: Option<bool>, steps_after: &[Step]) -> JobStatus {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), 1 << 20).unwrap();
    let id = new_id();
    spool.add(id, &SaveJob { durable: true, ..job("x", &[9]) }).unwrap();
    let ready = ReadyFile { hidden: "".into(), bytes: 3, sha256: [1; 32], verdict: None, rejected: false };
    spool.note(id, 0, &[Step::Begin, Step::Ready(ready), Step::Try("art/x.png".into())]).unwrap();
    spool.note(id, 0, steps_after).unwrap();
    if let Some(ours) = object {
        let mark = if ours { format!("{id}-0") } else { "another-0".to_owned() };
        let attributes = [(Attribute::Metadata(MARK.into()), mark)].into_iter().collect();
        let options = object_store::PutOptions { attributes, ..Default::default() };
        let key = Path::parse("art/x.png").unwrap();
        wait(memory(bucket).put_opts(&key, "old".into(), options)).unwrap();
    }
    drop(spool);
    let pool = SavePool::new(SaveConfig { spool: Some(folder.path().into()), ..config(bucket) }).unwrap();
    let status = pool.wait(id, None).unwrap();
    pool.close();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only the lock is left");
    assert_eq!(status.state(), JobState::Done, "{status:?}");
    status
}

#[test]
fn what_a_dead_process_had_put_is_known_by_its_mark() {
    died("dead-taken", Some(true), &[]);
    assert_eq!(keys("dead-taken"), ["art/x.png"]);
    assert_eq!(content("dead-taken", "art/x.png"), b"old");
    died("dead-not-taken", None, &[]);
    assert_eq!(keys("dead-not-taken"), ["art/x.png"]);
    died("dead-other", Some(false), &[]);
    assert_eq!(keys("dead-other"), ["art/x-2.png", "art/x.png"]);
    assert_eq!(content("dead-other", "art/x.png"), b"old");
    // Written, and then taken away by its owner: it stays away.
    died("dead-removed", None, &[Step::Written]);
    assert!(keys("dead-removed").is_empty());
}

#[test]
fn durable_jobs_and_cancelled_ones_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let pool = SavePool::new(SaveConfig { spool: Some(folder.path().into()), ..config("durable") }).unwrap();
    let status = run(&pool, SaveJob { durable: true, ..job("x", &[1, 2]) });
    assert_eq!(status.state(), JobState::Done, "{status:?}");
    assert_eq!(keys("durable").len(), 2);
    pool.close();
    assert!(pool.saver.root.store().known().unanswered.is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_caller_with_a_runtime_of_its_own_is_not_disturbed() {
    wait(async {
        let pool = SavePool::new(config("async")).unwrap();
        assert_eq!(run(&pool, job("x", &[1])).state(), JobState::Done);
        drop(pool);
    });
    assert_eq!(keys("async"), ["art/x.png"]);
}

#[test]
fn a_store_that_lacks_what_it_needs_is_refused_when_opened() {
    let target = Target::store("az://container/x", [("", ""); 0]).unwrap();
    let error = SavePool::new(SaveConfig::new(target)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("az://container/x"), "{error}");
}
