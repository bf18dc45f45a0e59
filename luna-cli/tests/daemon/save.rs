//! Save jobs: pictures to files below the daemon's folder, and to their end when the daemon is told to stop.

use super::{Server, picture, until};
use luna_core::{
    ErrorKind, Limits,
    client::CallOptions,
    picture::read_picture,
    protocol::{
        Fault, JobStatus, Reason, SaveImageWish, SaveImagesAsync, SaveValues, Shutdown, SubmitAsync, TaskName,
        TensorRef,
    },
    save::{Gate, GateMode},
};
use std::{fs, path::Path, time::Duration};

const MINUTE: Duration = Duration::from_secs(60);

fn named(name: &str) -> SaveImagesAsync {
    SaveImagesAsync { name: Some(name.to_owned()), ..SaveImagesAsync::default() }
}

#[test]
fn pictures_are_saved_and_each_fate_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let server = Server::start(&format!("--output {}", output.display()));
    let client = server.client();
    let photo = picture(20, 31);
    let request = SaveImagesAsync {
        folder: Some("today".to_owned()),
        output: Some(output.join("b").display().to_string()),
        values: SaveValues { seed: Some(7), ..SaveValues::default() },
        metadata: vec![("parameters".to_owned(), "a fox".to_owned())],
        ..named("%seed%_%counter:3%")
    };
    let accepted = client.save_images(&[&photo], &request, &CallOptions::default()).unwrap();
    assert_eq!(accepted.num_images, 1);
    let state = client.wait_for_job(&accepted.job_id, MINUTE).unwrap();
    assert_eq!((state.state.as_str(), state.finished), ("done", true), "{state:?}");
    let file = state.pictures[0].file.as_ref().unwrap();
    let real = output.canonicalize().unwrap();
    assert_eq!(Path::new(&file.path), real.join("b/today/7_001.png"));
    assert_eq!(fs::metadata(&file.path).unwrap().len(), file.bytes);
    let read = read_picture(Path::new(&file.path), &Limits::default()).unwrap();
    assert_eq!(read.shape(), photo.shape());

    // A batch in bytes under the other name of the command; a gate that finds it too flat.
    let task = SubmitAsync { task_name: TaskName::SaveImages, task_data: named("flat") };
    let task = SubmitAsync {
        task_data: SaveImagesAsync {
            gate: Some({
                let mut gate = Gate::new(GateMode::Variance);
                gate.threshold = 0.5;
                gate
            }),
            images: vec![SaveImageWish { format: Some("webp_lossless".to_owned()), ..SaveImageWish::default() }],
            ..task.task_data
        },
        ..task
    };
    let pixels =
        TensorRef { name: "image_0", dtype: luna_core::protocol::Dtype::U8, shape: &[2, 4, 5, 3], bytes: &[90; 120] };
    let accepted = client.call(&task, &[pixels]).unwrap().reply;
    assert_eq!(accepted.num_images, 2);
    let state = client.wait_for_job(&accepted.job_id, MINUTE).unwrap();
    assert_eq!(state.state, "rejected", "{state:?}");
    assert!(state.pictures.iter().all(|picture| !picture.verdict.unwrap().passed && picture.file.is_some()));
    assert_eq!(super::wire::status(&client)["saves"]["rejected"], 2);
}

#[test]
fn what_cannot_be_saved_is_refused_before_it_is_taken_in() {
    let folder = tempfile::tempdir().unwrap();
    let (output, other) = (folder.path().join("out"), folder.path().join("other"));
    let server = Server::start(&format!("--output {}", output.display()));
    let client = server.client();
    let photo = picture(8, 8);
    let ask = |request: &SaveImagesAsync| {
        client.save_images(&[&photo], request, &CallOptions::default()).map(drop).unwrap_err()
    };
    let outside = SaveImagesAsync { output: Some(other.display().to_string()), ..named("x") };
    let error = ask(&outside);
    assert_eq!(Fault::within(&error).unwrap().reason, Some(Reason::Denied), "{error}");
    for (request, says) in [
        (named("%sead%"), "%seed%"),
        (SaveImagesAsync { folder: Some("../other".to_owned()), ..named("x") }, ".."),
        (
            SaveImagesAsync {
                images: vec![SaveImageWish { format: Some("gif".to_owned()), ..SaveImageWish::default() }],
                ..named("x")
            },
            "`gif`",
        ),
        (SaveImagesAsync { images: vec![SaveImageWish::default(); 2], ..named("x") }, "more pictures"),
    ] {
        let error = ask(&request);
        assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains(says), "{error}, not {says}");
    }
    let error = client.job_status("00000000000000ff").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(client.job_cancel("moon").unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(!other.exists() && fs::read_dir(&output).unwrap().next().is_none(), "nothing was written");

    let without = Server::start("");
    let error = without.client().save_images(&[&photo], &named("x"), &CallOptions::default()).map(drop).unwrap_err();
    assert_eq!(Fault::within(&error).unwrap().reason, Some(Reason::Denied), "{error}");
    assert!(error.to_string().contains("--output"), "{error}");
}

#[test]
fn accepted_jobs_are_finished_when_the_daemon_ends_and_outlive_their_client() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let mut server = Server::start(&format!("--output {} --pool save=1", output.display()));
    let client = server.client();
    let photo = picture(700, 900);
    let slow = SaveImageWish { level: Some(9), ..SaveImageWish::default() };
    let request = SaveImagesAsync { images: vec![slow], ..named("%counter:2%") };
    for _ in 0..6 {
        client.save_images(&[&photo], &request, &CallOptions::default()).unwrap();
    }
    drop(client);
    let other = server.client();
    other.call(&Shutdown {}, &[]).unwrap();
    let error = other.save_images(&[&photo], &request, &CallOptions::default()).map(drop);
    if let Err(error) = error {
        let draining = Fault::within(&error).is_some_and(|fault| fault.reason == Some(Reason::Draining));
        assert!(draining || error.kind() == ErrorKind::Io, "{error}");
    }
    assert_eq!(server.ended(), Some(0));
    let files = fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().path());
    let pictures: Vec<_> = files.filter(|path| path.extension().is_some_and(|ending| ending == "png")).collect();
    assert_eq!(pictures.len(), 6, "{pictures:?}");
    for path in &pictures {
        assert_eq!(read_picture(path, &Limits::default()).unwrap().shape(), photo.shape());
    }
}

#[test]
fn a_durable_job_goes_on_in_the_next_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let (output, spool) = (folder.path().join("out"), folder.path().join("spool"));
    let options = format!("--output {} --spool {} --pool save=1", output.display(), spool.display());
    let mut server = Server::start(&options);
    let client = server.client();
    let photo = picture(700, 900);
    let slow = SaveImageWish { level: Some(9), ..SaveImageWish::default() };
    let request = SaveImagesAsync { images: vec![slow], durable: true, ..named("%counter:2%") };
    let ids: Vec<String> =
        (0..4).map(|_| client.save_images(&[&photo], &request, &CallOptions::default()).unwrap().job_id).collect();
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    let server = Server::start(&options);
    let client = server.client();
    until("the end of all jobs", || {
        let saves = super::wire::status(&client)["saves"].clone();
        saves["jobs"] == saves["jobs_finished"]
    });
    let files = fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(files.filter(|path| path.extension().is_some_and(|ending| ending == "png")).count(), 4);
    // Those that were finished before are not known to the new daemon.
    for id in ids {
        match client.call(&JobStatus { job_id: id }, &[]) {
            Ok(answer) => assert_eq!(answer.reply.state, "done"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
        }
    }
}
