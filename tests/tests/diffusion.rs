//! Denoisers against what diffusers and ComfyUI compute on the same weights: UNets of all kinds, Flux and Z-Image in all
//! name dialects, batches whose timesteps differ, sides that differ, contexts of any length, control residuals.

use luna_core::{
    ArrayView, AttentionMode, CancelToken, ErrorKind, Limits, Precision, Runtime,
    checkpoint::{Checkpoint, Family},
    diffusion::{CacheOptions, Control, Denoiser, FirstBlockCache, ForwardInput, ForwardOptions, LoadOptions},
};
use luna_tests::{
    diffusion::{self, DenoiserCase},
    random, safetensors_file,
    vae::relative_error,
};
use std::sync::OnceLock;

const F32_TOLERANCE: f64 = 2e-4;
const HALF_TOLERANCE: f64 = 3e-2;

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::cpu().unwrap())
}

fn open(case: &DenoiserCase) -> Denoiser {
    let folder = tempfile::tempdir().unwrap();
    Denoiser::open(case.write(folder.path()), runtime()).unwrap_or_else(|error| panic!("{}: {error}", case.name))
}

fn predict(denoiser: &Denoiser, input: &ForwardInput, options: &ForwardOptions) -> Vec<f32> {
    denoiser.forward(input, options).unwrap().prediction.into_data()
}

#[test]
fn predictions_are_what_the_references_compute() {
    for case in diffusion::cases() {
        let denoiser = open(&case);
        for (precision, tolerance) in
            [(Precision::F32, F32_TOLERANCE), (Precision::Bf16, HALF_TOLERANCE), (Precision::F16, HALF_TOLERANCE)]
        {
            let options = ForwardOptions { precision, ..Default::default() };
            let predicted = denoiser.forward(&case.input(), &options).unwrap();
            assert!(predicted.report.fallbacks.is_empty() && predicted.report.precision == precision);
            let out = case.get("out").unwrap();
            assert_eq!(predicted.prediction.shape()[..], out.shape, "{}", case.name);
            let error = relative_error(predicted.prediction.data(), &out.data);
            assert!(error < tolerance, "{} in {precision}: relative error {error:.2e}", case.name);
        }
    }
}

#[test]
fn control_residuals_are_added_where_the_references_add_them() {
    let mut checked = 0;
    for case in diffusion::cases() {
        let Some(out) = case.get("out/control") else { continue };
        let input = ForwardInput { control: case.control(), ..case.input() };
        let error = relative_error(&predict(&open(&case), &input, &Default::default()), &out.data);
        assert!(error < F32_TOLERANCE, "{}: relative error {error:.2e}", case.name);
        checked += 1;
    }
    assert!(checked >= 3, "the fixtures with control residuals are missing");
}

#[test]
fn attention_modes_agree() {
    for case in diffusion::cases() {
        let denoiser = open(&case);
        let by = |mode| {
            let options = ForwardOptions { attention: Some(mode), ..Default::default() };
            let predicted = denoiser.forward(&case.input(), &options).unwrap();
            assert_eq!(predicted.report.attention, mode);
            predicted.prediction.into_data()
        };
        let auto = by(AttentionMode::Auto);
        for mode in AttentionMode::ALL {
            let error = relative_error(&by(mode), &auto);
            assert!(error < 1e-5, "{} by {mode}: {error:.2e}", case.name);
        }
    }
}

#[test]
fn a_mode_set_at_load_is_used_where_the_call_sets_none() {
    let case = diffusion::case("sd2_ldm");
    let checkpoint = Checkpoint::from_bytes("model", case.model(), &Limits::default()).unwrap();
    let options = LoadOptions { attention: AttentionMode::Split, ..Default::default() };
    let denoiser = Denoiser::load(&checkpoint, runtime(), &options).unwrap();
    let report = denoiser.forward(&case.input(), &Default::default()).unwrap().report;
    assert_eq!(report.attention, AttentionMode::Split);
}

