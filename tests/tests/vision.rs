//! Vision encoders against what transformers computes with the same weights, in every name dialect; pictures against what
//! its processors make of them; and files and pictures that are wrong.

use luna_core::{
    Call, CancelToken, ErrorKind, Image, Limits, Precision, Result, Runtime,
    checkpoint::Checkpoint,
    picture::{Filter, Pixels, Resampling, resample},
    vision::{
        Features, PictureView, PixelValues, Preprocessing, Region, VisionActivation, VisionKind, VisionLoadOptions,
        VisionModel, VisionOptions,
    },
};
use luna_tests::{model_case::ModelCase, random::uniform, vae::relative_error, workspace};
use std::{path::PathBuf, sync::LazyLock};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::cpu().unwrap());
const CASES: [&str; 5] = ["clip_transformers", "clip_comfyui", "openclip", "siglip", "siglip_headless"];

fn fixture(name: &str) -> PathBuf {
    workspace::root().join("tests/fixtures/vision").join(name).with_extension("safetensors")
}

fn options(case: &str) -> VisionLoadOptions {
    // A CLIP of this size would be OpenAI's; only the caller knows that it is not.
    let activation = (case == "openclip").then_some(VisionActivation::Gelu);
    VisionLoadOptions { activation, ..VisionLoadOptions::default() }
}

fn load(case: &ModelCase, model: &[u8]) -> Result<VisionModel> {
    let folder = tempfile::tempdir().unwrap();
    VisionModel::open_with(case.write_instead(folder.path(), model), &RUNTIME, &options(&case.name))
}

fn pixels(case: &ModelCase) -> PixelValues {
    let shape: [usize; 4] = serde_json::from_value(case.said("pixel_values")).unwrap();
    let values = uniform(&format!("{}.pixel_values", case.name), shape.iter().product());
    PixelValues::new(shape, values.map(|value| (4.0 * value - 2.0) as f32).collect()).unwrap()
}

#[track_caller]
fn assert_close(case: &ModelCase, name: &str, ours: &Features, tolerance: f64) {
    assert_eq!(ours.shape(), case.shape(name), "{} {name}", case.name);
    let error = relative_error(ours.data(), &case.floats(name));
    assert!(error < tolerance, "{} {name}: relative error {error:.2e}", case.name);
}

#[test]
fn encodings_are_what_transformers_computes() {
    for name in CASES {
        let case = ModelCase::read(&fixture(name));
        for (stored, precision, tolerance) in [
            ("F32", Precision::F32, 1e-5),
            ("F16", Precision::F32, 1e-5),
            ("BF16", Precision::F32, 2e-2),
            ("F8_E4M3", Precision::F32, 2e-1),
            ("F16", Precision::Bf16, 3e-2),
            ("F16", Precision::F16, 3e-2),
        ] {
            let model = load(&case, &case.model_stored(stored)).unwrap();
            assert_eq!(model.info().unused, [""; 0], "{name}");
            let options = VisionOptions { precision, ..VisionOptions::default() };
            let encoded = model.encode_pixels(&pixels(&case), &options).unwrap();
            assert!(encoded.fallbacks.is_empty() && encoded.precision == precision);
            assert_close(&case, "last_hidden_state", &encoded.last_hidden_state, tolerance);
            assert_close(&case, "penultimate", &encoded.penultimate, tolerance);
            for (output, ours) in [("pooler_output", &encoded.pooler_output), ("image_embeds", &encoded.image_embeds)] {
                assert_eq!(ours.is_some(), case.has(output), "{name} {output}");
                if let Some(ours) = ours {
                    assert_close(&case, output, ours, tolerance);
                }
            }
        }
    }
}

#[test]
fn a_batch_is_its_pictures_one_by_one() {
    let case = ModelCase::read(&fixture("clip_transformers"));
    let model = load(&case, &case.model()).unwrap();
    let all = pixels(&case);
    let whole = model.encode_pixels(&all, &VisionOptions::default()).unwrap();
    let [batch, _, height, width] = all.shape();
    for index in 0..batch {
        let values = all.data()[index * 3 * height * width..][..3 * height * width].to_vec();
        let one = PixelValues::new([1, 3, height, width], values).unwrap();
        let one = model.encode_pixels(&one, &VisionOptions::default()).unwrap();
        assert!(relative_error(one.last_hidden_state.item(0), whole.last_hidden_state.item(index)) < 1e-6);
    }
}

