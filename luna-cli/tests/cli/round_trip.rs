//! Pictures to latents and back.

use super::{Bench, write_picture};
use luna_core::{Limits, checkpoint::Checkpoint, picture};
use luna_tests::{
    safetensors_file::{f32_tensor, file},
    vae,
};
use std::fs;

fn mean_difference(a: &std::path::Path, b: &std::path::Path) -> f32 {
    let [a, b] = [a, b].map(|path| picture::read_picture(path, &Limits::default()).unwrap().to_rgb());
    assert_eq!(a.shape(), b.shape());
    a.data().iter().zip(b.data()).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.data().len() as f32
}

#[test]
fn the_demo_writes_pictures_to_look_at_and_says_how_near_they_are() {
    let bench = Bench::new();
    let told = bench.json("demo out");
    assert!(told["psnr"].as_f64().unwrap() > 27.0, "{told}");
    assert!(told["vae"]["caution"].as_str().unwrap().contains("demonstration"));
    let folder = bench.path("out");
    for name in ["original.png", "decoded.png", "side-by-side.png", "latent.safetensors"] {
        assert!(folder.join(name).is_file(), "{name}");
    }
    assert!(mean_difference(&folder.join("original.png"), &folder.join("decoded.png")) < 0.05);
    let again = bench.ok("demo out --precision bf16");
    assert!(again.contains("PSNR") && again.contains("demonstration") && again.contains("bf16"), "{again}");
}

#[test]
fn pictures_of_every_format_go_there_and_back() {
    let bench = Bench::new();
    let told = bench.json("encode photo.png -o latent.safetensors");
    assert_eq!(told["encoded_size"], serde_json::json!([296, 448]), "451x300 is cropped by default");
    for name in ["out.png", "out.webp", "out.jpg"] {
        bench.ok(&format!("decode latent.safetensors -o {name}"));
        assert!(mean_difference(&bench.path("out.png"), &bench.path(name)) < 0.03, "{name}");
        bench.ok(&format!("encode {name} -o again.safetensors"));
    }
    let told = bench.json("decode latent.safetensors -o image.safetensors");
    assert_eq!(told["tensor"], "latent");
    let image = Checkpoint::open(bench.path("image.safetensors"), &Limits::default()).unwrap();
    assert_eq!(image.shape("image").unwrap(), [1, 296, 448, 3]);
    bench.ok("encode image.safetensors -o from-tensor.safetensors");
}

#[test]
fn the_latent_file_says_what_a_sampler_must_know() {
    let bench = Bench::new();
    bench.ok("encode photo.png -o plain.safetensors --latent-format flux");
    bench.ok("encode photo.png -o scaled.safetensors --latent-format flux --scaled");
    let open = |name: &str| Checkpoint::open(bench.path(name), &Limits::default()).unwrap();
    let (plain, scaled) = (open("plain.safetensors"), open("scaled.safetensors"));
    for (file, said) in [(&plain, "false"), (&scaled, "true")] {
        let metadata = file.metadata();
        assert_eq!((metadata["model"].as_str(), metadata["scaled"].as_str()), ("moonlet", said));
        assert_eq!((metadata["scale_factor"].as_str(), metadata["shift_factor"].as_str()), ("0.3611", "0.1159"));
        assert_eq!(metadata["latent_format"], "flux");
    }
    let first = |file: &Checkpoint| f32::from_le_bytes(*file.tensor("latent").unwrap().bytes.first_chunk().unwrap());
    assert!((first(&scaled) - (first(&plain) - 0.1159) * 0.3611).abs() < 1e-5);
    bench.ok("decode plain.safetensors -o plain.png");
    bench.ok("decode scaled.safetensors -o scaled.png");
    assert!(mean_difference(&bench.path("plain.png"), &bench.path("scaled.png")) < 1e-3);
}

#[test]
fn several_pictures_become_a_batch_and_numbered_files() {
    let bench = Bench::new();
    for name in ["a.png", "b.jpg", "c.webp"] {
        write_picture(&bench.path(name), 64, 48);
    }
    let told = bench.json("encode a.png b.jpg c.webp -o batch.safetensors");
    assert_eq!(told["latent_shape"], serde_json::json!([3, 16, 6, 8]));
    let told = bench.json("decode batch.safetensors -o out.png");
    assert_eq!(told["outputs"], serde_json::json!(["out_00001.png", "out_00002.png", "out_00003.png"]));
    assert!(bench.path("out_00003.png").is_file() && !bench.path("out.png").exists());
    write_picture(&bench.path("d.png"), 72, 48);
    let output = bench.run("encode a.png d.png -o batch.safetensors");
    assert_eq!(output.status.code(), Some(2));
    assert!(super::text(&output.stderr).contains("72x48"));
}