#[test]
fn items_of_a_batch_do_not_touch_each_other() {
    for name in ["sd15_ldm", "sdxl_ldm", "flux_dev_diffusers", "z_image_diffusers"] {
        let case = diffusion::case(name);
        let denoiser = open(&case);
        let whole = predict(&denoiser, &case.input(), &Default::default());
        for item in 0..2 {
            let part = |name: &str| {
                case.get(name).map(|array| {
                    let count = array.data.len() / 2;
                    let mut shape = array.shape.clone();
                    shape[0] = 1;
                    (shape, array.data[item * count..][..count].to_vec())
                })
            };
            let (x, context, timesteps) = (part("x").unwrap(), part("context").unwrap(), part("timesteps").unwrap());
            let (y, guidance) = (part("y"), part("guidance"));
            let view = |(shape, data): &(Vec<usize>, Vec<f32>)| -> ArrayView<'static> {
                ArrayView::new(shape.clone().leak(), data.clone().leak()).unwrap()
            };
            let input = ForwardInput {
                y: y.as_ref().map(view),
                guidance: guidance.as_ref().map(|guidance| &*guidance.1),
                ..ForwardInput::new(view(&x), &timesteps.1, view(&context))
            };
            let alone = predict(&denoiser, &input, &Default::default());
            let error = relative_error(&alone, &whole[item * alone.len()..][..alone.len()]);
            assert!(error < 1e-5, "{name}, item {item}: {error:.2e}");
        }
    }
}

#[test]
fn threads_share_a_model_and_leave_it_as_it_was() {
    let case = &diffusion::case("sd15_ldm");
    let denoiser = &open(case);
    let digest = denoiser.digest().unwrap();
    std::thread::scope(|scope| {
        let work = || predict(denoiser, &case.input(), &Default::default());
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(results.iter().all(|result| *result == results[0]));
    });
    assert_eq!(denoiser.digest().unwrap(), digest);
}

/// The same weights under ldm and under diffusers names are the same model.
#[test]
fn names_do_not_change_a_model() {
    let case = diffusion::case("flux_dev_ldm");
    let weights = |name: &str| random::parameter(name, &case.tensors()[name]);
    let part = |name: &str, index: usize, count: usize| {
        let all = weights(name);
        all[index * all.len() / count..(index + 1) * all.len() / count].to_vec()
    };
    let mut tensors = Vec::new();
    let mut put = |name: &str, shape: &[usize], values: Vec<half::f16>| {
        tensors.push(safetensors_file::f16_tensor(name, shape, &values));
    };
    for (name, shape) in case.tensors() {
        let (layer, kind) = name.rsplit_once('.').unwrap();
        let mut rows = shape.clone();
        if let Some(block) = layer.strip_suffix("_attn.qkv") {
            rows[0] /= 3;
            let (block, stream) = block.rsplit_once('.').unwrap();
            let block = block.replace("double_blocks", "transformer_blocks");
            let names =
                if stream == "img" { ["to_q", "to_k", "to_v"] } else { ["add_q_proj", "add_k_proj", "add_v_proj"] };
            for (index, own) in names.iter().enumerate() {
                put(&format!("{block}.attn.{own}.{kind}"), &rows, part(name, index, 3));
            }
        } else if let Some(block) = layer.strip_suffix(".linear1") {
            // Width 64: queries, keys, values, and 256 rows of the feed-forward.
            let block = block.replace("single_blocks", "single_transformer_blocks");
            let (all, width) = (weights(name), 64 * shape.get(1).copied().unwrap_or(1));
            for (index, own) in ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"].iter().enumerate() {
                rows[0] = if index < 3 { 64 } else { 256 };
                let end = if index < 3 { (index + 1) * width } else { all.len() };
                put(&format!("{block}.{own}.{kind}"), &rows, all[index * width..end].to_vec());
            }
        } else if layer == "final_layer.adaLN_modulation.1" {
            let swapped = [part(name, 1, 2), part(name, 0, 2)].concat();
            put(&format!("norm_out.linear.{kind}"), shape, swapped);
        } else {
            put(&diffusers_name(name), shape, weights(name));
        }
    }
    let load = |bytes: Vec<u8>| {
        let checkpoint = Checkpoint::from_bytes("model", bytes, &Limits::default()).unwrap();
        Denoiser::load(&checkpoint, runtime(), &Default::default()).unwrap()
    };
    let (ldm, diffusers) = (load(case.model()), load(safetensors_file::file(&tensors, &[])));
    assert_eq!(ldm.digest().unwrap(), diffusers.digest().unwrap());
    let run = |denoiser: &Denoiser| predict(denoiser, &case.input(), &Default::default());
    assert_eq!(run(&ldm), run(&diffusers));
}

