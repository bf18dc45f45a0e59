//! Predictions with LoRAs against the references'.

use luna_core::{Limits, Precision, diffusion::ForwardOptions, lora::*};
use luna_tests::{
    lora::{Model, cases, open, path, stack},
    vae::relative_error,
};
use std::{collections::BTreeMap, sync::Arc};

const TOLERANCE: f64 = 2e-4;

#[test]
fn predictions_are_what_the_references_compute() {
    let mut models: BTreeMap<String, Model> = BTreeMap::new();
    for case in cases() {
        let model = models.entry(case.model.clone()).or_insert_with(|| Model::open(&case.model));
        let files: Vec<_> = case.stack.iter().map(|(name, strength)| (name.as_str(), *strength)).collect();
        let resolved = model.resolve(&stack(&case.model, &files));
        let error = relative_error(&model.predict(Some(&resolved)), &case.out);
        assert!(error < TOLERANCE, "{}: relative error {error:.2e}", case.name);
    }
    assert!(models.len() >= 4);
}

#[test]
fn half_precision_comes_near() {
    let model = Model::open("sd15_ldm");
    let resolved = model.resolve(&stack("sd15_ldm", &[("kohya", 0.8), ("locon", 0.5)]));
    let exact = model.predict(Some(&resolved));
    for precision in [Precision::Bf16, Precision::F16] {
        let options =
            ForwardOptions { precision, patches: Some(resolved.patches.clone()), ..ForwardOptions::default() };
        let predicted = model.denoiser.forward(&model.case.input(), &options).unwrap();
        let error = relative_error(predicted.prediction.data(), &exact);
        assert!(error < 3e-2, "{precision}: {error:.2e}");
    }
}

/// The same file fits a model by whichever names its checkpoint bears.
#[test]
fn names_of_the_checkpoint_do_not_matter() {
    let fused = Model::open("flux_dev_ldm");
    let apart = Model::open("flux_dev_diffusers");
    for (file, least) in [("kohya", 6), ("diffusers", 4)] {
        let stack = stack("flux_dev_ldm", &[(file, 1.0)]);
        let ours = stack.resolve(&fused.denoiser, &ResolveOptions::default()).unwrap().coverage;
        // The other model is narrower: its layers are found by the same names, then refused by their shapes.
        let options = ResolveOptions { allow_nothing: true, ..Default::default() };
        let theirs = stack.resolve(&apart.denoiser, &options).unwrap().coverage;
        assert_eq!(ours.applied(), least, "{file}");
        assert!(theirs.files[0].unmatched.is_empty() && theirs.files[0].wrong_shape.len() == least, "{theirs:?}");
    }
}

#[test]
fn strength_0_is_the_base_bit_for_bit() {
    let model = Model::open("sd15_ldm");
    let base = model.predict(None);
    let digest = model.denoiser.digest().unwrap();
    for name in ["kohya", "locon", "loha", "lokr", "dora", "diff", "glora"] {
        let resolved = model.resolve(&stack("sd15_ldm", &[(name, 0.0)]));
        assert!(resolved.patches.is_empty() && resolved.coverage.applied() > 0);
        assert_eq!(model.predict(Some(&resolved)), base, "{name}");
        model.predict(Some(&model.resolve(&stack("sd15_ldm", &[(name, 1.0)]))));
    }
    assert_eq!(model.predict(None), base);
    assert_eq!(model.denoiser.digest().unwrap(), digest);
}

#[test]
fn order_does_not_matter_and_duplicates_add() {
    let model = Model::open("sd15_ldm");
    let with = |files: &[(&str, f64)]| model.predict(Some(&model.resolve(&stack("sd15_ldm", files))));
    let one = with(&[("kohya", 0.5), ("dora", 0.7), ("loha", -0.4), ("glora", 0.3), ("locon", 0.6)]);
    let other = with(&[("locon", 0.6), ("glora", 0.3), ("loha", -0.4), ("kohya", 0.5), ("dora", 0.7)]);
    assert!(relative_error(&one, &other) < 1e-5);
    for name in ["kohya", "dora", "lokr"] {
        let error = relative_error(&with(&[(name, 0.25), (name, 0.5)]), &with(&[(name, 0.75)]));
        assert!(error < 1e-5, "{name}: {error:.2e}");
    }
}

#[test]
fn patches_are_for_the_model_they_were_resolved_for() {
    let (model, other) = (Model::open("sd15_ldm"), Model::open("sdxl_ldm"));
    let resolved = model.resolve(&stack("sd15_ldm", &[("kohya", 1.0)]));
    let options = ForwardOptions { patches: Some(resolved.patches), ..ForwardOptions::default() };
    let error = other.denoiser.forward(&other.case.input(), &options).unwrap_err();
    assert!(error.to_string().contains("another model"), "{error}");
}

/// A stack's digest follows content and strengths, not where a file lies.
#[test]
fn digests_follow_content_and_strengths() {
    let model = Model::open("sd15_ldm");
    let digest = |files: &[(&str, f64)]| model.resolve(&stack("sd15_ldm", files)).patches.digest();
    let base = digest(&[("kohya", 1.0)]);
    assert_eq!(digest(&[("kohya", 1.0), ("locon", 0.0)]), base);
    for other in [&[("kohya", 0.99)][..], &[("kohya_bf16", 1.0)], &[("kohya", 1.0), ("kohya", 1.0)]] {
        assert_ne!(digest(other), base, "{other:?}");
    }
    let moved = tempfile::tempdir().unwrap();
    let copy = moved.path().join("renamed.safetensors");
    std::fs::copy(path("sd15_ldm", "kohya"), &copy).unwrap();
    let moved = LoraFile::open(&copy, &Limits::default()).unwrap();
    assert_eq!(moved.digest(), open("sd15_ldm", "kohya").digest());
    assert_eq!((moved.name(), moved.adapters()), ("renamed", 6));
    let stack = LoraStack::new().with(Arc::new(moved), 1.0, 0.0).unwrap();
    assert_eq!(model.resolve(&stack).patches.digest(), base);
}