#[test]
fn latents_of_comfyui_are_read() {
    let bench = Bench::new();
    let values: Vec<f32> = (0..16 * 4 * 4).map(|i| (i as f32).sin()).collect();
    let latent = |name| f32_tensor(name, &[1, 16, 4, 4], &values);
    let version = f32_tensor("latent_format_version_0", &[0], &[]);
    fs::write(bench.path("own.safetensors"), file(&[latent("latent")], &[])).unwrap();
    fs::write(bench.path("samples.safetensors"), file(&[latent("samples")], &[])).unwrap();
    fs::write(bench.path("comfyui.latent"), file(&[latent("latent_tensor"), version], &[])).unwrap();
    for (input, tensor) in
        [("own.safetensors", "latent"), ("samples.safetensors", "samples"), ("comfyui.latent", "latent_tensor")]
    {
        let told = bench.json(&format!("decode {input} -o {tensor}.png"));
        assert_eq!(told["tensor"], tensor);
        assert_eq!(mean_difference(&bench.path("latent.png"), &bench.path(&format!("{tensor}.png"))), 0.0);
    }
}

/// The file that the program writes holds what the reference computes, through any dialect and the model's folder.
#[test]
fn the_users_own_vae_is_used() {
    let bench = Bench::new();
    for name in ["ldm_sd", "taesd_own", "diffusers_batch", "diffusers_flux"] {
        let case = vae::case(name);
        let model = case.write(bench.folder.path());
        let image = f32_tensor("image", &case.image.shape(), case.image.data());
        fs::write(bench.path("image.safetensors"), file(&[image], &[])).unwrap();
        let latent = f32_tensor("latent", &case.latent.shape(), case.latent.data());
        fs::write(bench.path("z.safetensors"), file(&[latent], &[])).unwrap();
        let model = model.file_name().unwrap().to_string_lossy().into_owned();
        bench.ok(&format!("encode image.safetensors -o mean.safetensors --vae {model}"));
        bench.ok(&format!("decode z.safetensors -o decoded.safetensors --vae {model}"));
        for (file, tensor, theirs) in
            [("mean.safetensors", "latent", &case.mean), ("decoded.safetensors", "image", &case.decoded)]
        {
            let file = Checkpoint::open(bench.path(file), &Limits::default()).unwrap();
            let bytes = file.tensor(tensor).unwrap().bytes;
            let ours: Vec<f32> = bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            let error = vae::relative_error(&ours, theirs);
            assert!(error < 1e-4, "{name} {tensor}: {error:.2e}");
        }
    }
}

#[test]
fn samples_follow_their_seed() {
    let bench = Bench::new();
    for (name, options) in [("a", "--sample --seed 1"), ("b", "--sample --seed 1"), ("c", "--sample"), ("d", "")] {
        bench.ok(&format!("encode photo.png -o {name}.safetensors {options}"));
    }
    let read = |name: &str| fs::read(bench.path(&format!("{name}.safetensors"))).unwrap();
    assert_eq!(read("a"), read("b"));
    assert!(read("a") != read("c") && read("c") != read("d"));
}

#[test]
fn an_output_is_replaced_unless_that_is_forbidden() {
    let bench = Bench::new();
    write_picture(&bench.path("a.png"), 32, 32);
    bench.ok("encode a.png -o latent.safetensors");
    let first = fs::read(bench.path("latent.safetensors")).unwrap();
    fs::write(bench.path("latent.safetensors"), b"old").unwrap();
    assert_eq!(bench.run("encode a.png -o latent.safetensors --no-clobber").status.code(), Some(2));
    assert_eq!(fs::read(bench.path("latent.safetensors")).unwrap(), b"old");
    bench.ok("encode a.png -o latent.safetensors");
    assert_eq!(fs::read(bench.path("latent.safetensors")).unwrap(), first);
}
