//! One step of a denoiser: from a step file to a prediction, and everything that can be wrong with either.

use super::{
    Bench,
    errors::{fails, status},
    text,
};
use luna_core::{AttentionMode, ErrorKind, Limits, checkpoint::Checkpoint};
use luna_tests::{
    diffusion::{self, DenoiserCase},
    lora,
    safetensors_file::{Tensor, f32_tensor, file},
    vae::relative_error,
};
use std::fs;

/// Puts the fixture's model and step file into the folder; gives the model's name there.
fn put(bench: &Bench, case: &DenoiserCase, with_control: bool) -> String {
    fs::write(bench.path("step.safetensors"), case.step_file(with_control)).unwrap();
    let path = case.write(bench.folder.path());
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn read(bench: &Bench, file: &str, name: &str) -> (Vec<usize>, Vec<f32>) {
    let file = Checkpoint::open(bench.path(file), &Limits::default()).unwrap();
    let view = file.tensor(name).unwrap();
    let values = view.bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    (view.shape.to_vec(), values)
}

#[test]
fn predictions_are_what_the_references_compute() {
    for case in diffusion::cases() {
        let bench = Bench::new();
        let model = put(&bench, &case, false);
        let out = case.get("out").unwrap();
        for (precision, tolerance) in [("f32", 2e-4), ("bf16", 3e-2)] {
            let line = format!("forward step.safetensors -o out.safetensors --model {model} --precision {precision}");
            let told = bench.json(&line);
            assert_eq!((told["layout"].as_str(), told["ignored"].as_array().unwrap().len()), (Some("comfyui"), 0));
            let call = &told["calls"][0];
            assert_eq!((call["precision"].as_str(), call["attention"].as_str()), (Some(precision), Some("auto")));
            assert_eq!(call["shape"], serde_json::json!(out.shape));
            let (shape, values) = read(&bench, "out.safetensors", "out");
            assert_eq!(shape, out.shape);
            let error = relative_error(&values, &out.data);
            assert!(error < tolerance, "{} in {precision}: {error:.2e}", case.name);
        }
    }
}

#[test]
fn control_residuals_are_taken_by_their_names() {
    let mut checked = 0;
    for case in diffusion::cases() {
        let Some(out) = case.get("out/control") else { continue };
        let bench = Bench::new();
        let model = put(&bench, &case, true);
        bench.ok(&format!("forward step.safetensors -o out.safetensors --model {model}"));
        let error = relative_error(&read(&bench, "out.safetensors", "out").1, &out.data);
        assert!(error < 2e-4, "{}: {error:.2e}", case.name);
        checked += 1;
    }
    assert!(checked >= 3, "the fixtures with control residuals are missing");
}

#[test]
fn every_way_of_attention_gives_the_same() {
    let (bench, case) = (Bench::new(), diffusion::case("sd15_ldm"));
    let model = put(&bench, &case, false);
    let run = |mode: AttentionMode| {
        let told =
            bench.json(&format!("forward step.safetensors -o out.safetensors --model {model} --attention {mode}"));
        assert_eq!(told["calls"][0]["attention"], mode.name());
        read(&bench, "out.safetensors", "out").1
    };
    let auto = run(AttentionMode::Auto);
    for mode in AttentionMode::ALL {
        assert!(relative_error(&run(mode), &auto) < 1e-5, "{mode}");
    }
}

/// diffusers calls Z-Image with a list of items, counts time the other way round, and its prediction has the other sign.
#[test]
fn z_image_is_called_as_diffusers_calls_it_too() {
    let (bench, case) = (Bench::new(), diffusion::case("z_image_diffusers"));
    let model = put(&bench, &case, false);
    let (x, context, times) = (case.get("x").unwrap(), case.get("context").unwrap(), case.get("timesteps").unwrap());
    let t: Vec<f32> = times.data.iter().map(|time| 1.0 - time).collect();
    let mut tensors = vec![f32_tensor("t", &[2], &t)];
    for item in 0..2 {
        let (x_len, context_len) = (x.data.len() / 2, context.data.len() / 2);
        let shape = [x.shape[1], 1, x.shape[2], x.shape[3]];
        tensors.push(f32_tensor(&format!("x{item}"), &shape, &x.data[item * x_len..][..x_len]));
        let values = &context.data[item * context_len..][..context_len];
        tensors.push(f32_tensor(&format!("cap{item}"), &context.shape[1..], values));
    }
    fs::write(bench.path("list.safetensors"), file(&tensors, &[])).unwrap();
    let told = bench.json(&format!("forward list.safetensors -o out.safetensors --model {model}"));
    assert_eq!((told["layout"].as_str(), told["calls"].as_array().unwrap().len()), (Some("diffusers_z_image"), 2));
    let out = case.get("out").unwrap();
    for item in 0..2 {
        let (shape, values) = read(&bench, "out.safetensors", &format!("out{item}"));
        assert_eq!(shape, [x.shape[1], 1, x.shape[2], x.shape[3]]);
        let expected: Vec<f32> = out.data[item * values.len()..][..values.len()].iter().map(|value| -value).collect();
        let error = relative_error(&values, &expected);
        assert!(error < 2e-4, "item {item}: {error:.2e}");
    }
    tensors[0] = f32_tensor("t", &[3], &[0.5; 3]);
    fs::write(bench.path("list.safetensors"), file(&tensors, &[])).unwrap();
    let words = fails(&bench, &format!("forward list.safetensors -o x --model {model}"), ErrorKind::InvalidInput);
    assert!(words.contains("`t`") && words.contains("found     3"), "{words}");
}

#[test]
fn timesteps_may_be_whole_numbers_and_unknown_tensors_are_told() {
    let (bench, case) = (Bench::new(), diffusion::case("sd15_ldm"));
    let model = put(&bench, &case, false);
    let step = |timesteps: Tensor| {
        let of = |name: &str| {
            let array = case.get(name).unwrap();
            f32_tensor(name, &array.shape, &array.data)
        };
        let noise = f32_tensor("guidence", &[2], &[1.0; 2]);
        fs::write(bench.path("step.safetensors"), file(&[of("x"), of("context"), timesteps, noise], &[])).unwrap();
        let output = bench.run(&format!("forward step.safetensors -o out.safetensors --model {model}"));
        assert!(output.status.success());
        assert!(text(&output.stderr).contains("`guidence` was not used"), "{}", text(&output.stderr));
        read(&bench, "out.safetensors", "out").1
    };
    let whole = [7i64, 900].iter().flat_map(|step| step.to_le_bytes()).collect();
    let whole = step(("timesteps".to_owned(), "I64", vec![2], whole));
    assert_eq!(whole, step(f32_tensor("timesteps", &[2], &[7.0, 900.0])));
}

/// Every kind of LoRA alone and several at once, applied with the call and merged, against what ComfyUI, PEFT and LyCORIS
/// compute.
#[test]
fn loras_are_applied_as_others_apply_them() {
    let mut checked = 0;
    for expected in lora::cases() {
        let (bench, case) = (Bench::new(), diffusion::case(&expected.model));
        let model = put(&bench, &case, false);
        let mut line = format!("forward step.safetensors -o out.safetensors --model {model}");
        for (name, strength) in &expected.stack {
            line += &format!(" --lora {}:{strength}", lora::path(&expected.model, name).display());
        }
        for mode in ["functional", "merged"] {
            let told = bench.json(&format!("{line} --mode {mode}"));
            assert_eq!(told["loras"]["mode"], mode, "{}", expected.name);
            let files = told["loras"]["coverage"]["files"].as_array().unwrap();
            assert_eq!(files.len(), expected.stack.len());
            assert!(
                files.iter().all(|file| !file["applied"].as_array().unwrap().is_empty()),
                "{}: {told}",
                expected.name
            );
            let error = relative_error(&read(&bench, "out.safetensors", "out").1, &expected.out);
            assert!(error < 2e-4, "{} {mode}: {error:.2e}", expected.name);
        }
        checked += 1;
    }
    assert!(checked > 20);
}

#[test]
fn what_became_of_a_lora_is_told() {
    let (bench, case) = (Bench::new(), diffusion::case("sd15_ldm"));
    let model = put(&bench, &case, false);
    let names = ["lora_unet_middle_block_1_proj_in", "lora_unet_middle_block_1_proj_inn"];
    let shapes = [("lora_down", [2, 64]), ("lora_up", [64, 2])];
    let tensors: Vec<_> = names
        .iter()
        .flat_map(|name| shapes.map(|(part, shape)| f32_tensor(&format!("{name}.{part}.weight"), &shape, &[0.01; 128])))
        .collect();
    fs::write(bench.path("half.safetensors"), file(&tensors, &[])).unwrap();
    let line = format!("forward step.safetensors -o x.safetensors --model {model}");
    let output = bench.run(&format!("{line} --lora half.safetensors:0.5"));
    let (told, notes) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{notes}");
    assert!(told.contains("half at 0.5: 1 applied, 1 unmatched, functional"), "{told}");
    assert!(notes.contains("no layer for `lora_unet_middle_block_1_proj_inn") && notes.contains("nearest"), "{notes}");
    let told = bench.json(&format!("{line} --lora half.safetensors:0.5 --mode auto"));
    assert_eq!(
        (told["loras"]["mode"].as_str(), told["loras"]["not_merged"].as_str()),
        (Some("functional"), Some("few_forwards"))
    );
    assert_eq!(told["loras"]["coverage"]["files"][0]["unmatched"].as_array().unwrap().len(), 1);
    let words = fails(&bench, &format!("{line} --lora half.safetensors --strict"), ErrorKind::InvalidInput);
    assert!(words.contains("does not fit the model wholly"), "{words}");
    fs::write(bench.path("other.safetensors"), file(&tensors[2..], &[])).unwrap();
    let words = fails(&bench, &format!("{line} --lora other.safetensors"), ErrorKind::InvalidInput);
    assert!(words.contains("nothing of the LoRA stack applies"), "{words}");
    fails(&bench, &format!("{line} --lora half.safetensors:strong"), ErrorKind::InvalidInput);
    fails(&bench, &format!("{line} --lora none.safetensors"), ErrorKind::NotFound);
    // Without a LoRA there is nothing to apply in any mode.
    assert_eq!(bench.run(&format!("{line} --strict")).status.code(), Some(status(ErrorKind::InvalidInput)));
}

#[test]
fn wrong_steps_are_told_from_right_ones() {
    use ErrorKind::{InvalidFile, InvalidInput, LimitExceeded, NonFinite, NotFound, Unsupported};
    let bench = Bench::new();
    let (sd15, sdxl, flux) =
        (diffusion::case("sd15_ldm"), diffusion::case("sdxl_ldm"), diffusion::case("flux_schnell_ldm"));
    for case in [&sd15, &sdxl, &flux] {
        case.write(bench.folder.path());
    }
    let zeros = vec![0.0; 1 << 20];
    let array = |name: &str, shape: &[usize]| f32_tensor(name, shape, &zeros[..shape.iter().product()]);
    let step = |x: &[usize], timesteps: usize, context: &[usize]| {
        vec![array("x", x), array("timesteps", &[timesteps]), array("context", context)]
    };
    let good = step(&[1, 4, 8, 8], 1, &[1, 3, 24]);
    let with = |extra: Tensor| [good.clone(), vec![extra]].concat();
    let mut holed = vec![0.0; 256];
    (holed[3], holed[200]) = (f32::NAN, f32::INFINITY);
    let holed = vec![f32_tensor("x", &[1, 4, 8, 8], &holed), good[1].clone(), good[2].clone()];
    let unfit = ("y".to_owned(), "U8", vec![1], vec![0]);
    for (tensors, model, kind, says) in [
        (step(&[1, 4, 8, 8], 1, &[1, 3, 768]), "sd15_ldm", InvalidInput, "768 (CLIP-L, of SD1.5)"),
        (
            step(&[1, 4, 8, 8], 1, &[1, 3, 2048]),
            "sd15_ldm",
            InvalidInput,
            "CLIP-L and OpenCLIP-G side by side, of SDXL",
        ),
        (step(&[1, 4, 8, 8], 1, &[1, 3, 4096]), "sd15_ldm", InvalidInput, "T5-XXL, of Flux"),
        (step(&[1, 4, 8, 8], 1, &[1, 3, 24]), "sdxl_ldm", InvalidInput, "needs the pooled conditioning `y`"),
        (with(array("y", &[1, 27])), "sdxl_ldm", InvalidInput, "[1, 28]"),
        (with(array("y", &[1, 28])), "sd15_ldm", InvalidInput, "takes no pooled conditioning"),
        (with(array("guidance", &[1])), "sd15_ldm", InvalidInput, "takes no guidance"),
        (holed, "sd15_ldm", NonFinite, "2 of 256"),
        (step(&[2, 4, 8, 8], 1, &[2, 3, 24]), "sd15_ldm", InvalidInput, "2, one for each latent"),
        (step(&[1, 4, 8, 8], 3, &[1, 3, 24]), "sd15_ldm", InvalidInput, "found     3"),
        (step(&[1, 16, 8, 8], 1, &[1, 3, 24]), "sd15_ldm", InvalidInput, "16 channels (as of SD3, Flux and Z-Image)"),
        (step(&[1, 4, 8, 9], 1, &[1, 3, 24]), "sd15_ldm", InvalidInput, "multiples of 2 (picture sides of 16)"),
        (step(&[1, 4, 6, 8], 1, &[1, 3, 24]), "sdxl_ldm", InvalidInput, "multiples of 4"),
        (step(&[1, 4, 5, 4], 1, &[1, 3, 24]), "flux_schnell_ldm", InvalidInput, "multiples of 2"),
        (step(&[4, 8, 8], 1, &[1, 3, 24]), "sd15_ldm", InvalidInput, "[batch, channels, height, width]"),
        (step(&[1, 4, 8, 8], 1, &[3, 24]), "sd15_ldm", InvalidInput, "[batch, tokens, width]"),
        (step(&[1, 4, 2, 4100], 1, &[1, 3, 24]), "sd15_ldm", LimitExceeded, "4096"),
        (with(array("control/middle/0", &[1, 9, 4, 4])), "sd15_ldm", InvalidInput, "`middle`"),
        (with(array("control/middle/9999999999", &[1])), "sd15_ldm", InvalidInput, "`control/middle/0` to"),
        (with(unfit), "sd15_ldm", Unsupported, "U8"),
        (good[..2].to_vec(), "sd15_ldm", Unsupported, "`context`"),
        (Vec::new(), "sd15_ldm", Unsupported, "no tensors"),
        (good.clone(), "none", NotFound, "none.safetensors"),
        (good.clone(), "step", Unsupported, "no denoiser"),
    ] {
        fs::write(bench.path("step.safetensors"), file(&tensors, &[])).unwrap();
        let words = fails(&bench, &format!("forward step.safetensors -o x --model {model}.safetensors"), kind);
        assert!(words.contains(says), "{model}: {says}: {words}");
    }
    fs::write(bench.path("step.safetensors"), file(&good, &[])).unwrap();
    for (line, kind, says) in [
        ("forward step.safetensors -o sd15_ldm.safetensors --model sd15_ldm.safetensors", InvalidInput, "same file"),
        ("forward step.safetensors -o step.safetensors --model sd15_ldm.safetensors", InvalidInput, "same file"),
        ("forward photo.png -o x --model sd15_ldm.safetensors", Unsupported, "a picture"),
    ] {
        let words = fails(&bench, line, kind);
        assert!(words.contains(says), "{line}: {words}");
    }
    let model = fs::read(bench.path("sd15_ldm.safetensors")).unwrap();
    fs::write(bench.path("cut.safetensors"), &model[..model.len() - 100]).unwrap();
    fails(&bench, "forward step.safetensors -o x --model cut.safetensors", InvalidFile);
    let output = bench.run("forward step.safetensors -o x --model sd15_ldm.safetensors --attention plain");
    assert_eq!(output.status.code(), Some(status(InvalidInput)));
    assert!(text(&output.stderr).contains("`pytorch`"), "{}", text(&output.stderr));
    bench.ok("forward step.safetensors -o x --model sd15_ldm.safetensors");
}

/// At 128×128 latent pixels one head's scores alone would be 1 GiB.
#[cfg(target_os = "linux")]
#[test]
fn memory_is_linear_in_the_tokens() {
    let (bench, case) = (Bench::new(), diffusion::case("sd15_ldm"));
    let model = put(&bench, &case, false);
    let peak = |side: usize, mode: &str| {
        let x = f32_tensor("x", &[1, 4, side, side], &vec![0.5; 4 * side * side]);
        let tensors = [x, f32_tensor("timesteps", &[1], &[9.0]), f32_tensor("context", &[1, 3, 24], &[0.1; 72])];
        fs::write(bench.path("step.safetensors"), file(&tensors, &[])).unwrap();
        let line = format!("forward step.safetensors -o x.safetensors --model {model} --attention {mode} --threads 2");
        bench.json(&line)["peak_memory_bytes"].as_u64().unwrap()
    };
    let small = peak(32, "auto");
    let (middle, large) = (peak(64, "auto") - small, peak(128, "auto").saturating_sub(small));
    assert!(large < 256 << 20, "{large} bytes more than for 32x32");
    // 5 times 3072 tokens are 15 360; the square of that would be 25 times as much.
    assert!(large < 7 * middle + (16 << 20), "{large} bytes more for 16 times the tokens, {middle} for 4 times");
    assert!(
        peak(64, "pytorch") > small + (60 << 20),
        "the plain way holds a score matrix of 64 MiB, this test would see it"
    );
}
