//! Pictures saved to an S3 server over HTTP, also one that fails: nothing is lost, overwritten or put twice. Runs with
//! the feature `object-store`; the server is the test's own.

use std::{fs, path::Path, time::Duration};

use luna_core::{
    ErrorKind,
    picture::Format,
    save::{Fate, JobState, JobStatus, Picture, SaveConfig, SaveImage, SaveJob, SavePool, Target, Template},
};
use luna_tests::object_server::{Fault, ObjectServer};

fn options(server: &ObjectServer) -> [(&'static str, String); 5] {
    [
        ("aws_endpoint", server.endpoint()),
        ("aws_allow_http", "true".to_owned()),
        ("aws_access_key_id", "me".to_owned()),
        ("aws_secret_access_key", "hush".to_owned()),
        ("aws_region", "here".to_owned()),
    ]
}

fn config(server: &ObjectServer) -> SaveConfig {
    let mut config = SaveConfig::new(Target::store("s3://pictures/été/2026", options(server)).unwrap());
    config.retry_delays = vec![Duration::from_millis(1); 3];
    config
}

fn job(name: &str, value: u8) -> SaveJob {
    let pixels = Picture::from_u8([1, 5, 3, 3], vec![value; 45]).unwrap();
    let mut job = SaveJob::new(vec![SaveImage::new(pixels, Format::PNG)]);
    job.name = Template::parse(name).unwrap();
    job
}

fn run(pool: &SavePool, job: SaveJob) -> JobStatus {
    let id = pool.submit(job).unwrap();
    pool.wait(id, None).unwrap()
}

fn url(status: &JobStatus) -> &Path {
    match &status.pictures[0].fate {
        Fate::Written(file) => &file.path,
        other => panic!("{other:?}"),
    }
}

#[test]
fn objects_are_whole_numbered_and_typed() {
    let server = ObjectServer::start();
    let pool = SavePool::new(config(&server)).unwrap();
    for (name, key) in [
        ("lac & lune/100%%", "lac & lune/100%.png"),
        ("lac & lune/100%%", "lac & lune/100%-2.png"),
        ("n/%counter:3%", "n/001.png"),
        ("n/%counter:3%", "n/002.png"),
    ] {
        let status = run(&pool, job(name, 90));
        assert_eq!(url(&status).to_str().unwrap(), format!("s3://pictures/été/2026/{key}"));
        let object = &server.objects()[&format!("été/2026/{key}")];
        let Fate::Written(file) = &status.pictures[0].fate else { unreachable!() };
        assert_eq!((object.bytes.len() as u64, object.puts), (file.bytes, 1));
        assert!(object.bytes.starts_with(b"\x89PNG"));
        assert!(object.headers.contains(&("content-type".to_owned(), "image/png".to_owned())), "{:?}", object.headers);
    }
    // A second process goes on counting where the first stopped.
    let other = SavePool::new(config(&server)).unwrap();
    assert!(url(&run(&other, job("n/%counter:3%", 1))).ends_with("n/003.png"));
    assert!(url(&run(&other, job("lac & lune/100%%", 1))).ends_with("100%-3.png"));
}

#[test]
fn faults_are_retried_and_a_lost_answer_is_no_second_picture() {
    let server = ObjectServer::start();
    let pool = SavePool::new(config(&server)).unwrap();
    for (turn, fault) in [Fault::Unavailable, Fault::Cut, Fault::TakenWithoutAnswer].into_iter().enumerate() {
        server.order([fault]);
        let status = run(&pool, job("x", 90));
        assert_eq!(status.state(), JobState::Done, "{fault:?}: {status:?}");
        assert_eq!(server.objects().len(), turn + 1, "{fault:?}: {:?}", server.objects().keys());
    }
    assert!(server.objects().values().all(|object| object.puts == 1));
    assert_eq!(pool.counters().retries, 2, "the lost answer needed none");
}

#[test]
fn what_no_retry_helps_fails_at_once_and_says_why() {
    let server = ObjectServer::start();
    let pool = SavePool::new(config(&server)).unwrap();
    server.order([Fault::Forbidden]);
    let status = run(&pool, job("x", 90));
    let Fate::Failed(error) = &status.pictures[0].fate else { panic!("{status:?}") };
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(
        error.to_string().contains("s3://pictures/été/2026/x.png") && error.to_string().contains("credentials"),
        "{error}"
    );
    assert_eq!(pool.counters().retries, 0);
    server.order([Fault::Unavailable; 4]);
    let status = run(&pool, job("x", 90));
    let Fate::Failed(error) = &status.pictures[0].fate else { panic!("{status:?}") };
    assert!(error.to_string().contains("503"), "{error}");
    assert_eq!(pool.counters().retries, 3);
    assert!(server.objects().is_empty());
}

#[test]
fn a_server_that_is_away_keeps_durable_jobs_for_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let server = ObjectServer::start();
    let mut away = config(&server);
    let mut nowhere = options(&server);
    // Port 9 discards, where anything listens there at all.
    nowhere[0].1 = "http://127.0.0.1:9".to_owned();
    away.root = Target::store("s3://pictures", nowhere).unwrap();
    away.spool = Some(folder.path().to_owned());
    let pool = SavePool::new(away).unwrap();
    let mut durable = job("x", 90);
    durable.durable = true;
    let status = run(&pool, durable);
    assert_eq!(status.state(), JobState::Failed);
    drop(pool);
    let mut back = config(&server);
    back.spool = Some(folder.path().to_owned());
    let pool = SavePool::new(back).unwrap();
    assert_eq!(pool.wait(status.id, None).unwrap().state(), JobState::Done);
    drop(pool);
    assert_eq!(server.objects().len(), 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the lock is left");
}

#[test]
fn savers_that_race_for_numbers_all_get_their_own() {
    let server = ObjectServer::start();
    std::thread::scope(|scope| {
        for value in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let pool = SavePool::new(config(server)).unwrap();
                for _ in 0..8 {
                    assert_eq!(run(&pool, job("c_%counter:2%", value)).state(), JobState::Done);
                }
            });
        }
    });
    let expected: Vec<_> = (1..=32).map(|number| format!("été/2026/c_{number:02}.png")).collect();
    assert_eq!(server.objects().into_keys().collect::<Vec<_>>(), expected);
}
