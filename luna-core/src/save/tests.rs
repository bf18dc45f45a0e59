use super::*;
use crate::{
    Image, Limits,
    files::IfExists,
    picture::{Format, read_picture},
    pool::{Scaling, WhenFull},
};
use std::{
    fs, io,
    path::Path,
    sync::{Mutex, mpsc},
};

fn image(value: u8) -> SaveImage {
    SaveImage::new(Picture::from_u8([1, 4, 4, 3], vec![value; 48]).unwrap(), Format::PNG)
}

fn job(name: &str, images: Vec<SaveImage>) -> SaveJob {
    SaveJob { name: Template::parse(name).unwrap(), ..SaveJob::new(images) }
}

fn durable(name: &str, images: Vec<SaveImage>) -> SaveJob {
    SaveJob { durable: true, ..job(name, images) }
}

fn config(folder: &Path) -> SaveConfig {
    SaveConfig {
        spool: Some(folder.join("spool")),
        retry_delays: vec![Duration::ZERO],
        ..SaveConfig::new(folder.join("out"))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

fn run(pool: &SavePool, job: SaveJob) -> JobStatus {
    let id = pool.submit(job).unwrap();
    pool.wait(id, Some(Duration::from_secs(30))).unwrap()
}

fn reason(status: &JobStatus, picture: usize) -> Arc<Error> {
    match &status.pictures[picture].fate {
        Fate::Failed(error) => Arc::clone(error),
        other => panic!("{other:?}"),
    }
}

/// Keeps the pool's only thread busy until the sender goes.
fn occupy(pool: &SavePool) -> mpsc::Sender<()> {
    let (release, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let wait_for = move |_: &JobStatus| {
        begun.send(()).unwrap();
        _ = wait.recv();
    };
    pool.submit_then(job("first", vec![image(0)]), wait_for).unwrap();
    has_begun.recv().unwrap();
    release
}

fn one_thread(folder: &Path) -> SaveConfig {
    SaveConfig { scaling: Scaling { threads: 1..=1, ..Scaling::default() }, ..config(folder) }
}

#[test]
fn a_finished_job_says_where_each_picture_is() {
    let folder = tempfile::tempdir().unwrap();
    let pool = SavePool::new(config(folder.path())).unwrap();
    let float = Image::new([2, 3, 5, 3], (0..90).map(|i| i as f32 / 90.0).collect()).unwrap();
    let float = SaveImage { affix: "RAW".to_owned(), subfolder: true, ..SaveImage::new(float, Format::PNG) };
    let status = run(&pool, job("moon", vec![image(7), float]));
    assert_eq!(status.state(), JobState::Done);
    let out = fs::canonicalize(folder.path().join("out")).unwrap();
    for (picture, name) in status.pictures.iter().zip(["moon.png", "RAW/moon_RAW_0.png", "RAW/moon_RAW_1.png"]) {
        let Fate::Written(file) = &picture.fate else { panic!("{picture:?}") };
        assert_eq!(file.path, out.join(name));
        let bytes = fs::read(&file.path).unwrap();
        assert_eq!(file.bytes, bytes.len() as u64);
        let sum: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&bytes).into();
        assert_eq!((file.sha256, file.sha256_hex().len()), (sum, 64));
    }
    let counters = pool.counters();
    assert_eq!((counters.jobs, counters.jobs_finished, counters.written), (1, 1, 3));
    pool.close();
    assert_eq!(pool.counters().pool.weight, 0);
}

#[test]
fn one_failing_picture_stops_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let pool = SavePool::new(config(folder.path())).unwrap();
    let alpha = SaveImage::new(Picture::from_u8([1, 2, 2, 4], vec![9; 16]).unwrap(), Format::JPEG);
    let nan = Image::new([1, 1, 1, 3], vec![0.5, f32::NAN, 0.5]).unwrap();
    let status = run(&pool, job("x", vec![image(1), alpha, SaveImage::new(nan, Format::PNG), image(2)]));
    assert_eq!(status.state(), JobState::Failed);
    assert_eq!(reason(&status, 1).kind(), ErrorKind::InvalidInput);
    let nan = reason(&status, 2);
    assert_eq!(nan.kind(), ErrorKind::NonFinite);
    assert!(nan.to_string().starts_with("picture 3 of 4: the picture holds NaN"), "{nan}");
    assert_eq!(names(&folder.path().join("out")), ["x-2.png", "x.png"]);
    assert_eq!(pool.counters().retries, 0);
}

#[test]
fn what_exists_is_numbered_replaced_or_refused_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let pool = SavePool::new(config(folder.path())).unwrap();
    for value in 1..=3 {
        assert_eq!(run(&pool, job("x", vec![image(value)])).state(), JobState::Done);
    }
    assert_eq!(names(&out), ["x-2.png", "x-3.png", "x.png"]);
    let replace = SaveJob { if_exists: IfExists::Replace, ..job("x", vec![image(9)]) };
    assert_eq!(run(&pool, replace).state(), JobState::Done);
    let value = |name: &str| read_picture(&out.join(name), &Limits::default()).unwrap().data()[0] * 255.0;
    assert_eq!((value("x.png"), value("x-2.png")), (9.0, 2.0));
    let refuse = SaveJob { if_exists: IfExists::Refuse, ..job("x", vec![image(5)]) };
    assert!(reason(&run(&pool, refuse), 0).to_string().contains("exists already"));
    assert_eq!(names(&out).len(), 3);
}

