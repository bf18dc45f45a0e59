//! `luna-cli save` as a shell sees it: what it writes, prints and returns.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use luna_core::{
    Limits,
    files::IfExists,
    picture::{Format, Metadata, Pixels, read_picture, write_picture},
};

fn save(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luna-cli"));
    command.current_dir(folder).arg("save").args(arguments).output().unwrap()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<u8> = (0..16 * 8 * 3).map(|value| (value * 37) as u8).collect();
    let pixels = Pixels::from_u8(16, 8, 3, &values).unwrap();
    write_picture(&folder.path().join("in.png"), &pixels, Format::PNG, &Metadata::none(), IfExists::Refuse).unwrap();
    folder
}

#[test]
fn pictures_are_converted_named_and_told_of() {
    let folder = folder();
    let run = save(
        folder.path(),
        &[
            "in.png",
            "-o",
            "out",
            "--template",
            "%seed%/%counter:3%",
            "--seed",
            "7",
            "--format",
            "webp-lossless",
            "--json",
        ],
    );
    assert!(run.status.success(), "{run:?}");
    let told: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&told["command"], &told["written"]), (&"save".into(), &1.into()));
    let path = folder.path().join("out/7/001.webp");
    assert_eq!(told["pictures"][0]["bytes"], fs::metadata(&path).unwrap().len());
    assert_eq!(told["pictures"][0]["sha256"].as_str().unwrap().len(), 64);
    let read = |path: &Path| read_picture(path, &Limits::default()).unwrap();
    assert_eq!(read(&path), read(&folder.path().join("in.png")));
}

#[test]
fn one_bad_input_stops_no_other_and_sets_the_status() {
    let folder = folder();
    fs::write(folder.path().join("page.png"), "<html>").unwrap();
    let run = save(folder.path(), &["page.png", "in.png", "missing.png", "-o", "out", "--template", "x"]);
    assert_eq!(run.status.code(), Some(4), "unsupported, as the first failure was: {run:?}");
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(text.contains("an HTML page") && text.contains("1 written, 2 failed"), "{text}");
    assert!(folder.path().join("out/x.png").is_file());
}

#[test]
fn nothing_is_overwritten_unless_asked() {
    let folder = folder();
    for _ in 0..2 {
        assert!(save(folder.path(), &["in.png", "--template", "x", "--quiet"]).status.success());
    }
    assert!(folder.path().join("x-2.png").is_file());
    let refused = save(folder.path(), &["in.png", "--template", "x", "--exists", "refuse"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert_eq!(save(folder.path(), &["in.png", "--template", "../x"]).status.code(), Some(2));
}

#[test]
fn a_gate_puts_rejects_aside_and_a_spool_is_left_empty() {
    let folder = folder();
    let grey = Pixels::from_u8(4, 4, 1, &[9; 16]).unwrap();
    write_picture(&folder.path().join("flat.png"), &grey, Format::PNG, &Metadata::none(), IfExists::Refuse).unwrap();
    let run = save(
        folder.path(),
        &["flat.png", "in.png", "-o", "out", "--template", "x", "--gate", "both", "--spool", "spool"],
    );
    assert!(run.status.success(), "{run:?}");
    assert!(folder.path().join("out/_discarded/x.png").is_file() && folder.path().join("out/x.png").is_file());
    let names: Vec<_> =
        fs::read_dir(folder.path().join("spool")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["lock"]);
}

#[test]
fn wrong_metadata_is_refused_before_anything_is_written() {
    let folder = folder();
    fs::write(folder.path().join("w.json"), "{oops").unwrap();
    let run = save(folder.path(), &["in.png", "-o", "out", "--comfy-workflow", "w.json"]);
    assert_eq!(run.status.code(), Some(2));
    assert!(String::from_utf8(run.stderr).unwrap().contains("is not JSON"));
    assert!(!folder.path().join("out").exists());
}

#[test]
fn processes_that_count_in_one_folder_share_the_numbers() {
    let folder = folder();
    let children: Vec<_> = (0..4)
        .map(|_| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_luna-cli"));
            command.current_dir(folder.path()).args(["save", "-o", "out", "--template", "%counter:2%", "--quiet"]);
            command.args(["in.png"; 6]).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let mut names: Vec<_> = fs::read_dir(folder.path().join("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, (1..=24).map(|number| format!("{number:02}.png")).collect::<Vec<_>>());
}

/// Ctrl-C ends a run soon; what was written is told and stands there whole, the rest is told as cancelled.
#[cfg(unix)]
#[test]
fn ctrl_c_tells_what_was_written_and_what_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let values: Vec<u8> = noise.take(700 * 500 * 3).collect();
    let pixels = Pixels::from_u8(700, 500, 3, &values).unwrap();
    write_picture(&folder.path().join("in.png"), &pixels, Format::PNG, &Metadata::none(), IfExists::Refuse).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_luna-cli"));
    command.current_dir(folder.path()).args(["save", "-o", "out", "--template", "x", "--format", "webp-lossless"]);
    command.args(["--json", "--threads", "1"]).args(["in.png"; 200]);
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    while !folder.path().join("out/x-2.webp").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let signal = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(signal.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let (written, cancelled) = (told["written"].as_u64().unwrap(), told["cancelled"].as_u64().unwrap());
    assert!(written >= 2 && cancelled > 0 && written + cancelled == 200, "{written} written, {cancelled} cancelled");
    assert_eq!(fs::read_dir(folder.path().join("out")).unwrap().count() as u64, written);
    for picture in told["pictures"].as_array().unwrap().iter().filter(|picture| picture["state"] == "written") {
        assert_eq!(
            read_picture(Path::new(picture["path"].as_str().unwrap()), &Limits::default()).unwrap().width(),
            500
        );
    }
}

#[cfg(not(feature = "object-store"))]
#[test]
fn a_store_needs_its_feature_and_no_folder_is_made_in_its_stead() {
    let folder = folder();
    let run = save(folder.path(), &["in.png", "-o", "s3://bucket/x"]);
    assert_eq!(run.status.code(), Some(4));
    assert!(String::from_utf8(run.stderr).unwrap().contains("--features object-store"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