#[test]
fn sizes_come_from_the_weights() {
    let case = ModelCase::read(&fixture("clip_comfyui"));
    let info = load(&case, &case.model()).unwrap().info();
    assert_eq!((info.kind, info.image_size, info.patch_size, info.tokens), (VisionKind::Clip, 64, 32, 5));
    assert_eq!((info.layers, info.channels, info.embedding), (3, 128, Some(64)));
    assert_eq!(info.activation, VisionActivation::QuickGelu);
    let case = ModelCase::read(&fixture("siglip"));
    let info = load(&case, &case.model()).unwrap().info();
    assert_eq!((info.kind, info.embedding, info.pooled), (VisionKind::Siglip, None, true));
}

/// As SigLIP so400m does, of whose 384 pixels a side 27 patches of 14 leave 6.
#[test]
fn pixels_beyond_the_last_whole_patch_count_nothing() {
    let mut case = ModelCase::read(&fixture("siglip"));
    let (exact, all) = (load(&case, &case.model()).unwrap(), pixels(&case));
    let (info, [batch, _, height, width]) = (exact.info(), all.shape());
    let side = info.image_size + info.patch_size - 1;
    let mut state = |side: usize| {
        let config = case.config.as_mut().unwrap();
        let config = if config["vision_config"].is_object() { &mut config["vision_config"] } else { config };
        config["image_size"] = side.into();
        load(&case, &case.model())
    };
    refused(ErrorKind::InvalidFile, "image_size", state(side + 1));
    refused(ErrorKind::InvalidFile, "image_size", state(info.image_size - 1));
    let model = state(side).unwrap();
    assert_eq!((model.info().image_size, model.info().tokens), (side, info.tokens));
    let mut larger = vec![9.0; batch * 3 * side * side];
    for (row, values) in all.data().chunks_exact(width).enumerate() {
        let (plane, y) = (row / height, row % height);
        larger[(plane * side + y) * side..][..width].copy_from_slice(values);
    }
    let larger = PixelValues::new([batch, 3, side, side], larger).unwrap();
    let [ours, expected] = [(&model, &larger), (&exact, &all)]
        .map(|(model, pixels)| model.encode_pixels(pixels, &VisionOptions::default()).unwrap().last_hidden_state);
    assert_eq!(ours.data(), expected.data());
}

/// As `picture` in make.py.
fn picture(name: &str, [height, width, channels]: [usize; 3]) -> Vec<u8> {
    let noise: Vec<f64> = uniform(name, height * width * channels).collect();
    let coarse: Vec<f64> = uniform(&format!("{name}.coarse"), channels * 64).collect();
    let mut values = Vec::with_capacity(noise.len());
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        for channel in 0..channels {
            let coarse = coarse[(y * 8 / height * 8 + x * 8 / width) * channels + channel];
            let noise = noise[(y * width + x) * channels + channel];
            values.push((255.999 * (0.7 * coarse + 0.3 * noise)).floor() as u8);
        }
    }
    values
}

fn image([height, width, channels]: [usize; 3], bytes: &[u8]) -> Image {
    let values = bytes.iter().map(|&byte| f32::from(byte) / 255.0).collect();
    Image::new([1, height, width, channels], values).unwrap()
}

