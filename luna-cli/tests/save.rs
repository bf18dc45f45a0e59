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
