//! What `inspect` says of files that Luna knows and of others.

use super::Bench;
use luna_tests::{
    safetensors_file::{f32_tensor, file},
    vae,
};
use std::fs;

#[test]
fn known_models_are_described() {
    let bench = Bench::new();
    for (name, family, dialect, prefix) in [
        ("ldm_sd", "AutoencoderKL", "ldm", "first_stage_model."),
        ("ldm_flux", "AutoencoderKL", "ldm", ""),
        ("diffusers_batch", "AutoencoderKL", "diffusers", ""),
        ("taesd_diffusers", "TAESD", "diffusers", ""),
        ("taesd_own", "TAESD", "taesd", ""),
    ] {
        let path = vae::case(name).write(bench.folder.path());
        let path = path.file_name().unwrap().to_string_lossy().into_owned();
        let told = bench.json(&format!("inspect {path}"));
        let found = &told["components"][0];
        assert_eq!(
            (found["family"].as_str(), found["dialect"].as_str(), found["prefix"].as_str()),
            (Some(family), Some(dialect), Some(prefix)),
            "{told}"
        );
        assert_eq!(found["operations"], serde_json::json!(["encode", "decode"]));
        assert_eq!(found["element_types"]["F16"], found["bytes"]);
        assert_eq!(found["bytes"].as_u64().unwrap(), 2 * found["parameters"].as_u64().unwrap());
        assert_eq!(told["unclaimed_tensors"], 0, "{name}");
        let words = bench.ok(&format!("inspect {path}"));
        assert!(words.contains(family) && words.contains("encode, decode"), "{words}");
    }
}

#[test]
fn unknown_models_show_what_was_looked_for_and_the_nearest() {
    let bench = Bench::new();
    let near = [
        f32_tensor("decoder.conv_in.weight", &[1], &[0.0]),
        f32_tensor("decoder.mid.block_1.conv1.weight", &[1], &[0.0]),
    ];
    fs::write(bench.path("near.safetensors"), file(&near, &[])).unwrap();
    let told = bench.json("inspect near.safetensors");
    assert_eq!(told["components"], serde_json::json!([]));
    assert_eq!(told["nearest"]["family"], "AutoencoderKL");
    assert_eq!(told["nearest"]["missing"], serde_json::json!(["decoder.up.0.block.0.conv1.weight"]));
    let words = bench.ok("inspect near.safetensors");
    assert!(words.contains("nearest") && words.contains("decoder.up.0.block.0.conv1.weight"), "{words}");

    fs::write(bench.path("far.safetensors"), file(&[f32_tensor("x", &[1], &[0.0])], &[])).unwrap();
    let told = bench.json("inspect far.safetensors");
    assert!(told["nearest"].is_null() && told["looked_for"].as_array().unwrap().len() > 10, "{told}");
}

#[test]
fn latents_are_known_as_such() {
    let bench = Bench::new();
    bench.ok("encode photo.png -o latent.safetensors");
    let told = bench.json("inspect latent.safetensors");
    assert_eq!(told["latent"]["shape"], serde_json::json!([1, 16, 37, 56]));
    assert_eq!(told["latent"]["model"], "moonlet");
}

#[test]
fn gguf_files_are_described() {
    let bench = Bench::new();
    for (name, kind, family, dialect, can) in [
        ("flux", "diffusion", "Flux transformer", "ldm", "forward"),
        ("z_image", "diffusion", "Z-Image transformer", "ldm", "forward"),
        ("t5", "text_encoder", "T5 encoder", "llama.cpp", "encode"),
        ("qwen3", "text_encoder", "Qwen3", "llama.cpp", "encode"),
    ] {
        let case = luna_tests::gguf_file::GgufCase::open(name);
        std::fs::write(bench.path("model.gguf"), case.model(&[])).unwrap();
        let told = bench.json("inspect model.gguf");
        let component = &told["components"][0];
        assert_eq!((component["kind"].as_str(), component["family"].as_str()), (Some(kind), Some(family)), "{told}");
        assert_eq!(component["dialect"], dialect);
        assert_eq!(component["parameters"], case.parameters());
        assert_eq!(told["unclaimed_tensors"], 0);
        let types = component["element_types"].as_object().unwrap();
        assert!(["F32", "Q4_K", "Q8_0"].iter().all(|name| types.contains_key(*name)), "{types:?}");
        assert!(component["operations"].as_array().unwrap().iter().any(|operation| operation == can));
        assert!(bench.ok("inspect model.gguf").contains("Q4_K ("));
    }
}
