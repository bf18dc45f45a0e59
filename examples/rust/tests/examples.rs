//! The examples in Rust, run: each is one task, and says what it did.

use luna_tests::{conformance, text, workspace};
use std::{path::Path, process::Command};

/// What a program printed.
fn told(program: &str, arguments: &[&Path]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {wrong}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn examples_do_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert!(told(env!("CARGO_BIN_EXE_encode_decode"), &[]).starts_with("latent [1, 16, 6, 8] in "));
    let heard = told(env!("CARGO_BIN_EXE_cancel"), &[]);
    assert!(heard.contains("1 of ") && heard.contains("stopped: the call was cancelled"), "{heard}");
    std::fs::write(at("ink.safetensors"), text::kohya_lora()).unwrap();
    let applied = told(env!("CARGO_BIN_EXE_apply_loras"), &[&at("ink.safetensors")]);
    assert!(applied.contains("ink: lora_te") && applied.contains("1 applied, 0 not"), "{applied}");
    let saved = told(env!("CARGO_BIN_EXE_save_pictures"), &[&at("saved")]);
    assert!(saved.contains("gradient_001.png: ") && at("saved/gradient_001.png").is_file(), "{saved}");
    let photo = workspace::root().join("tests/fixtures/pictures/rgb8.png");
    let words = told(env!("CARGO_BIN_EXE_describe_picture"), &[&conformance::vlm(folder.path()), &photo]);
    assert!(words.contains(" tokens, ended by "), "{words}");
}

#[test]
fn examples_are_short() {
    let folder = workspace::root().join("examples/rust");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources: Vec<_> = files.filter(|path| path.extension().is_some_and(|ending| ending == "rs")).collect();
    assert!(sources.len() >= 7, "{sources:?}");
    for path in sources {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        // A whole sampler takes more than one call.
        let most = if path.ends_with("txt2img.rs") { 80 } else { 59 };
        assert!(lines <= most, "{} has {lines} lines", path.display());
    }
}