#[test]
fn counters_give_every_picture_its_own_number() {
    let folder = tempfile::tempdir().unwrap();
    let pool = SavePool::new(config(folder.path())).unwrap();
    let ids: Vec<_> = (0..40).map(|value| pool.submit(job("n_%counter:4%", vec![image(value)])).unwrap()).collect();
    for id in ids {
        assert_eq!(pool.wait(id, None).unwrap().state(), JobState::Done);
    }
    let expected: Vec<_> = (1..=40).map(|number| format!("n_{number:04}.png")).collect();
    assert_eq!(names(&folder.path().join("out")), expected);
}

#[test]
fn gates_keep_or_drop_what_they_reject() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let pool = SavePool::new(config(folder.path())).unwrap();
    let lively: Vec<u8> = (0..8 * 8 * 3).map(|i| if (i / 3 + i / 24) % 2 == 0 { 0 } else { 255 }).collect();
    let lively = SaveImage::new(Picture::from_u8([1, 8, 8, 3], lively).unwrap(), Format::PNG);
    let gate = Gate::new(GateMode::Both);
    let status = run(&pool, SaveJob { gate, ..job("x", vec![lively, image(3)]) });
    assert_eq!(status.state(), JobState::Rejected);
    let Fate::Written(file) = &status.pictures[0].fate else { panic!() };
    assert!(file.verdict.unwrap().passed);
    let Fate::Rejected { verdict, kept: Some(kept) } = &status.pictures[1].fate else { panic!() };
    assert_eq!((verdict.score, verdict.threshold), (0.0, 0.3));
    assert_eq!(kept.path, fs::canonicalize(out.join("_discarded/x.png")).unwrap());
    let gate = Gate { rejects: Rejects::Drop, ..gate };
    let status = run(&pool, SaveJob { gate, ..job("y", vec![image(3)]) });
    assert!(matches!(status.pictures[0].fate, Fate::Rejected { kept: None, .. }));
    assert_eq!(names(&out), ["_discarded", "x.png"]);
    assert_eq!(pool.counters().rejected, 2);
}

#[test]
fn a_full_queue_waits_or_is_busy() {
    let folder = tempfile::tempdir().unwrap();
    let pool = SavePool::new(SaveConfig { queue_bytes: 100, ..one_thread(folder.path()) }).unwrap();
    let release = occupy(&pool);
    let busy = SaveJob { when_full: WhenFull::Busy, ..job("x", vec![image(1), image(1)]) };
    assert_eq!(pool.submit(busy).unwrap_err().kind(), ErrorKind::Busy);
    let huge = job("x", vec![image(1), image(1), image(1)]);
    assert_eq!(pool.submit(huge).unwrap_err().kind(), ErrorKind::LimitExceeded);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| run(&pool, job("x", vec![image(1), image(1)])));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        drop(release);
        assert_eq!(waiting.join().unwrap().state(), JobState::Done);
    });
    assert!(pool.counters().pool.peak_weight <= 100);
    assert_eq!(names(&folder.path().join("spool")), ["lock"]);
}

#[test]
fn a_cancelled_job_writes_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let pool = SavePool::new(one_thread(folder.path())).unwrap();
    let release = occupy(&pool);
    let ids = [job("y", vec![image(1)]), durable("z", vec![image(2)])].map(|job| pool.submit(job).unwrap());
    for id in ids {
        assert_eq!(pool.status(id).unwrap().state(), JobState::Queued);
        pool.cancel(id).unwrap();
    }
    drop(release);
    for id in ids {
        assert_eq!(pool.wait(id, None).unwrap().state(), JobState::Cancelled);
    }
    pool.close();
    assert_eq!(names(&folder.path().join("out")), ["first.png"]);
    assert_eq!(names(&folder.path().join("spool")), ["lock"]);
}

#[test]
fn a_full_disk_is_tried_again_and_then_reported() {
    let folder = tempfile::tempdir().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let listener: SaveListener = Arc::new(move |event| {
        if let SaveEvent::Retrying(_, error, _) = event {
            told.lock().unwrap().push(error.to_string());
        }
    });
    let pool = SavePool::new(SaveConfig { listener: Some(listener), ..config(folder.path()) }).unwrap();
    let faults = |count: usize, kind| *pool.saver.root.folder().faults.lock().unwrap() = vec![kind; count];
    faults(1, io::ErrorKind::StorageFull);
    assert_eq!(run(&pool, job("x", vec![image(1)])).state(), JobState::Done);
    assert_eq!(pool.counters().retries, 1);
    assert!(seen.lock().unwrap()[0].contains("write into"));
    faults(2, io::ErrorKind::StorageFull);
    let error = reason(&run(&pool, job("y", vec![image(1)])), 0);
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains(&io::Error::from(io::ErrorKind::StorageFull).to_string()), "{error}");
    faults(1, io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(run(&pool, job("z", vec![image(1)])).state(), JobState::Failed, "no pause makes a disk writable");
    assert_eq!(names(&folder.path().join("out")), ["x.png"]);
}

