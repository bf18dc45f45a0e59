//! Prompts to tokens and to conditioning files, against what ComfyUI and transformers make of them.

use super::{Bench, text};
use luna_core::{ErrorKind, Limits, checkpoint::Checkpoint};
use luna_tests::{
    safetensors_file::{Tensor, file},
    text::{
        Answers, CLIP_G, CLIP_L, Drawn, assert_close, clip, file as model_file, fixture, folder, kept_rows, open_clip,
        prompts, qwen3, t5,
    },
};
use safetensors::Dtype;
use serde_json::{Value, json};
use std::fs;

fn write_model(bench: &Bench, name: &str, parts: &[(&str, &[Drawn])]) {
    fs::write(bench.path(name), model_file(parts, |_| Dtype::F32)).unwrap();
}

fn integers(name: &str, shape: &[usize], values: impl IntoIterator<Item = i64>) -> Tensor {
    (name.to_owned(), "I64", shape.to_vec(), values.into_iter().flat_map(i64::to_le_bytes).collect())
}

fn told(bench: &Bench, args: &[&str]) -> Value {
    let output = bench.args(args).arg("--json").output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs what must fail with this kind and gives back the words.
fn refused(bench: &Bench, args: &[&str], kind: ErrorKind) -> String {
    let output = bench.args(args).output().unwrap();
    let words = text(&output.stderr);
    assert_eq!(output.status.code(), Some(kind.code() + 1), "{args:?}: {words}");
    assert!(words.contains("luna-cli: error: ") && !words.contains("panicked"), "{words}");
    words
}

/// A tensor that `text` wrote: shape and values.
fn tensor(bench: &Bench, file: &str, name: &str) -> (Vec<usize>, Vec<f32>) {
    let file = Checkpoint::open(bench.path(file), &Limits::default()).unwrap();
    let view = file.tensor(name).unwrap_or_else(|| panic!("no {name}"));
    (view.shape.to_vec(), view.bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

/// Encodes the fixtures' prompts with these options and compares with ComfyUI's answers of this name.
fn compare(bench: &Bench, name: &str, options: &[&str], pairs: usize) {
    let embeddings = fixture("text/embeddings");
    let answers = Answers::open("clip.safetensors");
    let mut compared = 0;
    for (i, [positive, negative]) in prompts().iter().enumerate() {
        if !answers.has(&format!("{i}/0/{name}.cond")) {
            continue;
        }
        let mut args = vec!["text", positive, "--negative", negative, "-o", "c.safetensors", "--embeddings"];
        args.push(embeddings.to_str().unwrap());
        args.extend(options);
        let told = told(bench, &args);
        assert_eq!(told["call"]["fallbacks"], json!([]));
        for (j, (cond, pooled)) in [("cond", "pooled"), ("uncond", "uncond_pooled")].into_iter().enumerate() {
            let key = format!("{i}/{j}/{name}");
            let (shape, ours) = tensor(bench, "c.safetensors", cond);
            assert_eq!(told["prompts"][j]["shape"], json!(shape), "{key}");
            assert_close(&key, &kept_rows(&ours, shape[2]), &answers.floats(&format!("{key}.cond")), 1e-5);
            let (shape, ours) = tensor(bench, "c.safetensors", pooled);
            assert_eq!(told["prompts"][j]["pooled_shape"], json!(shape), "{key}");
            assert_close(&key, &ours, &answers.floats(&format!("{key}.pooled")), 1e-5);
        }
        compared += 1;
    }
    assert_eq!(compared, pairs, "{name}");
}

#[test]
fn sd1_equals_comfyui_at_both_clip_skips() {
    let bench = Bench::new();
    write_model(&bench, "l.safetensors", &[("", &clip(&CLIP_L))]);
    compare(&bench, "sd1", &["--clip-l", "l.safetensors"], 6);
    compare(&bench, "sd1_skip2", &["--clip-l", "l.safetensors", "--clip-skip", "2"], 3);
    compare(&bench, "sd1_skip2", &["--clip-l", "l.safetensors", "--clip-skip", "-2"], 3);
    write_model(&bench, "sd15.safetensors", &[("cond_stage_model.transformer.", &clip(&CLIP_L))]);
    compare(&bench, "sd1", &["--checkpoint", "sd15.safetensors"], 6);
}

#[test]
fn sdxl_equals_comfyui_from_two_files_and_from_a_checkpoint() {
    let bench = Bench::new();
    let (l, g) = (clip(&CLIP_L), clip(&CLIP_G));
    write_model(&bench, "l.safetensors", &[("", &l)]);
    write_model(&bench, "g.safetensors", &[("", &g)]);
    let pair = ["--clip-g", "g.safetensors", "--clip-l", "l.safetensors"];
    compare(&bench, "sdxl", &pair, 6);
    compare(&bench, "sdxl_skip1", &[&pair[..], &["--clip-skip", "1"]].concat(), 3);
    let open = open_clip(g);
    let parts = [("conditioner.embedders.0.transformer.", &l[..]), ("conditioner.embedders.1.model.", &open)];
    write_model(&bench, "sdxl.safetensors", &parts);
    compare(&bench, "sdxl", &["--checkpoint", "sdxl.safetensors"], 6);
    // One encoder alone out of a checkpoint of two.
    compare(&bench, "sd1", &["--clip-l", "sdxl.safetensors"], 6);
    for attention in ["flash", "split", "pytorch"] {
        compare(&bench, "sdxl_skip1", &[&pair[..], &["--clip-skip", "1", "--attention", attention]].concat(), 3);
    }
}

#[test]
fn sizes_for_sdxl_are_carried_along() {
    let bench = Bench::new();
    let sizes = ["--picture-size", "1152x896", "--crop", "8,0", "--target-size", "1024x1024"];
    told(&bench, &[&["text", "a cat", "-o", "c.safetensors"], &sizes[..]].concat());
    let file = Checkpoint::open(bench.path("c.safetensors"), &Limits::default()).unwrap();
    let said = |key: &str| file.metadata()[key].clone();
    let keys = ["width", "height", "crop_w", "crop_h", "target_width", "target_height"];
    assert_eq!(keys.map(said), ["1152", "896", "8", "0", "1024", "1024"]);
}

#[test]
fn tokens_stand_in_for_prompts_of_t5_and_qwen3() {
    let bench = Bench::new();
    let answers = Answers::open("others.safetensors");
    write_model(&bench, "t5.safetensors", &[("", &t5())]);
    fs::create_dir(bench.path("qwen3")).unwrap();
    write_model(&bench, "qwen3/model.safetensors", &[("", &qwen3())]);

    let ids: Vec<i64> = answers.integers("t5_ids").into_iter().map(i64::from).collect();
    let mask: Vec<i64> = answers.integers("t5_mask").into_iter().map(i64::from).collect();
    let shape = [1, ids.len()];
    let plain = integers("input_ids", &shape, ids.clone());
    fs::write(bench.path("plain.safetensors"), file(std::slice::from_ref(&plain), &[])).unwrap();
    let masked = integers("attention_mask", &shape, mask.clone());
    fs::write(bench.path("masked.safetensors"), file(&[plain, masked], &[])).unwrap();
    let t5 = ["text", "--t5", "t5.safetensors", "-o", "c.safetensors", "--tokens"];
    for (name, key) in [("plain.safetensors", "t5_plain"), ("masked.safetensors", "t5_masked")] {
        let told = told(&bench, &[&t5[..], &[name]].concat());
        assert_eq!((&told["recipe"], &told["prompts"][0]["pooled_shape"]), (&json!("t5"), &Value::Null));
        let (shape, ours) = tensor(&bench, "c.safetensors", "cond");
        assert_eq!(shape, [1, ids.len(), 256]);
        assert_close(key, &kept_rows(&ours, 256), &answers.floats(key), 1e-5);
    }
    let (shape, ours) = tensor(&bench, "c.safetensors", "mask");
    assert_eq!(shape, [1, ids.len()]);
    assert_eq!(ours, mask.iter().map(|&seen| seen as f32).collect::<Vec<_>>());

    // A batch: rows are encoded as if each were alone.
    let ids: Vec<i64> = answers.integers("qwen_ids").into_iter().map(i64::from).collect();
    let rows = ids.iter().chain(ids.iter().rev()).copied();
    fs::write(bench.path("rows.safetensors"), file(&[integers("input_ids", &[2, ids.len()], rows)], &[])).unwrap();
    told(&bench, &["text", "--tokens", "rows.safetensors", "--qwen3", "qwen3", "-o", "c.safetensors"]);
    let (shape, ours) = tensor(&bench, "c.safetensors", "cond");
    assert_eq!(shape, [2, ids.len(), 96]);
    assert_close("qwen", &kept_rows(&ours[..ids.len() * 96], 96), &answers.floats("qwen_minus_2"), 1e-5);
}

#[test]
fn prompts_of_t5_and_qwen3_need_their_tokenizer() {
    let bench = Bench::new();
    for (flag, model, tokenizer) in [("--t5", t5(), "t5"), ("--qwen3", qwen3(), "qwen")] {
        fs::create_dir(bench.path(tokenizer)).unwrap();
        write_model(&bench, &format!("{tokenizer}/model.safetensors"), &[("", &model)]);
        let args = ["text", "the cat", flag, tokenizer, "-o", "c.safetensors"];
        let words = refused(&bench, &args, ErrorKind::NotFound);
        assert!(words.contains("tokenizer.json") && words.contains("give tokens"), "{words}");
        assert!(!bench.path("c.safetensors").exists());
        let given = fixture("tokenizer").join(tokenizer).join("tokenizer.json");
        told(&bench, &[&args[..], &["--tokenizer", given.to_str().unwrap()]].concat());
        let there = fs::read(bench.path("c.safetensors")).unwrap();
        folder(&bench.path(tokenizer), &model, tokenizer);
        told(&bench, &args);
        assert_eq!(fs::read(bench.path("c.safetensors")).unwrap(), there, "beside the weights or given is the same");
        fs::remove_file(bench.path("c.safetensors")).unwrap();
    }
    let given = fixture("tokenizer/qwen/tokenizer.json");
    let args = ["text", "x", "--t5", "t5", "-o", "c.safetensors", "--tokenizer", given.to_str().unwrap()];
    let words = refused(&bench, &args, ErrorKind::InvalidInput);
    assert!(words.contains("tokenizer"), "{words}");
}

/// A row's chunks as ComfyUI makes them; the fixtures leave padding out.
fn unpadded(told: &Value, pad: u64, like: &Value) -> Vec<Value> {
    let chunks = told["chunks"].as_array().unwrap().iter().zip(like.as_array().unwrap());
    chunks
        .map(|(chunk, like)| {
            let (chunk, kept) = (chunk.as_array().unwrap(), like.as_array().unwrap().len());
            assert_eq!(chunk.len(), 77);
            assert!(chunk[kept..].iter().all(|token| *token == json!([pad, 1.0])), "{chunk:?}");
            json!(chunk[..kept])
        })
        .collect()
}

#[test]
fn tokenize_tells_comfyuis_ids_and_weights() {
    let bench = Bench::new();
    let rows: Vec<Value> =
        serde_json::from_str(&fs::read_to_string(fixture("tokenizer/prompts.json")).unwrap()).unwrap();
    let mut compared = 0;
    for row in rows.iter().step_by(4) {
        let prompt = row[0].as_str().unwrap();
        // Without the fixtures' folder of embeddings there is nothing to compare; NUL cannot be typed.
        if prompt.contains("embedding:") {
            continue;
        }
        fs::write(bench.path("prompt.txt"), format!("{prompt}\n")).unwrap();
        for (encoder, key, pad) in [("clip_l", "sd1", 49407), ("clip_g", "sdxl_g", 0)] {
            let told = told(&bench, &["tokenize", "--prompt-file", "prompt.txt", "--encoder", encoder]);
            assert_eq!(told["chunks"].as_array().unwrap().len(), row[1][key].as_array().unwrap().len());
            let ours = unpadded(&told, pad, &row[1][key]);
            // The fixture's last padding is the end token for CLIP-L.
            assert_eq!(json!(ours), row[1][key], "{prompt:?}");
        }
        compared += 1;
    }
    assert!(compared > 15, "{compared}");
}

#[test]
fn tokenize_marks_embeddings_and_tells_missing_ones() {
    let bench = Bench::new();
    let embeddings = fixture("text/embeddings");
    let args = ["tokenize", "(embedding:tide:1.5) x embedding:nowhere", "--embeddings", embeddings.to_str().unwrap()];
    let told = told(&bench, &args);
    assert_eq!(told["chunks"][0][1], json!(["embedding", 1.5]));
    assert_eq!(told["missing_embeddings"], json!(["nowhere"]));
    let output = bench.args(&args).output().unwrap();
    assert!(text(&output.stdout).contains("embedding:tide[0] 1.5"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("`nowhere` left out"), "{}", text(&output.stderr));
}

#[test]
fn missing_embeddings_are_in_the_result() {
    let bench = Bench::new();
    let embeddings = fixture("text/embeddings");
    write_model(&bench, "l.safetensors", &[("", &clip(&CLIP_L))]);
    let prompt = "embedding:nowhere embedding:odd a cat";
    let args = ["text", prompt, "--clip-l", "l.safetensors", "-o", "c.safetensors", "--embeddings"];
    let args = [&args[..], &[embeddings.to_str().unwrap()]].concat();
    let told = told(&bench, &args);
    let problems = told["prompts"][0]["embedding_problems"].as_array().unwrap();
    let of = |name: &str| problems.iter().find(|problem| problem["name"] == name).unwrap();
    assert_eq!((&of("nowhere")["kind"], &of("nowhere")["encoder"]), (&json!("missing"), &json!("clip_l")));
    assert_eq!(of("odd")["kind"], "wrong_width");
    let output = bench.args(&args).arg("--quiet").output().unwrap();
    assert!(text(&output.stderr).contains("`nowhere`"), "{}", text(&output.stderr));
}

#[test]
fn the_demonstration_encoder_says_what_it_is() {
    let bench = Bench::new();
    let told = told(&bench, &["text", "a cat", "--negative", "", "-o", "c.safetensors"]);
    assert!(told["caution"].as_str().unwrap().contains("demonstration"), "{told}");
    let first = fs::read(bench.path("c.safetensors")).unwrap();
    assert!(String::from_utf8_lossy(&first).contains("means nothing"), "the file itself does not say so");
    let output = bench.args(&["text", "a cat", "--negative", "", "-o", "c.safetensors"]).output().unwrap();
    assert!(text(&output.stderr).contains("demonstration"), "{}", text(&output.stderr));
    assert_eq!(fs::read(bench.path("c.safetensors")).unwrap(), first, "equal conditionings give equal files");
    let names = ["cond", "pooled", "uncond", "uncond_pooled"];
    assert!(names.iter().all(|name| tensor(&bench, "c.safetensors", name).1.iter().all(|value| value.is_finite())));
    assert_ne!(tensor(&bench, "c.safetensors", "cond"), tensor(&bench, "c.safetensors", "uncond"));
    bench.ok("text cat -o half.safetensors --precision bf16");
    assert!(Checkpoint::open(bench.path("half.safetensors"), &Limits::default()).unwrap().tensor("uncond").is_none());
}

#[test]
fn odd_prompts_are_refused_or_read_as_comfyui_reads_them() {
    let bench = Bench::new();
    let file = |bytes: &[u8]| fs::write(bench.path("p.txt"), bytes).unwrap();
    let from_file = ["text", "--prompt-file", "p.txt", "-o", "c.safetensors"];
    file(&b"cat, ".repeat(210_000));
    assert!(refused(&bench, &from_file, ErrorKind::LimitExceeded).contains("p.txt"));
    file(&b"cat, ".repeat(200_000));
    assert!(refused(&bench, &from_file, ErrorKind::LimitExceeded).contains("tokens in the prompt"));
    assert!(refused(&bench, &["tokenize", "--prompt-file", "p.txt"], ErrorKind::LimitExceeded).contains("tokens"));
    file(b"a \xff cat");
    assert!(refused(&bench, &from_file, ErrorKind::InvalidInput).contains("UTF-8"));
    file(b"a\0cat");
    told(&bench, &from_file);
    let prompt = |prompt: &str| ["text", prompt, "-o", "c.safetensors"].map(str::to_owned);
    for weight in ["1e999", "nan", "-inf"] {
        let args = prompt(&format!("a (cat:{weight})"));
        let words = refused(&bench, &args.each_ref().map(String::as_str), ErrorKind::InvalidInput);
        assert!(words.contains("weight"), "{words}");
    }
    let args = prompt("a (cat:3.4e38)");
    refused(&bench, &args.each_ref().map(String::as_str), ErrorKind::NonFinite);
    refused(&bench, &["text", "--prompt-file", "none.txt", "-o", "c.safetensors"], ErrorKind::NotFound);
    refused(&bench, &["text", "a", "-o", "c.safetensors", "--embeddings", "nowhere"], ErrorKind::NotFound);
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let output = bench.args(&["tokenize"]).arg(std::ffi::OsStr::from_bytes(b"a \xff")).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    }
}

#[test]
fn wrong_models_and_tokens_are_told() {
    let bench = Bench::new();
    write_model(&bench, "l.safetensors", &[("", &clip(&CLIP_L))]);
    write_model(&bench, "t5.safetensors", &[("", &t5())]);
    write_model(&bench, "qwen3.safetensors", &[("", &qwen3())]);
    let vae = fixture("../../models/moonlet/moonlet.safetensors");
    let vae = vae.to_str().unwrap();
    for (options, kind, says) in [
        (&["--clip-l", "t5.safetensors"][..], ErrorKind::Unsupported, "another text encoder"),
        (&["--t5", "qwen3.safetensors"], ErrorKind::Unsupported, "another text encoder"),
        (&["--qwen3", "l.safetensors"], ErrorKind::Unsupported, "another text encoder"),
        (&["--checkpoint", vae], ErrorKind::Unsupported, "no text encoder"),
        (&["--clip-l", "l.safetensors", "--checkpoint", "l.safetensors"], ErrorKind::InvalidInput, "CLIP-L"),
        (&["--clip-l", "l.safetensors", "--qwen3", "qwen3.safetensors"], ErrorKind::InvalidInput, "together"),
        (&["--clip-l", "l.safetensors", "--recipe", "sdxl"], ErrorKind::InvalidInput, "missing for sdxl"),
        (&["--clip-l", "none.safetensors"], ErrorKind::NotFound, "none.safetensors"),
    ] {
        let words = refused(&bench, &[&["text", "a", "-o", "c.safetensors"], options].concat(), kind);
        assert!(words.contains(says), "{options:?}: {words}");
    }
    let bad: &[(&str, &[Tensor], ErrorKind, &str)] = &[
        ("range", &[integers("input_ids", &[1, 2], [1, 500])], ErrorKind::InvalidInput, "vocabulary"),
        ("minus", &[integers("input_ids", &[2], [1, -1])], ErrorKind::InvalidInput, "vocabulary"),
        ("empty", &[integers("input_ids", &[1, 0], [])], ErrorKind::InvalidInput, "shape"),
        ("flat", &[integers("input_ids", &[1, 1, 1], [1])], ErrorKind::InvalidInput, "shape"),
        (
            "mask",
            &[integers("attention_mask", &[1, 1], [1]), integers("input_ids", &[1, 2], [1, 2])],
            ErrorKind::InvalidInput,
            "attention_mask",
        ),
        (
            "float",
            &[("input_ids".to_owned(), "F32", vec![1], vec![0; 4])],
            ErrorKind::Unsupported,
            "unfit element type",
        ),
        ("other", &[integers("ids", &[1], [1])], ErrorKind::Unsupported, "input_ids"),
    ];
    for (name, tensors, kind, says) in bad {
        fs::write(bench.path("ids.safetensors"), file(tensors, &[])).unwrap();
        let args = ["text", "--tokens", "ids.safetensors", "--t5", "t5.safetensors", "-o", "c.safetensors"];
        let words = refused(&bench, &args, *kind);
        assert!(words.contains(says), "{name}: {words}");
    }
    assert!(!bench.path("c.safetensors").exists());
}
