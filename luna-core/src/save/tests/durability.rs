//! What a killed process leaves is finished by the next one, exactly once.

use super::*;
use crate::{
    picture::Metadata,
    picture::encode,
    save::spool::{ReadyFile, Step},
};
use std::path::PathBuf;

/// A spool as a process leaves it that was killed while it saved `x.png`; `prepare` says what it had done.
fn killed(prepare: impl FnOnce(&Path, &dyn Fn(&[Step]), Vec<u8>, JobId)) -> (tempfile::TempDir, JobStatus) {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(&folder.path().join("spool"), 1 << 20).unwrap();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    let (id, job) = (new_id(), durable("x", vec![image(5)]));
    spool.add(id, &job).unwrap();
    let pixels = job.images[0].pixels.pixels(0).unwrap();
    let bytes = encode(&pixels, Format::PNG, &Metadata::none()).unwrap();
    prepare(&out, &|steps| spool.note(id, 0, steps).unwrap(), bytes, id);
    drop(spool);
    let pool = SavePool::new(config(folder.path())).unwrap();
    let status = pool.wait(id, None).unwrap();
    pool.close();
    assert_eq!(names(&folder.path().join("spool")), ["lock"]);
    (folder, status)
}

fn ready(hidden: &str, bytes: &[u8]) -> Step {
    let hidden = PathBuf::from(hidden);
    Step::Ready(ReadyFile { hidden, bytes: bytes.len() as u64, sha256: [1; 32], verdict: None, rejected: false })
}

fn written(status: &JobStatus) -> &Written {
    match &status.pictures[0].fate {
        Fate::Written(file) => file,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_job_not_begun_is_saved_by_the_next_process() {
    let (folder, status) = killed(|_, _, _, _| {});
    assert!(written(&status).took > Duration::ZERO);
    let image = read_picture(&folder.path().join("out/x.png"), &Limits::default()).unwrap();
    assert_eq!(image.data()[0], 5.0 / 255.0);
}

#[test]
fn half_a_hidden_file_is_made_again() {
    let (folder, _) = killed(|out, note, bytes, id| {
        note(&[Step::Begin]);
        fs::write(out.join(format!(".luna-{id}-0.part")), &bytes[..20]).unwrap();
    });
    assert_eq!(names(&folder.path().join("out")), ["x.png"]);
    assert!(read_picture(&folder.path().join("out/x.png"), &Limits::default()).is_ok());
}

#[test]
fn a_whole_hidden_file_is_only_moved() {
    let (folder, status) = killed(|out, note, bytes, id| {
        let hidden = format!(".luna-{id}-0.part");
        fs::write(out.join(&hidden), &bytes).unwrap();
        // Taken meanwhile by someone else.
        fs::write(out.join("x.png"), b"other").unwrap();
        note(&[Step::Begin, ready(&hidden, &bytes), Step::Try("x.png".into())]);
    });
    assert_eq!(names(&folder.path().join("out")), ["x-2.png", "x.png"]);
    assert_eq!((written(&status).sha256, written(&status).took), ([1; 32], Duration::ZERO));
}

#[test]
fn a_moved_file_is_not_written_again() {
    for unlinked in [true, false] {
        let (folder, status) = killed(|out, note, bytes, id| {
            let hidden = format!(".luna-{id}-0.part");
            note(&[Step::Begin, ready(&hidden, &bytes), Step::Try("x.png".into())]);
            fs::write(out.join("x.png"), &bytes).unwrap();
            if !unlinked {
                fs::hard_link(out.join("x.png"), out.join(&hidden)).unwrap();
            }
        });
        assert_eq!(names(&folder.path().join("out")), ["x.png"], "unlinked {unlinked}");
        assert!(written(&status).path.ends_with("x.png"));
    }
}

#[test]
fn a_file_moved_and_then_taken_away_by_its_owner_stays_away() {
    let (folder, _) = killed(|_, note, bytes, id| {
        note(&[ready(&format!(".luna-{id}-0.part"), &bytes), Step::Try("x.png".into()), Step::Written]);
    });
    assert!(names(&folder.path().join("out")).is_empty());
}

#[test]
fn a_line_cut_short_ends_the_notes() {
    let (folder, _) = killed(|out, note, bytes, id| {
        note(&[Step::Begin]);
        let log = out.parent().unwrap().join(format!("spool/{id}.log"));
        let mut text = fs::read(&log).unwrap();
        text.extend(b"{\"picture\":0,\"step\":{\"rea");
        fs::write(log, text).unwrap();
        fs::write(out.join(format!(".luna-{id}-0.part")), &bytes).unwrap();
    });
    assert_eq!(names(&folder.path().join("out")), ["x.png"]);
}

#[test]
fn damaged_jobs_are_put_aside_and_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(&folder.path().join("spool"), 1 << 20).unwrap();
    let ids = [new_id(), new_id(), new_id()];
    for id in ids {
        spool.add(id, &durable("x", vec![image(5)])).unwrap();
    }
    // Nothing a job begins with; the header cut off; the sum wrong.
    let path = |id: JobId| folder.path().join(format!("spool/{id}.job"));
    fs::write(path(ids[0]), b"hello").unwrap();
    let bytes = fs::read(path(ids[1])).unwrap();
    fs::write(path(ids[1]), &bytes[..bytes.len() / 2]).unwrap();
    let mut bytes = fs::read(path(ids[2])).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path(ids[2]), bytes).unwrap();
    drop(spool);
    let told = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&told);
    let listener: SaveListener = Arc::new(move |event| {
        if let SaveEvent::Damaged(aside, error) = event {
            assert!(aside.exists() && error.kind() == ErrorKind::InvalidFile, "{error}");
            hears.lock().unwrap().push(aside.clone());
        }
    });
    let pool = SavePool::new(SaveConfig { listener: Some(listener), ..config(folder.path()) }).unwrap();
    pool.close();
    assert_eq!(told.lock().unwrap().len(), 3);
    assert!(names(&folder.path().join("out")).is_empty());
    assert!(pool.list().iter().all(|status| status.state() == JobState::Failed));
}

