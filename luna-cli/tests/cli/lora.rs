//! What is told of LoRA files, alone and held against a model, and how they are found by name.

use super::{Bench, errors::fails};
use luna_core::ErrorKind;
use luna_tests::{diffusion, lora};
use std::fs;

/// A model of the fixtures with a LoRA made for it, in the bench's folder.
fn put(bench: &Bench) -> String {
    let case = diffusion::cases().into_iter().find(|case| case.name == "sd15_ldm").unwrap();
    fs::create_dir_all(bench.path("loras/styles")).unwrap();
    for (name, file) in [("kohya", "loras/ink wash.safetensors"), ("loha", "loras/styles/fox.safetensors")] {
        fs::copy(lora::path("sd15_ldm", name), bench.path(file)).unwrap();
    }
    let path = case.write(bench.folder.path());
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn every_adapter_is_accounted_for() {
    let bench = Bench::new();
    let model = put(&bench);
    let told = bench.json("lora inspect loras/styles/fox.safetensors");
    let adapters = told["adapters"].as_u64().unwrap();
    assert!(adapters > 0 && told["kinds"]["loha"] == adapters && told["components"].as_array().unwrap().is_empty());

    let told = bench.json(&format!("lora inspect fox --lora-folder loras --model {model} --strict"));
    let coverage = &told["components"][0]["coverage"];
    assert_eq!(told["components"][0]["component"], "diffusion");
    assert_eq!(coverage["applied"].as_array().unwrap().len() as u64, adapters);
    assert!(coverage["unmatched"].as_array().unwrap().is_empty());

    // Held against a model of another family everything is told as what it is.
    let other = diffusion::cases().into_iter().find(|case| case.name.starts_with("sdxl")).unwrap();
    let other = other.write(bench.folder.path());
    let other = other.file_name().unwrap().to_string_lossy().into_owned();
    let told = bench.json(&format!("lora inspect fox --lora-folder loras --model {other}"));
    let coverage = &told["components"][0]["coverage"];
    let count = |list: &str| coverage[list].as_array().unwrap().len() as u64;
    let listed = count("applied") + count("unmatched") + count("wrong_shape") + count("unsupported");
    assert_eq!(listed + coverage["elsewhere"].as_u64().unwrap(), adapters);
    assert!(count("unmatched") + count("wrong_shape") > 0, "{coverage}");
    let words = bench.ok(&format!("lora inspect fox --lora-folder loras --model {other}"));
    assert!(words.contains("no layer") || words.contains("no fit"), "{words}");
    fails(&bench, &format!("lora inspect fox --lora-folder loras --model {other} --strict"), ErrorKind::InvalidInput);
}

#[test]
fn names_mean_files_in_the_folders() {
    let bench = Bench::new();
    put(&bench);
    let told = bench.json("lora inspect ink --lora-folder loras");
    assert!(told["file"].as_str().unwrap().ends_with("ink wash.safetensors"));
    fails(&bench, "lora inspect oil --lora-folder loras", ErrorKind::NotFound);
    fails(&bench, "lora inspect ink", ErrorKind::NotFound);
    fs::copy(bench.path("loras/ink wash.safetensors"), bench.path("loras/ink line.safetensors")).unwrap();
    let words = fails(&bench, "lora inspect ink --lora-folder loras", ErrorKind::InvalidInput);
    assert!(words.contains("ink line, ink wash"), "{words}");
}
