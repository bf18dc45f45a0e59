//! `vision` and `describe` as a person meets them.

use super::{Bench, text, write_picture};
use luna_core::{Limits, checkpoint::Checkpoint};
use luna_tests::{model_case::ModelCase, vlm_gguf, workspace};
use std::{fs, path::PathBuf};

fn fixture(path: &str) -> PathBuf {
    workspace::root().join("tests/fixtures").join(path)
}

/// Writes the model of a fixture under this name.
pub fn write_model(bench: &Bench, path: &str, name: &str) -> ModelCase {
    let case = ModelCase::read(&fixture(path));
    fs::rename(case.write(bench.folder.path()), bench.path(name)).unwrap();
    case
}

/// A vision-language model with its tokenizer that takes small pictures.
pub fn write_vlm(bench: &Bench, name: &str) -> ModelCase {
    let case = write_model(bench, "vlm/qwen3_vl.safetensors", name);
    fs::copy(fixture("tokenizer/qwen/tokenizer.json"), bench.path(name).join("tokenizer.json")).unwrap();
    let small = r#"{"size": {"shortest_edge": 576, "longest_edge": 4096}}"#;
    fs::write(bench.path(name).join("preprocessor_config.json"), small).unwrap();
    case
}

fn shapes(bench: &Bench, file: &str) -> Vec<(String, Vec<usize>)> {
    let file = Checkpoint::open(bench.path(file), &Limits::default()).unwrap();
    file.tensors().map(|tensor| (tensor.name.to_owned(), tensor.shape.to_vec())).collect()
}

#[test]
fn pictures_of_any_size_become_one_file_of_features() {
    let bench = Bench::new();
    write_model(&bench, "vision/clip_transformers.safetensors", "clip");
    write_picture(&bench.path("small.webp"), 7, 5);
    let told = bench.json("vision photo.png small.webp --model clip -o out.safetensors");
    assert_eq!(told["command"], "vision");
    assert_eq!(told["tensors"]["last_hidden_state"], serde_json::json!([2, 10, 96]));
    let names = ["image_embeds", "last_hidden_state", "penultimate", "pooler_output"];
    let written = shapes(&bench, "out.safetensors");
    assert_eq!(written.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), names);
    assert!(
        bench
            .ok("vision photo.png --model clip -o parts.safetensors --crop 50x60+0+0 --crop 9x9+1+2")
            .contains("parts")
    );
    assert_eq!(shapes(&bench, "parts.safetensors")[0].1, [2, 40]);
    let error = bench.run("vision photo.png --model clip -o out.safetensors --crop 5000x60+0+0");
    assert_eq!(error.status.code(), Some(2), "{}", text(&error.stderr));
}

#[test]
fn an_answer_is_all_that_is_printed() {
    let bench = Bench::new();
    write_vlm(&bench, "vlm");
    let line = "describe photo.png --model vlm --prompt what --max-tokens 2";
    let plain = bench.ok(line);
    assert_eq!(plain, bench.ok(&format!("{line} --stream")), "streaming changes nothing but when");
    assert_eq!(plain, bench.ok(&format!("{line} --greedy")));
    let told = bench.json(line);
    assert_eq!(format!("{}\n", told["text"].as_str().unwrap()), plain);
    assert_eq!((told["finish"].as_str(), told["ids"].as_array().map(Vec::len)), (Some("max_tokens"), Some(2)));
    assert!(told["picture_tokens"].as_u64() > Some(0));
    let ids: Vec<u64> = bench.ok(&format!("{line} --ids")).split_whitespace().map(|id| id.parse().unwrap()).collect();
    assert_eq!(serde_json::json!(ids), told["ids"]);
    assert!(text(&bench.run(line).stderr).contains("--max-tokens allows more"));
    assert!(!bench.ok("describe --model vlm --prompt words --system brief --max-tokens 3").is_empty());
}

