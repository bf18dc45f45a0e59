//! VAEs against what diffusers and ComfyUI compute on the same weights: all name dialects, 4 and 16 latent channels,
//! with and without quant convolutions, batches, sides that differ.

use luna_core::{
    Precision, Runtime,
    vae::{DecodeOptions, EncodeOptions, Posterior, Vae},
};
use luna_tests::vae::{self, VaeCase, relative_error};
use std::{path::Path, sync::OnceLock};

const F32_TOLERANCE: f64 = 1e-4;
const HALF_TOLERANCE: f64 = 2e-2;

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::cpu().unwrap())
}

fn check(case: &VaeCase, model: &Path, precision: Precision, tolerance: f64) {
    let vae = Vae::open(model, runtime()).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let encoded = vae.encode(&case.image, &EncodeOptions { precision, ..Default::default() }).unwrap();
    assert_eq!(encoded.latent.shape(), case.latent.shape(), "{}", case.name);
    let decoded = vae.decode(&case.latent, &DecodeOptions { precision, ..Default::default() }).unwrap();
    assert_eq!(decoded.image.shape(), case.image.shape(), "{}", case.name);
    for report in [&encoded.report, &decoded.report] {
        assert!(report.fallbacks.is_empty() && report.precision == precision, "{}: {report:?}", case.name);
    }
    for (what, ours, theirs) in
        [("mean", encoded.latent.data(), &case.mean), ("decoded", decoded.image.data(), &case.decoded)]
    {
        let error = relative_error(ours, theirs);
        assert!(error < tolerance, "{} {what} in {precision}: relative error {error:.2e}", case.name);
    }
}

fn check_all(precision: Precision, tolerance: f64) {
    let folder = tempfile::tempdir().unwrap();
    for case in vae::cases() {
        check(&case, &case.write(folder.path()), precision, tolerance);
    }
}

#[test]
fn f32_is_what_the_references_compute() {
    check_all(Precision::F32, F32_TOLERANCE);
}

#[test]
fn bf16_is_near_what_the_references_compute() {
    check_all(Precision::Bf16, HALF_TOLERANCE);
}

#[test]
fn f16_is_near_what_the_references_compute() {
    check_all(Precision::F16, HALF_TOLERANCE);
}

#[test]
fn a_folder_that_diffusers_saved_works_as_it_is() {
    let folder = vae::folder().join("saved");
    check(&vae::case("saved"), &folder, Precision::F32, F32_TOLERANCE);
    let scale = Vae::open(&folder, runtime()).unwrap().latent_scale().unwrap();
    assert_eq!((scale.scale, scale.shift), (0.13025, 0.0));
}

/// The noise is Luna's own, so its distribution is what can be checked.
#[test]
fn samples_have_the_references_deviation() {
    let folder = tempfile::tempdir().unwrap();
    for case in vae::cases() {
        let vae = Vae::open(case.write(folder.path()), runtime()).unwrap();
        let sample = |seed| {
            let options = EncodeOptions { posterior: Posterior::Sample { seed }, ..Default::default() };
            vae.encode(&case.image, &options).unwrap().latent.into_data()
        };
        let Some(deviation) = &case.deviation else {
            assert!(relative_error(&sample(1), &case.mean) < F32_TOLERANCE, "{}: no distribution", case.name);
            continue;
        };
        assert_eq!(sample(1), sample(1), "{}: a seed gives one sample", case.name);
        let noise: Vec<f64> = (0..24)
            .flat_map(sample)
            .zip(case.mean.iter().zip(deviation).cycle())
            .map(|(sample, (mean, deviation))| f64::from((sample - mean) / deviation))
            .collect();
        // The mean of n squared normal values is 1 with a deviation of √(2/n).
        let variance = noise.iter().map(|value| value * value).sum::<f64>() / noise.len() as f64;
        let most = 5.0 * (2.0 / noise.len() as f64).sqrt();
        assert!((variance - 1.0).abs() < most, "{}: variance {variance} of {}", case.name, noise.len());
    }
}

#[test]
fn threads_share_a_model_and_agree() {
    let case = vae::case("diffusers_batch");
    let folder = tempfile::tempdir().unwrap();
    let vae = &Vae::open(case.write(folder.path()), runtime()).unwrap();
    let case = &case;
    std::thread::scope(|scope| {
        let work = || vae.decode(&case.latent, &Default::default()).unwrap().image;
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        let images: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(images.iter().all(|image| *image == images[0]));
        assert!(relative_error(images[0].data(), &case.decoded) < F32_TOLERANCE);
    });
}
