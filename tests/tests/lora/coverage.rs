//! What became of every adapter is told, and bad files are refused for what is wrong with them.

use half::f16;
use luna_core::{ErrorKind, Limits, Result, lora::*};
use luna_tests::{
    lora::{Model, open, stack},
    random, safetensors_file,
};
use std::sync::Arc;

/// A file of f16 tensors drawn by their names, and others.
fn file(shapes: &[(&str, &[usize])], others: &[safetensors_file::Tensor]) -> Vec<u8> {
    let mut tensors: Vec<_> = shapes
        .iter()
        .map(|(name, shape)| safetensors_file::f16_tensor(name, shape, &random::parameter(name, shape)))
        .collect();
    tensors.extend_from_slice(others);
    safetensors_file::file(&tensors, &[])
}

fn read(bytes: Vec<u8>) -> Result<LoraFile> {
    LoraFile::from_bytes("test", bytes, &Limits::default())
}

fn alone(file: LoraFile) -> LoraStack {
    LoraStack::new().with(Arc::new(file), 1.0, 1.0).unwrap()
}

const Q: &str = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q";

#[test]
fn every_adapter_is_accounted_for() {
    let model = Model::open("sd15_ldm");
    let (down, up) = (format!("{Q}.lora_down.weight"), format!("{Q}.lora_up.weight"));
    let wide = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_k";
    let typo = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_w";
    let text = "lora_te_text_model_encoder_layers_0_mlp_fc1";
    let of = |key: &str, part: &str| format!("{key}.{part}");
    let names = [
        (of(wide, "lora_down.weight"), vec![2, 48]),
        (of(wide, "lora_up.weight"), vec![32, 2]),
        (of(typo, "lora_down.weight"), vec![2, 32]),
        (of(typo, "lora_up.weight"), vec![32, 2]),
        (of(text, "lora_down.weight"), vec![2, 32]),
        (of(text, "lora_up.weight"), vec![32, 2]),
        (of("diffusion_model.time_embed.0", "set_weight"), vec![4, 4]),
        ("something.else".to_owned(), vec![3]),
        (down, vec![2, 32]),
        (up, vec![32, 2]),
    ];
    let shapes: Vec<_> = names.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    let stack = alone(read(file(&shapes, &[])).unwrap());
    let coverage = stack.resolve(&model.denoiser, &ResolveOptions::default()).unwrap().coverage;
    let [found] = coverage.files.as_slice() else { panic!("{coverage:?}") };
    assert_eq!(found.applied.len(), 1);
    assert_eq!((found.applied[0].key.as_str(), found.applied[0].kind.as_ref()), (Q, "lora"));
    assert_eq!(found.applied[0].targets, ["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"]);
    assert_eq!(found.unmatched.len(), 1);
    let nearest = found.unmatched[0].nearest.as_deref().unwrap();
    assert!(nearest.starts_with("input_blocks_1_1_transformer_blocks_0_attn1_to_"), "{nearest}");
    assert_eq!(found.wrong_shape.len(), 1);
    assert_eq!((found.wrong_shape[0].expected.as_str(), found.wrong_shape[0].found.as_str()), ("[32, 32]", "[32, 48]"));
    let unsupported: Vec<_> = found.unsupported.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(unsupported, ["diffusion_model.time_embed.0", "something.else"]);
    assert_eq!(found.elsewhere, 1);
    assert!(!found.is_complete());
    let text = found.to_string();
    assert_eq!(text, "test at 1: 1 applied, 1 unmatched, 1 of wrong shape, 2 unsupported, 1 for other components");
    let json = serde_json::to_value(&coverage).unwrap();
    assert_eq!(json["files"][0]["elsewhere"], 1);
    let strict = ResolveOptions { strict: true, ..Default::default() };
    let error = stack.resolve(&model.denoiser, &strict).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("nearest"), "{error}");
}

#[test]
fn a_stack_of_which_nothing_applies_is_an_error_unless_allowed() {
    let model = Model::open("sd15_ldm");
    let text = "lora_te_text_model_encoder_layers_0_mlp_fc1";
    let names = [format!("{text}.lora_down.weight"), format!("{text}.lora_up.weight")];
    let stack = alone(read(file(&[(&names[0], &[2, 32]), (&names[1], &[32, 2])], &[])).unwrap());
    let error = stack.resolve(&model.denoiser, &ResolveOptions::default()).unwrap_err();
    assert!(error.to_string().contains("for other components"), "{error}");
    let allowed = ResolveOptions { allow_nothing: true, ..Default::default() };
    let resolved = stack.resolve(&model.denoiser, &allowed).unwrap();
    assert!(resolved.patches.is_empty() && resolved.coverage.files[0].elsewhere == 1);
    assert!(LoraStack::new().resolve(&model.denoiser, &ResolveOptions::default()).unwrap().patches.is_empty());
}