fn diffusers_name(ldm: &str) -> String {
    let mut name = ldm.to_owned();
    for (from, to) in [
        ("double_blocks", "transformer_blocks"),
        ("single_blocks", "single_transformer_blocks"),
        ("img_mod.lin", "norm1.linear"),
        ("txt_mod.lin", "norm1_context.linear"),
        ("img_attn.norm.query_norm.scale", "attn.norm_q.weight"),
        ("img_attn.norm.key_norm.scale", "attn.norm_k.weight"),
        ("txt_attn.norm.query_norm.scale", "attn.norm_added_q.weight"),
        ("txt_attn.norm.key_norm.scale", "attn.norm_added_k.weight"),
        ("img_attn.proj", "attn.to_out.0"),
        ("txt_attn.proj", "attn.to_add_out"),
        ("img_mlp.0", "ff.net.0.proj"),
        ("img_mlp.2", "ff.net.2"),
        ("txt_mlp.0", "ff_context.net.0.proj"),
        ("txt_mlp.2", "ff_context.net.2"),
        ("modulation.lin", "norm.linear"),
        (".norm.query_norm.scale", ".attn.norm_q.weight"),
        (".norm.key_norm.scale", ".attn.norm_k.weight"),
        ("linear2", "proj_out"),
        ("time_in.in_layer", "time_text_embed.timestep_embedder.linear_1"),
        ("time_in.out_layer", "time_text_embed.timestep_embedder.linear_2"),
        ("guidance_in.in_layer", "time_text_embed.guidance_embedder.linear_1"),
        ("guidance_in.out_layer", "time_text_embed.guidance_embedder.linear_2"),
        ("vector_in.in_layer", "time_text_embed.text_embedder.linear_1"),
        ("vector_in.out_layer", "time_text_embed.text_embedder.linear_2"),
        ("img_in", "x_embedder"),
        ("txt_in", "context_embedder"),
        ("final_layer.linear", "proj_out"),
    ] {
        name = name.replace(from, to);
    }
    name
}

