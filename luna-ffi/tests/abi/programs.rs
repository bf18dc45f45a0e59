//! What the examples are called with: models and files made on the spot.

use luna_tests::{diffusion, model_case::ModelCase, text, workspace};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn fixture(path: &str) -> PathBuf {
    workspace::root().join("tests/fixtures").join(path)
}

/// A LoRA for the demonstration text encoder.
pub fn lora(folder: &Path) -> PathBuf {
    let path = folder.join("ink.safetensors");
    fs::write(&path, text::kohya_lora()).unwrap();
    path
}

/// A denoiser.
pub fn denoiser(folder: &Path) -> PathBuf {
    diffusion::case("sd15_ldm").write(folder)
}

/// A vision encoder.
pub fn vision(folder: &Path) -> PathBuf {
    ModelCase::read(&fixture("vision/clip_transformers.safetensors")).write(folder)
}

/// A vision-language model that takes small pictures.
pub fn vlm(folder: &Path) -> PathBuf {
    let path = ModelCase::read(&fixture("vlm/qwen3_vl.safetensors")).write(folder);
    fs::copy(fixture("tokenizer/qwen/tokenizer.json"), path.join("tokenizer.json")).unwrap();
    let small = r#"{"size": {"shortest_edge": 576, "longest_edge": 4096}}"#;
    fs::write(path.join("preprocessor_config.json"), small).unwrap();
    path
}

/// What the example of this name is called with, in any language.
pub fn arguments(name: &str, folder: &Path) -> Vec<String> {
    let path = match name {
        "save_pictures" => folder.join("saved"),
        "one_step" => denoiser(folder),
        "apply_loras" => lora(folder),
        "picture_embedding" => vision(folder),
        "describe_picture" => vlm(folder),
        _ => return Vec::new(),
    };
    vec![path.display().to_string()]
}