#[test]
fn pictures_are_prepared_as_the_processors_do() {
    let file = Checkpoint::open(fixture("preprocessing"), &Limits::default()).unwrap();
    let mut checked = 0;
    for (name, config) in file.metadata() {
        let kind = if name.starts_with("siglip") { VisionKind::Siglip } else { VisionKind::Clip };
        let preprocessing = Preprocessing::stated(&serde_json::from_str(config).unwrap(), kind, 224).unwrap();
        for expected in file.tensors().filter(|tensor| tensor.name.starts_with(&format!("{name}/"))) {
            let size: Vec<usize> = expected.name.split(['/', 'x']).skip(1).map(|side| side.parse().unwrap()).collect();
            let size: [usize; 3] = size.try_into().unwrap();
            let image = image(size, &picture(expected.name, size));
            let prepared = preprocessing.prepare(&[(&image).into()]).unwrap();
            assert_eq!(prepared.shape()[1..], *expected.shape, "{}", expected.name);
            let plane = expected.shape[1] * expected.shape[2];
            for (at, (&value, &byte)) in prepared.data().iter().zip(expected.bytes).enumerate() {
                let (mean, std) = (preprocessing.mean[at / plane], preprocessing.std[at / plane]);
                let ours = (value * std + mean) * 255.0;
                assert!((ours - f32::from(byte)).abs() < 1e-3, "{} at {at}: {ours} for {byte}", expected.name);
            }
            if expected.name.ends_with("/97x131x3") {
                let exact = file.tensor(name).unwrap().bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b));
                assert!(prepared.data().iter().zip(exact).all(|(ours, theirs)| (ours - theirs).abs() < 1e-5));
            }
            checked += 1;
        }
    }
    assert_eq!(checked, 32);
}