#[test]
fn a_lora_for_another_family_says_which() {
    let model = Model::open("sd15_ldm");
    let key = "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k";
    let names = [format!("{key}.lora_down.weight"), format!("{key}.lora_up.weight")];
    let sdxl = read(file(&[(&names[0], &[4, 2048]), (&names[1], &[640, 4])], &[])).unwrap();
    assert_eq!(sdxl.made_for(), Some("SDXL"));
    let error = alone(sdxl).resolve(&model.denoiser, &ResolveOptions::default()).unwrap_err();
    assert!(error.to_string().contains("looks made for SDXL"), "{error}");
    let error = stack("flux_dev_ldm", &[("kohya", 1.0)]).resolve(&model.denoiser, &Default::default()).unwrap_err();
    assert!(error.to_string().contains("looks made for Flux"), "{error}");
    assert_eq!(open("z_image_single_file", "fused").made_for(), None);
}

#[test]
fn damaged_files_are_refused_for_what_is_wrong() {
    let (down, up, alpha) = (format!("{Q}.lora_down.weight"), format!("{Q}.lora_up.weight"), format!("{Q}.alpha"));
    let number = |value: f32| safetensors_file::f32_tensor(&alpha, &[], &[value]);
    let good: [(&str, &[usize]); 2] = [(&down, &[2, 32]), (&up, &[32, 2])];
    assert_eq!(read(file(&good, &[number(1.0)])).unwrap().adapters(), 1);
    for (bytes, kind, word) in [
        (file(&[(&down, &[0, 32]), (&up, &[32, 0])], &[]), ErrorKind::InvalidFile, "rank"),
        (file(&[(&down, &[1_000_000, 1]), (&up, &[1, 1_000_000])], &[]), ErrorKind::LimitExceeded, "rank"),
        (file(&good, &[number(f32::NAN)]), ErrorKind::InvalidFile, "alpha"),
        (file(&good, &[number(f32::INFINITY)]), ErrorKind::InvalidFile, "alpha"),
        (file(&[(&down, &[3, 32]), (&up, &[32, 2])], &[]), ErrorKind::InvalidFile, "disagree"),
        (file(&[(&down, &[2, 32])], &[]), ErrorKind::InvalidFile, "incomplete"),
        (file(&[(&up, &[32, 2])], &[number(1.0)]), ErrorKind::InvalidFile, "incomplete"),
        (file(&[(&format!("{Q}.hada_w1_a"), &[32, 2])], &[]), ErrorKind::InvalidFile, "incomplete"),
        (file(&[(&format!("{Q}.lokr_w1"), &[4, 4])], &[]), ErrorKind::InvalidFile, "incomplete"),
        (file(&[(&format!("{Q}.oft_blocks"), &[4, 4])], &[]), ErrorKind::InvalidFile, "OFT"),
        (file(&[("model.weight", &[4, 4])], &[]), ErrorKind::Unsupported, "no LoRA"),
    ] {
        let error = read(bytes).err().unwrap_or_else(|| panic!("accepted: {word}"));
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    // A file that ends in the middle, wherever.
    let whole = file(&good, &[]);
    for length in [0, 4, 8, 60, whole.len() - 100, whole.len() - 1] {
        let error = read(whole[..length].to_vec()).err().unwrap_or_else(|| panic!("accepted at {length}"));
        assert_eq!(error.kind(), ErrorKind::InvalidFile, "{error}");
    }
    let integers = (up.clone(), "I32", vec![32, 2], vec![0; 256]);
    let values = safetensors_file::f16_tensor(&down, &[2, 32], &[f16::ONE; 64]);
    let error = read(safetensors_file::file(&[integers, values], &[])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[test]
fn strengths_must_be_numbers_and_overflow_is_told() {
    let model = Model::open("sd15_ldm");
    for strength in [f64::NAN, f64::INFINITY, -1e300] {
        for (a, b) in [(strength, 1.0), (1.0, strength)] {
            let error = LoraStack::new().with(open("sd15_ldm", "kohya"), a, b).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
    }
    for strength in [1e30, -1e30] {
        let resolved = model.resolve(&stack("sd15_ldm", &[("kohya", strength)]));
        let options = luna_core::diffusion::ForwardOptions { patches: Some(resolved.patches), ..Default::default() };
        let error = model.denoiser.forward(&model.case.input(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NonFinite, "{error}");
    }
    assert!(model.predict(None).iter().all(|value| value.is_finite()));
}