#[test]
fn a_cancelled_call_stops() {
    let case = diffusion::case("sd2_ldm");
    let token = CancelToken::new();
    token.cancel();
    let call = luna_core::Call::new().cancelled_by(&token);
    let options = ForwardOptions { call, ..Default::default() };
    assert_eq!(open(&case).forward(&case.input(), &options).unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn progress_ends_at_its_total() {
    for case in diffusion::cases() {
        let last = std::sync::Arc::new(std::sync::Mutex::new(None));
        let heard = last.clone();
        let call = luna_core::Call::new().on_progress(move |progress| *heard.lock().unwrap() = Some(progress));
        let options = ForwardOptions { call, ..Default::default() };
        open(&case).forward(&case.input(), &options).unwrap();
        let last = last.lock().unwrap().unwrap();
        assert!(last.total > 2 && last.done == last.total, "{}: {last:?}", case.name);
    }
}

mod cache {
    use super::*;

    /// The input a little earlier or later: what a sampler's next step looks like.
    fn near(case: &DenoiserCase, factor: f32) -> (Vec<f32>, Vec<f32>) {
        let x = case.get("x").unwrap().data.iter().map(|value| value * factor).collect();
        (x, case.get("timesteps").unwrap().data.clone())
    }

    #[test]
    fn a_repeated_step_is_answered_exactly() {
        for case in diffusion::cases() {
            let denoiser = open(&case);
            let cache = FirstBlockCache::new(64 << 20);
            let options =
                ForwardOptions { cache: Some(cache.sequence("one", CacheOptions::default())), ..Default::default() };
            let plain = predict(&denoiser, &case.input(), &Default::default());
            let first = denoiser.forward(&case.input(), &options).unwrap();
            assert!(!first.report.cache.unwrap().hit);
            assert_eq!(first.prediction.data(), plain, "{}: a miss changes nothing", case.name);
            let second = denoiser.forward(&case.input(), &options).unwrap();
            let report = second.report.cache.unwrap();
            assert_eq!((report.hit, report.consecutive_hits, report.difference), (true, 1, Some(0.0)));
            let error = relative_error(second.prediction.data(), &plain);
            assert!(error < 1e-5, "{}: {error:.2e}", case.name);
        }
    }

    #[test]
    fn near_steps_hit_and_far_ones_do_not() {
        let case = diffusion::case("sd15_ldm");
        let denoiser = open(&case);
        let cache = FirstBlockCache::new(64 << 20);
        let sequence =
            |name: &str, options| ForwardOptions { cache: Some(cache.sequence(name, options)), ..Default::default() };
        let step = |factor, options: &ForwardOptions| {
            let (x, timesteps) = near(&case, factor);
            let x = ArrayView::new(&case.get("x").unwrap().shape, &x).unwrap();
            let input = ForwardInput { x, timesteps: &timesteps, ..case.input() };
            denoiser.forward(&input, options).unwrap().report.cache.unwrap()
        };
        let plain = sequence("plain", CacheOptions::default());
        assert!(!step(1.0, &plain).hit);
        assert!(step(1.01, &plain).hit);
        assert!(!step(-1.0, &plain).hit, "another picture");
        assert!(step(-1.0, &plain).hit, "the last full step counts");
        assert!(!step(-1.0, &sequence("other", CacheOptions::default())).hit, "another sequence");

        let mut options = CacheOptions::default();
        options.max_consecutive_hits = Some(2);
        let bounded = sequence("bounded", options);
        let hits: Vec<_> = (0..7).map(|_| step(1.0, &bounded).hit).collect();
        assert_eq!(hits, [false, true, true, false, true, true, false]);

        options = CacheOptions::default();
        (options.start_percent, options.end_percent) = (0.9, 1.0);
        let late = sequence("late", options);
        assert!(!step(1.0, &late).hit && !step(1.0, &late).hit, "the sampling has not come so far");

        options = CacheOptions::default();
        options.threshold = f32::NAN;
        let (x, timesteps) = near(&case, 1.0);
        let x = ArrayView::new(&case.get("x").unwrap().shape, &x).unwrap();
        let input = ForwardInput { x, timesteps: &timesteps, ..case.input() };
        let error = denoiser.forward(&input, &sequence("wrong", options)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn the_budget_holds_and_the_oldest_goes() {
        let case = diffusion::case("sd2_ldm");
        let denoiser = open(&case);
        let probe = FirstBlockCache::new(usize::MAX);
        let run = |cache: &FirstBlockCache, name: &str| {
            let options =
                ForwardOptions { cache: Some(cache.sequence(name, CacheOptions::default())), ..Default::default() };
            denoiser.forward(&case.input(), &options).unwrap().report.cache.unwrap().hit
        };
        run(&probe, "a");
        let cache = FirstBlockCache::new(2 * probe.bytes());
        assert!(!run(&cache, "a") && !run(&cache, "b") && run(&cache, "a") && !run(&cache, "c"));
        assert_eq!((cache.sequences(), cache.bytes()), (2, 2 * probe.bytes()));
        assert!(run(&cache, "a") && !run(&cache, "b"));
        assert!(cache.forget("a") && !cache.forget("a"));
    }
}

mod bad_input {
    use super::*;

    fn refused(denoiser: &Denoiser, input: &ForwardInput, kind: ErrorKind, says: &[&str]) {
        let error = denoiser.forward(input, &Default::default()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        for part in says {
            assert!(error.to_string().contains(part), "{error} does not say `{part}`");
        }
    }

    #[test]
    fn says_what_was_expected() {
        use ErrorKind::{InvalidInput, NonFinite};
        let case = diffusion::case("sd15_ldm");
        let denoiser = open(&case);
        let zeros = vec![0.0; 1 << 20];
        let array = |shape: &'static [usize]| ArrayView::new(shape, &zeros[..shape.iter().product()]).unwrap();
        let with = |x: &'static [usize], timesteps: &'static [f32], context: &'static [usize]| {
            ForwardInput::new(array(x), timesteps, array(context))
        };
        let good = || with(&[1, 4, 8, 8], &[5.0], &[1, 3, 24]);
        assert!(denoiser.forward(&good(), &Default::default()).is_ok());
        for (input, says) in [
            (with(&[4, 8, 8], &[5.0], &[1, 3, 24]), &["`x`", "[batch, channels, height, width]"][..]),
            (with(&[1, 16, 8, 8], &[5.0], &[1, 3, 24]), &["4 channels (as of SD1.5", "16 channels (as of SD3, Flux"]),
            (with(&[1, 4, 9, 8], &[5.0], &[1, 3, 24]), &["multiples of 2", "8x9"]),
            (with(&[1, 4, 0, 8], &[5.0], &[1, 3, 24]), &["empty side"]),
            (with(&[2, 4, 8, 8], &[5.0], &[2, 3, 24]), &["timesteps", "2, one for each latent", "found 1"]),
            (with(&[1, 4, 8, 8], &[5.0], &[2, 3, 24]), &["context sequences"]),
            (with(&[1, 4, 8, 8], &[5.0], &[1, 0, 24]), &["no tokens"]),
            (
                with(&[1, 4, 8, 8], &[5.0], &[1, 3, 2048]),
                &["expected 24", "2048 (CLIP-L and OpenCLIP-G side by side, of SDXL)"],
            ),
            (with(&[1, 4, 8, 8], &[5.0], &[1, 3, 4096]), &["4096 (T5-XXL, of Flux)"]),
            (good().with_y(array(&[1, 28])), &["takes no pooled conditioning"]),
            (ForwardInput { guidance: Some(&[3.5]), ..good() }, &["takes no guidance"]),
        ] {
            refused(&denoiser, &input, InvalidInput, says);
        }
        refused(&denoiser, &with(&[1, 4, 8, 8], &[f32::NAN], &[1, 3, 24]), NonFinite, &["timesteps"]);
        let mut holed = vec![0.0; 4 * 64];
        holed[7] = f32::NAN;
        let x = ArrayView::new(&[1, 4, 8, 8], &holed).unwrap();
        refused(&denoiser, &ForwardInput { x, ..good() }, NonFinite, &["`x`", "1 of 256"]);

        let residual = |shape| Control { middle: vec![Some(array(shape))], ..Default::default() };
        let wrong = ForwardInput { control: residual(&[1, 64, 8, 8]), ..good() };
        refused(&denoiser, &wrong, InvalidInput, &["`middle`", "[1, 64, 4, 4]"]);
        let right = || Some(array(&[1, 64, 4, 4]));
        let long = Control { middle: vec![right(), right()], ..Default::default() };
        refused(&denoiser, &ForwardInput { control: long, ..good() }, InvalidInput, &["`middle`", "longer"]);
    }

    #[test]
    fn missing_conditioning_is_named() {
        let case = diffusion::case("sdxl_ldm");
        let input = ForwardInput { y: None, ..case.input() };
        refused(&open(&case), &input, ErrorKind::InvalidInput, &["needs the pooled conditioning `y`", "[2, 28]"]);
        let case = diffusion::case("flux_dev_ldm");
        let input = ForwardInput { guidance: None, ..case.input() };
        refused(&open(&case), &input, ErrorKind::InvalidInput, &["guidance", "3.5"]);
        let case = diffusion::case("z_image_single_file");
        let residual = case.get("x").map(|x| x.view());
        let input = ForwardInput { control: Control { input: vec![residual], ..Default::default() }, ..case.input() };
        refused(&open(&case), &input, ErrorKind::InvalidInput, &["Z-Image takes no control"]);
    }

    fn refusal(path: impl AsRef<std::path::Path>) -> luna_core::Error {
        match Denoiser::open(path, runtime()) {
            Ok(_) => panic!("was loaded"),
            Err(error) => error,
        }
    }

    #[test]
    fn files_that_are_no_whole_denoiser_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = refusal(luna_tests::vae::case("ldm_sd").write(folder.path()));
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("found a AutoencoderKL"), "{error}");

        for case in diffusion::cases() {
            let tensor = |name: &String, shape: &Vec<usize>| {
                safetensors_file::f16_tensor(name, shape, &random::parameter(name, shape))
            };
            let all: Vec<_> = case.tensors().iter().map(|(name, shape)| tensor(name, shape)).collect();
            // A layer in the middle is missing.
            let mut incomplete = all.clone();
            // ldm files number the norms of residual blocks.
            let norm = |name: &str| name.contains("norm") || name.ends_with(".in_layers.0.weight");
            let norms = |name: &str| norm(name) && !name.contains("noise_refiner");
            let index = incomplete.iter().rposition(|tensor| norms(&tensor.0)).unwrap_or(incomplete.len() / 2);
            let missing = incomplete.remove(index).0;
            let error = refusal(case.write_instead(folder.path(), &safetensors_file::file(&incomplete, &[])));
            assert!(
                matches!(error.kind(), ErrorKind::InvalidFile | ErrorKind::Unsupported),
                "{} without {missing}: {error}",
                case.name
            );
            // A layer that no network has.
            let mut strange = all.clone();
            let stem = case.tensors().keys().rev().find_map(|name| Some(name.rsplit_once('.')?.0)).unwrap();
            strange.push(tensor(&format!("{stem}.time_mixer"), &vec![1]));
            let error = refusal(case.write_instead(folder.path(), &safetensors_file::file(&strange, &[])));
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{}: {error}", case.name);
            assert!(error.to_string().contains("time_mixer"), "{error}");
        }
    }
}

#[test]
fn facts_are_read_from_the_weights() {
    let facts = |name: &str| open(&diffusion::case(name)).facts().clone();
    let inpainting = facts("inpainting_diffusers");
    assert_eq!((inpainting.input_channels, inpainting.output_channels), (9, 4));
    let sdxl = facts("sdxl_ldm");
    assert_eq!((sdxl.context_width, sdxl.y_width.unwrap().get(), sdxl.size_multiple), (24, 28, 4));
    let flux = facts("flux_dev_diffusers");
    assert_eq!((flux.input_channels, flux.takes_guidance, flux.last_timestep), (4, true, 1.0));
    assert!(!facts("flux_schnell_ldm").takes_guidance);
    for (name, family) in
        [("sd15_ldm", Family::SdUnet), ("flux_dev_ldm", Family::Flux), ("z_image_single_file", Family::ZImage)]
    {
        assert_eq!(open(&diffusion::case(name)).family(), family);
    }
}

/// Weights of every stored type, fp8 as stored.
#[test]
fn fp8_weights_are_used_as_stored() {
    let case = diffusion::case("sd15_ldm");
    // f16 → f8 E5M2 by cutting the lower byte: exactly representable in both.
    let tensors: Vec<_> = case
        .tensors()
        .iter()
        .map(|(name, shape)| {
            let cut: Vec<u8> =
                random::parameter(name, shape).iter().map(|value| (value.to_bits() >> 8) as u8).collect();
            (name, shape, cut)
        })
        .collect();
    let wide: Vec<_> = tensors
        .iter()
        .map(|(name, shape, cut)| {
            let values: Vec<_> = cut.iter().map(|&byte| half::f16::from_bits(u16::from(byte) << 8)).collect();
            safetensors_file::f16_tensor(name, shape, &values)
        })
        .collect();
    let narrow: Vec<safetensors_file::Tensor> =
        tensors.iter().map(|(name, shape, cut)| ((*name).clone(), "F8_E5M2", (*shape).clone(), cut.clone())).collect();
    let load = |tensors: &[safetensors_file::Tensor]| {
        let checkpoint =
            Checkpoint::from_bytes("model", safetensors_file::file(tensors, &[]), &Limits::default()).unwrap();
        Denoiser::load(&checkpoint, runtime(), &Default::default()).unwrap()
    };
    let (narrow, wide) = (load(&narrow), load(&wide));
    assert!(narrow.weight_bytes() * 3 < wide.weight_bytes() * 2, "{} {}", narrow.weight_bytes(), wide.weight_bytes());
    let run = |denoiser: &Denoiser| predict(denoiser, &case.input(), &Default::default());
    assert!(relative_error(&run(&narrow), &run(&wide)) < 1e-5);
}