#[test]
fn a_window_of_a_resampled_picture_is_what_cropping_the_whole_gives() {
    let bytes = picture("window", [41, 67, 3]);
    let pixels = Pixels::from_u8(41, 67, 3, &bytes).unwrap();
    for (size, filter) in [([90, 23], Filter::Lanczos), ([41, 80], Filter::Bicubic), ([19, 67], Filter::Bilinear)] {
        let whole = resample(&pixels, &Resampling::whole(size, filter)).unwrap();
        let part = Resampling { size, rows: 3..17, columns: 5..21, filter };
        let window = resample(&pixels, &part).unwrap();
        for (index, pixel) in window.chunks_exact(3).enumerate() {
            let at = (3 + index / 16) * size[1] + 5 + index % 16;
            assert_eq!(pixel, &whole[at * 3..][..3]);
        }
    }
    let outside = Resampling { size: [4, 4], rows: 0..5, columns: 0..4, filter: Filter::Bicubic };
    assert_eq!(resample(&pixels, &outside).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn parts_of_one_picture_go_in_one_call() {
    let case = ModelCase::read(&fixture("siglip"));
    let model = load(&case, &case.model()).unwrap();
    let photo = image([60, 90, 4], &picture("parts", [60, 90, 4]));
    let left = Region { top: 0, left: 0, height: 60, width: 50 };
    let right = Region { top: 7, left: 40, height: 31, width: 50 };
    let views = [PictureView::whole(&photo), PictureView::part(&photo, left), PictureView::part(&photo, right)];
    let together = model.encode(&views, &VisionOptions::default()).unwrap();
    assert_eq!(together.last_hidden_state.shape()[0], 3);
    let cut = photo.crop(7, 40, 31, 50).unwrap();
    let alone = model.encode(&[(&cut).into()], &VisionOptions::default()).unwrap();
    assert!(relative_error(alone.last_hidden_state.data(), together.last_hidden_state.item(2)) < 1e-6);
    assert!(relative_error(together.last_hidden_state.item(0), together.last_hidden_state.item(1)) > 1e-3);
    let beyond = PictureView::part(&photo, Region { left: 41, ..right });
    refused(ErrorKind::InvalidInput, "crop", model.encode(&[beyond], &VisionOptions::default()));
}

#[test]
fn odd_pictures_are_no_reason_to_fail() {
    for name in ["clip_transformers", "siglip"] {
        let case = ModelCase::read(&fixture(name));
        let model = load(&case, &case.model()).unwrap();
        for size in [[1, 1, 3], [30_000, 10, 3], [10, 30_000, 1], [2, 1, 4]] {
            let odd = image(size, &vec![77; size.iter().product()]);
            let encoded = model.encode(&[(&odd).into()], &VisionOptions::default()).unwrap();
            assert_eq!(encoded.last_hidden_state.shape()[0], 1, "{name} {size:?}");
        }
    }
}

#[track_caller]
fn refused<T>(kind: ErrorKind, part: &str, result: Result<T>) {
    let Err(error) = result else { panic!("not refused: {part}") };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

#[test]
fn wrong_files_are_refused_by_kind() {
    let mut case = ModelCase::read(&fixture("clip_transformers"));
    for (field, value, part) in [
        ("hidden_size", serde_json::json!(64), "hidden_size"),
        ("image_size", serde_json::json!(224), "image_size"),
        ("patch_size", serde_json::json!("14"), "patch_size"),
        ("num_hidden_layers", serde_json::json!(5), "num_hidden_layers"),
        ("num_attention_heads", serde_json::json!(5), "no multiple of its heads"),
    ] {
        let kept = case.config.as_mut().unwrap()["vision_config"][field].take();
        case.config.as_mut().unwrap()["vision_config"][field] = value;
        refused(ErrorKind::InvalidFile, part, load(&case, &case.model()));
        case.config.as_mut().unwrap()["vision_config"][field] = kept;
    }
    case.config.as_mut().unwrap()["vision_config"]["hidden_act"] = "relu6".into();
    refused(ErrorKind::Unsupported, "activation", load(&case, &case.model()));
    let mut case = ModelCase::read(&fixture("siglip"));
    case.config = None;
    case.tensors.insert("embeddings.patch_embedding.weight".into(), vec![72, 192]);
    refused(ErrorKind::Unsupported, "naflex", load(&case, &case.model()));
    let mut case = ModelCase::read(&fixture("clip_comfyui"));
    case.tensors.insert("vision_model.embeddings.position_embedding.weight".into(), vec![7, 128]);
    refused(ErrorKind::InvalidFile, "square", load(&case, &case.model()));
    case.tensors.remove("vision_model.post_layernorm.weight");
    case.tensors.insert("vision_model.embeddings.position_embedding.weight".into(), vec![5, 128]);
    refused(ErrorKind::InvalidFile, "post_layernorm", load(&case, &case.model()));
    let vae = luna_core::vae::Vae::moonlet_checkpoint().unwrap();
    let loaded = VisionModel::load(&vae, &RUNTIME, &VisionLoadOptions::default());
    refused(ErrorKind::Unsupported, "no vision encoder", loaded);
}

#[test]
fn wrong_calls_are_refused() {
    let case = ModelCase::read(&fixture("siglip"));
    let model = load(&case, &case.model()).unwrap();
    let options = VisionOptions::default();
    refused(ErrorKind::InvalidInput, "nothing to encode", model.encode(&[], &options));
    let small = PixelValues::new([1, 3, 8, 8], vec![0.0; 192]).unwrap();
    refused(ErrorKind::InvalidInput, "[batch, 3, 40, 40]", model.encode_pixels(&small, &options));
    refused(ErrorKind::InvalidInput, "wrong shape", PixelValues::new([1, 4, 1, 1], vec![0.0; 4]));
    refused(ErrorKind::InvalidInput, "wrong number", PixelValues::new([1, 3, 1, 1], vec![0.0; 4]));
    refused(ErrorKind::LimitExceeded, "batch", PixelValues::new([5000, 3, 1, 1], vec![0.0; 15000]));
    let spoilt = PixelValues::new([1, 3, 40, 40], vec![f32::NAN; 4800]).unwrap();
    refused(ErrorKind::NonFinite, "NaN", model.encode_pixels(&spoilt, &options));
    let nan = Image::new([1, 1, 1, 3], vec![f32::NAN; 3]).unwrap();
    refused(ErrorKind::NonFinite, "NaN", model.encode(&[(&nan).into()], &options));
    let token = CancelToken::new();
    token.cancel();
    let cancelled = VisionOptions { call: Call::new().cancelled_by(&token), ..options };
    refused(ErrorKind::Cancelled, "cancelled", model.encode_pixels(&pixels(&case), &cancelled));
}
