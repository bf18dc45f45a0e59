//! Every one-shot command with `--connect`: the same output and the same file as embedded.

use super::{Server, picture_file, program};
use luna_tests::{
    diffusion, lora,
    model_case::ModelCase,
    text::{CLIP_G, CLIP_L, clip, file as model_file, fixture, kohya_lora},
    workspace,
};
use safetensors::Dtype;
use serde_json::Value;
use std::{fs, path::Path};

/// An outcome but for what differs from run to run.
fn timeless(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let of_the_run = key.ends_with("seconds") || key.contains("per_second") || key.contains("peak_memory");
                if of_the_run { *value = Value::Null } else { timeless(value) }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(timeless),
        _ => {}
    }
}

fn told(folder: &Path, words: &[&str]) -> Value {
    let output = program().current_dir(folder).args(words).arg("--json").output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    let mut outcome = serde_json::from_slice(&output.stdout).unwrap();
    timeless(&mut outcome);
    outcome
}

/// Runs a command embedded and by a daemon, and compares what is told and the file that is written.
fn same(folder: &Path, server: &Server, words: &[&str], written: Option<&str>) -> Value {
    let path = written.map(|name| folder.join(name));
    let run = |words: &[&str]| {
        let outcome = told(folder, words);
        let bytes = path.as_ref().map(|path| fs::read(path).unwrap());
        path.iter().for_each(|path| fs::remove_file(path).unwrap());
        (outcome, bytes)
    };
    let embedded = run(words);
    let remote = run(&[words, &["--connect", &server.address]].concat());
    assert_eq!(embedded.0, remote.0, "{words:?}");
    assert!(embedded.1 == remote.1, "{words:?}: what is written differs");
    embedded.0
}

#[test]
fn text_and_tokenize() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    for (name, shape) in [("l.safetensors", &CLIP_L), ("g.safetensors", &CLIP_G)] {
        fs::write(place.join(name), model_file(&[("", &clip(shape))], |_| Dtype::F32)).unwrap();
    }
    fs::write(place.join("ink.safetensors"), kohya_lora()).unwrap();
    let embeddings = fixture("text/embeddings").display().to_string();
    let server = Server::start(&format!("--model-root {} --embeddings {embeddings}", place.display()));
    let pair = ["text", "a (red:1.3) fox", "--negative", "blurry embedding:none", "-o", "c.safetensors"];
    let with = |more: &[&'static str]| [&pair[..], &["--embeddings", &embeddings], more].concat();
    let sd1 = same(place, &server, &with(&["--clip-l", "l.safetensors", "--clip-skip", "2"]), Some("c.safetensors"));
    assert!(sd1.to_string().contains("none"), "the missing embedding is told: {sd1}");
    let patched = with(&["--clip-l", "l.safetensors", "--lora", "ink.safetensors:0.5", "--strict"]);
    let outcome = same(place, &server, &patched, Some("c.safetensors"));
    assert!(outcome["loras"].to_string().contains("ink"), "{outcome}");
    let sdxl = with(&["--clip-l", "l.safetensors", "--clip-g", "g.safetensors", "--picture-size", "64x48"]);
    same(place, &server, &sdxl, Some("c.safetensors"));
    for encoder in ["clip_l", "clip_g"] {
        same(place, &server, &["tokenize", "a (red:1.3) fox", "--encoder", encoder], None);
    }
}

#[test]
fn forward_with_loras() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let case = diffusion::case("sd15_ldm");
    fs::write(place.join("step.safetensors"), case.step_file(true)).unwrap();
    let model = case.write(place);
    let model = model.to_str().unwrap();
    fs::copy(lora::path("sd15_ldm", "kohya"), place.join("ink.safetensors")).unwrap();
    // One daemon may read the files, the other is sent them.
    for options in [format!("--model-root {0} --lora-folder {0}", place.display()), String::new()] {
        let server = Server::start(&options);
        let step = ["forward", "step.safetensors", "-o", "out.safetensors", "--model", model];
        same(place, &server, &step, Some("out.safetensors"));
        let with = |more: &[&'static str]| [&step[..], &["--lora", "ink.safetensors:0.75"], more].concat();
        let outcome = same(place, &server, &with(&["--strict", "--attention", "split"]), Some("out.safetensors"));
        assert_eq!(outcome["loras"]["mode"], "functional");
        same(place, &server, &with(&["--mode", "merged", "--precision", "bf16"]), Some("out.safetensors"));
    }
}

#[test]
fn save() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    picture_file(&place.join("a.png"));
    let output = place.join("out");
    let server = Server::start(&format!("--output {}", output.display()));
    let words = ["save", "a.png", "-o", "out", "--template", "%seed%", "--seed", "7"];
    let outcome = same(place, &server, &words, Some("out/7.png"));
    assert_eq!(outcome["written"], 1, "{outcome}");
    same(place, &server, &[&words[..], &["--format", "webp", "--quality", "80"]].concat(), Some("out/7.webp"));
}

#[test]
fn vision_and_describe() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    picture_file(&place.join("a.png"));
    let write = |path: &str, name: &str| {
        let made = ModelCase::read(&workspace::root().join("tests/fixtures").join(path)).write(place);
        fs::rename(made, place.join(name)).unwrap();
    };
    write("vision/clip_transformers.safetensors", "clip");
    write("vlm/qwen3_vl.safetensors", "vlm");
    let tokenizer = workspace::root().join("tests/fixtures/tokenizer/qwen/tokenizer.json");
    fs::copy(tokenizer, place.join("vlm/tokenizer.json")).unwrap();
    let small = r#"{"size": {"shortest_edge": 576, "longest_edge": 4096}}"#;
    fs::write(place.join("vlm/preprocessor_config.json"), small).unwrap();
    let server = Server::start(&format!("--model-root {}", place.display()));
    let vision = ["vision", "a.png", "--model", "clip", "-o", "f.safetensors", "--crop", "20x16+1+2"];
    same(place, &server, &vision[..6], Some("f.safetensors"));
    same(place, &server, &vision, Some("f.safetensors"));
    let describe = ["describe", "a.png", "--model", "vlm", "--prompt", "what", "--max-tokens", "6"];
    let plain = same(place, &server, &describe, None);
    let drawn = [&describe[..], &["--temperature", "0.7", "--seed", "3", "--system", "brief"]].concat();
    same(place, &server, &drawn, None);
    let peft = lora::path("qwen3_vl", "peft").display().to_string();
    for mode in ["functional", "merged"] {
        let patched = [&describe[..], &["--lora", &peft, "--strict", "--mode", mode]].concat();
        let outcome = same(place, &server, &patched, None);
        assert_eq!(outcome["loras"]["mode"], mode, "{outcome}");
        assert_ne!(outcome["ids"], plain["ids"], "the LoRA changes something");
    }
}
