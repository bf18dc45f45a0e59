//! What `bench` tells of a model's layers.

use super::Bench;

#[test]
fn layers_are_told_and_their_work_is_that_of_the_whole() {
    let bench = Bench::new();
    let told = bench.json("bench --shape taesd --size 64 --runs 1 --only decode --layers");
    let timing = &told["timings"][0];
    let layers = timing["layers"]["layers"].as_array().unwrap();
    let name = |layer: &serde_json::Value| layer["layer"].as_str().unwrap().to_owned();
    assert_eq!((name(&layers[0]), layers.len()), ("decoder.layers.0".to_owned(), 35));
    assert!(layers.iter().all(|layer| layer["calls"] == 1), "{layers:?}");
    // In the order in which they ran: the last one has 3 channels of 64 x 64 pixels and 64 channels to read.
    let last = &layers[34];
    assert_eq!(last["gflop"].as_f64().unwrap(), (64 * 64 * 3 * 64 * 9 * 2) as f64 / 1e9, "{last}");
    let sum = |key: &str| layers.iter().map(|layer| layer[key].as_f64().unwrap()).sum::<f64>();
    let whole = timing["gflop"].as_f64().unwrap();
    assert!((sum("gflop") / whole - 1.0).abs() < 1e-9, "{} and {whole}", sum("gflop"));
    let seconds = timing["layers"]["seconds"].as_f64().unwrap();
    let rest = timing["layers"]["rest_seconds"].as_f64().unwrap();
    assert!((sum("seconds") + rest - seconds).abs() < 1e-6 * seconds, "{} + {rest} and {seconds}", sum("seconds"));
    // Who does not ask is told no layers.
    let told = bench.json("bench --shape taesd --size 64 --runs 1 --only decode");
    assert!(told["timings"][0]["layers"].is_null(), "{told}");
}