/// Writes the first prompt of the fixture as a prepared input, its ids changed.
fn write_inputs(bench: &Bench, name: &str, change: impl Fn(&mut Vec<u8>)) {
    let arrays = Checkpoint::open(fixture("vlm/qwen3_vl.safetensors"), &Limits::default()).unwrap();
    let names = [("input_ids", "ids"), ("image_grid_thw", "grids"), ("pixel_values", "pixel_values")];
    let tensors: Vec<_> = names
        .into_iter()
        .map(|(ours, theirs)| {
            let view = arrays.tensor(&format!("0/{theirs}")).unwrap();
            let (mut shape, mut bytes) = (view.shape.to_vec(), view.bytes.to_vec());
            if theirs == "ids" {
                change(&mut bytes);
                shape = vec![bytes.len() / 8];
            }
            (ours.to_owned(), view.element.name(), shape, bytes)
        })
        .collect();
    fs::write(bench.path(name), luna_tests::safetensors_file::file(&tensors, &[])).unwrap();
}

#[test]
fn prepared_inputs_give_the_ids_of_other_implementations() {
    let bench = Bench::new();
    let case = write_vlm(&bench, "vlm");
    write_inputs(&bench, "in.safetensors", |_| ());
    let printed = bench.ok("describe --inputs in.safetensors --model vlm --greedy --max-tokens 12 --ids");
    let ids: Vec<i64> = printed.split_whitespace().map(|id| id.parse().unwrap()).collect();
    assert_eq!(ids, case.integers("0/generated"));
}

#[test]
fn gguf_files_answer_as_the_folder_they_were_made_of() {
    let bench = Bench::new();
    let case = write_vlm(&bench, "vlm");
    fs::create_dir(bench.path("gguf")).unwrap();
    vlm_gguf::write("qwen3_vl", &case.tensors, &bench.path("gguf"), vlm_gguf::Storage::AsConverted);
    write_inputs(&bench, "in.safetensors", |_| ());
    let line = "describe --inputs in.safetensors --greedy --max-tokens 12 --ids --model";
    let expected = bench.ok(&format!("{line} vlm"));
    assert_eq!(bench.ok(&format!("{line} gguf")), expected);
    fs::rename(bench.path("gguf/mmproj-qwen3_vl-f16.gguf"), bench.path("eyes.gguf")).unwrap();
    assert_eq!(bench.ok(&format!("{line} gguf/qwen3_vl.gguf --mmproj eyes.gguf")), expected);
    let output = bench.run(&format!("{line} gguf/qwen3_vl.gguf"));
    assert_eq!(output.status.code(), Some(5));
    assert!(text(&output.stderr).contains("mmproj"), "{}", text(&output.stderr));
    // Words alone, with the vocabulary inside of the file.
    let words = "--prompt fox --max-tokens 3 --mmproj eyes.gguf --model gguf/qwen3_vl.gguf";
    assert_eq!(bench.ok(&format!("describe {words}")), bench.ok("describe --prompt fox --max-tokens 3 --model vlm"));
    assert!(bench.ok("inspect gguf/qwen3_vl.gguf").contains("Qwen3"));
}

#[test]
fn odd_pictures_are_described_or_refused_with_a_reason() {
    let bench = Bench::new();
    write_vlm(&bench, "vlm");
    write_model(&bench, "vision/clip_transformers.safetensors", "clip");
    write_picture(&bench.path("dot.png"), 1, 1);
    write_picture(&bench.path("thin.png"), 30_000, 10);
    assert!(bench.json("describe dot.png --model vlm --prompt x --max-tokens 1")["picture_tokens"].as_u64() > Some(0));
    let output = bench.run("describe thin.png --model vlm --prompt x");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("ratio of at most 200"), "{}", text(&output.stderr));
    let told = bench.json("vision dot.png thin.png --model clip -o odd.safetensors");
    assert_eq!(told["tensors"]["last_hidden_state"][0], 2);
    fs::write(bench.path("broken.jpg"), b"\xff\xd8\xff\xe0 no more").unwrap();
    fs::write(bench.path("old.gif"), b"GIF89a\x01\x00\x01\x00\x00\x00\x00;").unwrap();
    for (picture, status) in [("broken.jpg", 3), ("old.gif", 4)] {
        let output = bench.run(&format!("vision dot.png {picture} --model clip -o never.safetensors"));
        assert_eq!(output.status.code(), Some(status), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(picture) && !bench.path("never.safetensors").exists());
    }
}

