//! Tiles, memory and precision: what is asked for, and what is told when something else was done.

use super::{Bench, text};
use luna_tests::vae::relative_error;

fn image(bench: &Bench, options: &str) -> (Vec<f32>, serde_json::Value) {
    let told = bench.json(&format!("decode latent.safetensors -o image.safetensors {options}"));
    let path = bench.path("image.safetensors");
    let file = luna_core::checkpoint::Checkpoint::open(path, &luna_core::Limits::default()).unwrap();
    let bytes = file.tensor("image").unwrap().bytes;
    (bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(), told)
}

#[test]
fn tiles_are_near_the_whole() {
    let bench = Bench::new();
    bench.ok("encode photo.png -o latent.safetensors");
    let (whole, told) = image(&bench, "--no-tiles");
    assert!(told["call"]["tiling"].is_null());
    let (tiled, told) = image(&bench, "--tile 256 --overlap 64");
    assert_eq!(told["call"]["tiling"]["tile"], 256);
    assert_eq!(told["call"]["fallbacks"], serde_json::json!([]), "what was asked for is no fallback");
    assert!(relative_error(&tiled, &whole) < 0.03, "{}", relative_error(&tiled, &whole));
    let (half, _) = image(&bench, "--precision bf16");
    assert!(relative_error(&half, &whole) < 0.02);
}

#[test]
fn a_small_budget_means_tiles_and_is_told() {
    let bench = Bench::new();
    bench.ok("encode photo.png -o latent.safetensors");
    let (whole, told) = image(&bench, "");
    assert_eq!(told["call"]["fallbacks"], serde_json::json!([]));
    // The smallest budget at which it still works, within a few MiB.
    let tiled = (40..400).step_by(4).find_map(|mib| {
        let output = bench.run(&format!("decode latent.safetensors -o x.png --max-memory {mib}MiB --json"));
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        match output.status.code() {
            Some(0) => Some((mib, told, text(&output.stderr))),
            code => {
                assert_eq!(code, Some(8), "{told}");
                None
            }
        }
    });
    let (mib, told, _) = tiled.expect("no budget was enough");
    assert_eq!(told["call"]["fallbacks"][0]["name"], "tiled", "{mib} MiB: {told}");
    // What the program itself takes is not the same to the megabyte each time.
    let mib = mib + 8;
    let output = bench.run(&format!("decode latent.safetensors -o x.png --max-memory {mib}MiB"));
    assert!(text(&output.stderr).contains("luna-cli: note: tiles of"), "{}", text(&output.stderr));
    let output = bench.run(&format!("decode latent.safetensors -o x.png --max-memory {mib}MiB --no-tiles"));
    assert_eq!(output.status.code(), Some(8), "{}", text(&output.stderr));
    assert!(!whole.is_empty());
}

#[test]
fn the_benchmark_tells_time_and_rate() {
    let bench = Bench::new();
    let told = bench.json("bench --shape taesd --size 64 --runs 2");
    assert_eq!(told["parameters"], 2_445_063);
    for timing in told["timings"].as_array().unwrap() {
        assert!(timing["best_seconds"].as_f64().unwrap() > 0.0 && timing["gflops"].as_f64().unwrap() > 0.0);
        assert!(timing["share_of_peak"].as_f64().unwrap() > 0.0);
    }
    let words = bench.ok("bench --model moonlet --size 64 --runs 1 --only decode --threads 1");
    let rows = |name: &str| words.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!((rows("decode "), rows("encode ")), (1, 0), "{words}");
}

#[test]
fn quiet_is_quiet_but_for_notes() {
    let bench = Bench::new();
    let output = bench.run("encode photo.png -o latent.safetensors --quiet");
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(text(&output.stderr).contains("demonstration model"), "{}", text(&output.stderr));
}