#[test]
fn folders_that_vanish_or_are_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let pool = SavePool::new(config(folder.path())).unwrap();
    fs::remove_dir(&out).unwrap();
    assert_eq!(run(&pool, job("a/x", vec![image(1)])).state(), JobState::Done);
    fs::write(out.join("file"), b"").unwrap();
    let error = reason(&run(&pool, job("file/x", vec![image(1)])), 0);
    assert!(error.to_string().contains("is no folder"), "{error}");
}

#[cfg(unix)]
#[test]
fn links_may_lead_about_but_not_out() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let pool = SavePool::new(config(folder.path())).unwrap();
    fs::create_dir_all(out.join("real")).unwrap();
    std::os::unix::fs::symlink(out.join("real"), out.join("inside")).unwrap();
    std::os::unix::fs::symlink(folder.path(), out.join("outside")).unwrap();
    assert_eq!(run(&pool, job("inside/x", vec![image(1)])).state(), JobState::Done);
    assert_eq!(names(&out.join("real")), ["x.png"]);
    let error = reason(&run(&pool, job("outside/x", vec![image(1)])), 0);
    assert!(error.to_string().contains("leads out of the output folder"), "{error}");
    fs::write(folder.path().join("target.png"), b"mine").unwrap();
    std::os::unix::fs::symlink(folder.path().join("target.png"), out.join("link.png")).unwrap();
    let replace = SaveJob { if_exists: IfExists::Replace, ..job("link", vec![image(1)]) };
    assert_eq!(run(&pool, replace).state(), JobState::Failed);
    assert_eq!(fs::read(folder.path().join("target.png")).unwrap(), b"mine");
}

#[test]
fn callbacks_and_events_tell_the_story_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let story = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&story);
    let listener: SaveListener = Arc::new(move |event| {
        told.lock().unwrap().push(match event {
            SaveEvent::Queued(_) => "queued".to_owned(),
            SaveEvent::Settled(_, picture) => format!("settled {}", picture.fate.is_final()),
            SaveEvent::Finished(status) => format!("finished {}", status.state().name()),
            other => format!("{other:?}"),
        });
    });
    let pool = SavePool::new(SaveConfig { listener: Some(listener), ..config(folder.path()) }).unwrap();
    let (send, receive) = mpsc::channel();
    pool.submit_then(job("x", vec![image(1)]), move |status| send.send(status.state()).unwrap()).unwrap();
    assert_eq!(receive.recv().unwrap(), JobState::Done);
    drop(pool);
    assert_eq!(*story.lock().unwrap(), ["queued", "settled true", "finished done"]);
}

#[test]
fn results_are_kept_for_a_bounded_time_and_number() {
    let folder = tempfile::tempdir().unwrap();
    let pool = SavePool::new(SaveConfig { keep_results: 2, ..config(folder.path()) }).unwrap();
    let ids: Vec<_> = (0..4)
        .map(|value| {
            let id = pool.submit(job("x", vec![image(value)])).unwrap();
            pool.wait(id, None).unwrap();
            id
        })
        .collect();
    assert_eq!(pool.list().iter().map(|status| status.id).collect::<Vec<_>>(), [ids[3], ids[2]]);
    assert_eq!(pool.status(ids[0]).unwrap_err().kind(), ErrorKind::NotFound);
    pool.forget(ids[3]).unwrap();
    assert_eq!(pool.list().len(), 1);
    let brief = SaveConfig { keep_results_for: Duration::ZERO, spool: None, ..config(folder.path()) };
    let pool = SavePool::new(brief).unwrap();
    pool.submit(job("y", vec![image(1)])).unwrap();
    pool.close();
    assert!(pool.list().is_empty());
}

#[test]
fn a_job_that_can_never_be_saved_is_refused_whole() {
    let folder = tempfile::tempdir().unwrap();
    let pool = SavePool::new(SaveConfig { spool: None, ..config(folder.path()) }).unwrap();
    assert_eq!(pool.submit(job("../x", vec![image(1)])).unwrap_err().kind(), ErrorKind::InvalidInput);
    let error = pool.submit(durable("x", vec![image(1)])).unwrap_err();
    assert!(error.to_string().contains("no spool"), "{error}");
    assert!(pool.list().is_empty() && names(&folder.path().join("out")).is_empty());
}

/// Pixels that are handed over are moved, never copied.
#[test]
fn pixels_stay_where_they_are() {
    let image = Image::new([1, 5, 3, 3], vec![0.5; 45]).unwrap();
    let address = image.data().as_ptr();
    let job = job("x", vec![SaveImage::new(image, Format::PNG)]);
    let job::Values::F32(values) = job.images[0].pixels.values() else { panic!("{:?}", job.images[0].pixels) };
    assert_eq!(values.as_ptr(), address);
}

mod durability;