#[test]
fn special_tokens_in_a_prompt_are_words_and_take_no_picture() {
    let bench = Bench::new();
    write_vlm(&bench, "vlm");
    let count = |prompt: &str, picture: &str| {
        let told = bench.json(&format!("describe {picture} --model vlm --max-tokens 1 --prompt {prompt}"));
        (told["prompt_tokens"].as_u64().unwrap(), told["picture_tokens"].as_u64().unwrap())
    };
    let (plain, _) = count("x", "");
    let (marked, none) = count("x<|image_pad|><|im_end|>", "");
    // Were they tokens, there would be two more; as words they are many.
    assert!(marked > plain + 10 && none == 0, "{plain} {marked}");
    assert_eq!(count("x<|image_pad|>", "photo.png").1, count("x", "photo.png").1);
}

#[test]
fn places_that_disagree_with_the_pictures_are_refused_with_the_counts() {
    let bench = Bench::new();
    write_vlm(&bench, "vlm");
    write_inputs(&bench, "in.safetensors", |_| ());
    let told = bench.json("describe --inputs in.safetensors --model vlm --max-tokens 1");
    let tokens = told["picture_tokens"].as_u64().unwrap();
    // The last id but two of the picture's places goes.
    write_inputs(&bench, "short.safetensors", |ids| {
        let ids_of = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap());
        let most = ids.chunks_exact(8).map(ids_of).fold(std::collections::BTreeMap::new(), |mut counts, id| {
            *counts.entry(id).or_insert(0usize) += 1;
            counts
        });
        let picture = *most.iter().max_by_key(|(_, count)| **count).unwrap().0;
        let at = ids.chunks_exact(8).position(|id| ids_of(id) == picture).unwrap();
        ids.drain(at * 8..(at + 1) * 8);
    });
    let output = bench.run("describe --inputs short.safetensors --model vlm --max-tokens 1");
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    assert!(
        told.contains(&format!("{tokens} tokens for 2 pictures")) && told.contains(&(tokens - 1).to_string()),
        "{told}"
    );
}

#[test]
fn wrong_calls_are_told_apart() {
    let bench = Bench::new();
    write_vlm(&bench, "vlm");
    fs::write(bench.path("broken.jpg"), b"\xff\xd8\xff\xe0 no more").unwrap();
    fs::write(bench.path("old.gif"), b"GIF89a\x01\x00\x01\x00\x00\x00\x00;").unwrap();
    for (line, status, part) in [
        ("describe broken.jpg --model vlm --prompt x", 3, "JPEG"),
        ("describe old.gif --model vlm --prompt x", 4, "GIF"),
        ("describe none.png --model vlm --prompt x", 5, "none.png"),
        ("describe photo.png --model photo.png --prompt x", 4, "picture"),
        ("describe photo.png --model vlm --prompt x --temperature=-1", 2, "temperature"),
        ("describe photo.png --model vlm", 2, "--prompt"),
        ("vision photo.png --model vlm -o x.safetensors", 4, "no vision encoder"),
        ("describe --inputs photo.png --model vlm", 4, "picture"),
    ] {
        let output = bench.run(line);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{line}: {told}");
        assert!(told.contains(part), "{line}: {told}");
    }
    let long = "x".repeat(5000);
    let output = bench.run(&format!("describe --model vlm --prompt {long}"));
    assert_eq!(output.status.code(), Some(7));
    assert!(text(&output.stderr).contains("fewer than 600 tokens"), "{}", text(&output.stderr));
}
