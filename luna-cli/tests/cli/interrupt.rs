//! Ctrl-C.
#![cfg(unix)]

use super::{Bench, text};
use luna_tests::safetensors_file::{f32_tensor, file};
use std::{
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Sends the signal that Ctrl-C sends.
fn interrupt(child: &Child) {
    let status = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(status.success());
}

/// A decode of 2048×2048 pixels in one piece takes many seconds; it must end within 200 ms of the signal. On a machine
/// with other work the scheduler may take longer than that by itself, so the best of three tries counts.
#[test]
fn ctrl_c_ends_a_running_decode_at_once_and_leaves_nothing() {
    let bench = Bench::new();
    let values: Vec<f32> = (0..16 * 256 * 256).map(|i| (i as f32).sin()).collect();
    let latent = f32_tensor("latent", &[1, 16, 256, 256], &values);
    fs::write(bench.path("big.safetensors"), file(&[latent], &[])).unwrap();
    let before = bench.names();
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let mut command = bench.command("decode big.safetensors -o big.png --json");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        let start = Instant::now();
        interrupt(&child);
        let output = child.wait_with_output().unwrap();
        fastest = fastest.min(start.elapsed());
        assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["error"]["kind"], "cancelled");
        assert_eq!(bench.names(), before, "an interrupted decode left something behind");
        if fastest < Duration::from_millis(200) {
            return;
        }
    }
    panic!("the decode ended {fastest:?} after the signal");
}
