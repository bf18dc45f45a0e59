//! What the examples are called with: models and files made on the spot.

use luna_tests::{conformance, diffusion, text};
use std::{
    fs,
    path::{Path, PathBuf},
};

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

/// What the example of this name is called with, in any language.
pub fn arguments(name: &str, folder: &Path) -> Vec<String> {
    let path = match name {
        // Nobody listens there.
        "here_or_there" => return vec!["127.0.0.1:1".to_owned()],
        "save_pictures" => folder.join("saved"),
        "one_step" | "sampling_with_cache" => denoiser(folder),
        "apply_loras" => lora(folder),
        "lora_tags" => lora(folder).parent().unwrap().to_owned(),
        "picture_embedding" => conformance::vision(folder),
        "describe_picture" | "conversation" => conformance::vlm(folder),
        _ => return Vec::new(),
    };
    vec![path.display().to_string()]
}