#[test]
fn a_failed_job_is_kept_and_can_be_tried_again_or_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let pool = SavePool::new(config(folder.path())).unwrap();
    let fail = || {
        *pool.saver.root.folder().faults.lock().unwrap() = vec![io::ErrorKind::StorageFull; 2];
        let status = run(&pool, durable("x", vec![image(1)]));
        assert_eq!(status.state(), JobState::Failed);
        status.id
    };
    let id = fail();
    assert!(names(&folder.path().join("spool")).len() > 1, "it is kept");
    pool.retry(id).unwrap();
    assert_eq!(pool.wait(id, None).unwrap().state(), JobState::Done);
    assert!(pool.retry(id).is_err());
    let id = fail();
    pool.forget(id).unwrap();
    pool.close();
    assert_eq!(names(&folder.path().join("out")), ["x.png"]);
    assert_eq!(names(&folder.path().join("spool")), ["lock"]);
}

#[test]
fn a_spool_belongs_to_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let pool = SavePool::new(config(folder.path())).unwrap();
    assert_eq!(SavePool::new(config(folder.path())).unwrap_err().kind(), ErrorKind::Busy);
    drop(pool);
    assert!(SavePool::new(config(folder.path())).is_ok());
}

#[test]
fn everything_of_a_job_survives_the_spool() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), 1 << 20).unwrap();
    let float = Image::new([2, 1, 2, 3], (0..12).map(|i| i as f32 * 0.1 - 0.3).collect()).unwrap();
    let mut job = durable("%seed%_%prompt:9%", vec![image(5), SaveImage::new(float, Format::WebpLossless)]);
    job.values.seed = Some(u64::MAX);
    job.values.prompt = Some("été".to_owned());
    job.metadata = Metadata::none().with("parameters", "été").unwrap();
    job.gate = Gate { threshold: 0.123, ..Gate::new(GateMode::Both) };
    job.images[1].affix = "A".to_owned();
    let id = new_id();
    spool.add(id, &job).unwrap();
    assert_eq!(spool.list().unwrap(), [id]);
    let back = spool.load(id).unwrap();
    assert_eq!(format!("{back:?}"), format!("{:?}", SaveJob { when_full: back.when_full, ..job }));
    assert_eq!(spool.describe(id).unwrap().plan("i").unwrap().len(), 3);
}
