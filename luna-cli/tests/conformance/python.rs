//! Python's own tests with a daemon.

use crate::library;
use luna_tests::{text, workspace};
use std::process::Command;

#[test]
fn the_package_passes_its_tests_with_a_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let lora = folder.path().join("ink.safetensors");
    std::fs::write(&lora, text::kohya_lora()).unwrap();
    let mut python = Command::new("python3");
    python.current_dir(workspace::root()).env("PYTHONDONTWRITEBYTECODE", "1").env("LUNA_LIBRARY", library());
    python.env("LUNA_CLI", env!("CARGO_BIN_EXE_luna-cli")).env("LUNA_TEST_LORA", lora);
    python.env("LUNA_TEST_VLM", luna_tests::conformance::vlm(folder.path()));
    let output = python.args(["bindings/python/tests/test_daemon.py", "--verbose"]).output().expect("python3");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let ran = told.lines().find_map(|line| line.strip_prefix("Ran ")).expect("unittest tells");
    let ran: usize = ran.split(' ').next().unwrap().parse().unwrap();
    assert!(ran >= 13, "{told}");
}
