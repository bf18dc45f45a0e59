//! Damaged, hostile and foreign files: each is refused with its kind and a sentence that helps, none panics, none makes
//! the reader allocate what it claims.

use luna_core::{Error, ErrorKind, Limits, Precision, Runtime, checkpoint::Checkpoint, vae::Vae};
use luna_tests::{
    fuzz, hostile, random,
    safetensors_file::{f16_tensor, file},
    vae, workspace,
};
use std::fs;

fn open(bytes: Vec<u8>) -> Result<Checkpoint, Error> {
    Checkpoint::from_bytes("test", bytes, &Limits::default())
}

#[test]
fn hostile_files_are_refused_with_the_right_kind() {
    let folder = tempfile::tempdir().unwrap();
    for hostile in hostile::files() {
        let path = folder.path().join(hostile.name).with_extension("safetensors");
        fs::write(&path, &hostile.bytes).unwrap();
        let error = Checkpoint::open(&path, &Limits::default()).err();
        let error = error.unwrap_or_else(|| panic!("{} was accepted", hostile.name));
        let text = error.to_string();
        assert_eq!(error.kind(), hostile.kind, "{}: {text}", hostile.name);
        assert!(text.contains(hostile.says) && text.contains(hostile.name), "{}: {text}", hostile.name);
    }
}

#[test]
fn a_folder_and_a_missing_file_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let kind = |path: &std::path::Path| Checkpoint::open(path, &Limits::default()).unwrap_err().kind();
    assert_eq!(kind(folder.path()), ErrorKind::InvalidFile);
    assert_eq!(kind(&folder.path().join("none.safetensors")), ErrorKind::NotFound);
}

/// Every byte of the header, changed in four ways: an error or a sound reading, never a panic.
#[test]
fn no_changed_byte_of_a_header_makes_the_reader_panic() {
    let sound = vae::case("taesd_own").model();
    let header = u64::from_le_bytes(*sound.first_chunk().unwrap()) as usize + 8;
    let runtime = Runtime::cpu().unwrap();
    let (mut refused, mut read) = (0, 0);
    for at in (0..header).step_by(7) {
        for change in [1, 0x20, 0x80, 0xff] {
            let mut bytes = sound[..header].to_vec();
            bytes[at] ^= change;
            // The data are of no interest here: zeros in their place.
            bytes.resize(sound.len(), 0);
            match open(bytes) {
                Err(_) => refused += 1,
                Ok(checkpoint) => {
                    checkpoint.recognise();
                    let _ = (at % 49 == 0).then(|| Vae::load(&checkpoint, &runtime));
                    read += 1;
                }
            }
        }
    }
    assert!(refused > 100 && read > 100, "{refused} refused, {read} read");
}

#[test]
fn nan_weights_are_told_not_shown() {
    let case = vae::case("diffusers_old_names");
    let folder = tempfile::tempdir().unwrap();
    let path = case.write(folder.path());
    let weights = path.join("diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let end = bytes.len();
    // The last tensor is quant_conv.weight, f16 [8, 8, 1, 1].
    bytes[end - 128..].fill(0xff);
    fs::write(&weights, bytes).unwrap();
    let vae = Vae::open(&path, &Runtime::cpu().unwrap()).unwrap();
    for precision in Precision::ALL {
        let options = luna_core::vae::EncodeOptions { precision, ..Default::default() };
        let error = vae.encode(&case.image, &options).err();
        let decoded = vae.decode(&case.latent, &luna_core::vae::DecodeOptions { precision, ..Default::default() });
        let error = error.or(decoded.err()).expect("NaN went through unseen");
        assert_eq!(error.kind(), ErrorKind::NonFinite, "{error}");
    }
}

#[test]
fn a_vae_that_lacks_a_tensor_or_has_a_wrong_one_says_which() {
    let case = vae::case("taesd_own");
    let sound = open(case.model()).unwrap();
    let runtime = Runtime::cpu().unwrap();
    let changed = |change: &dyn Fn(&str, &mut Vec<usize>) -> bool| {
        let tensors: Vec<_> = sound
            .tensors()
            .filter_map(|tensor| {
                let mut shape = tensor.shape.to_vec();
                let keep = change(tensor.name, &mut shape);
                let zeros = vec![half::f16::ZERO; shape.iter().product()];
                keep.then(|| f16_tensor(tensor.name, &shape, &zeros))
            })
            .collect();
        Vae::load(&open(file(&tensors, &[])).unwrap(), &runtime).err().expect("a broken VAE was accepted")
    };
    const NAME: &str = "decoder.4.conv.2.weight";
    let missing = changed(&|name, _| name != NAME);
    assert_eq!(missing.kind(), ErrorKind::InvalidFile);
    assert!(missing.to_string().contains(NAME), "{missing}");
    let wrong_shapes: [&[usize]; 5] = [&[64, 63, 3, 3], &[63, 64, 3, 3], &[64, 64], &[], &[0, 64, 3, 3]];
    for wrong_shape in wrong_shapes {
        for damaged in [NAME, "decoder.1.weight", "encoder.0.weight"] {
            let wrong = changed(&|name, shape| {
                if name == damaged {
                    *shape = wrong_shape.to_vec();
                }
                true
            });
            assert_eq!(wrong.kind(), ErrorKind::InvalidFile, "{damaged} {wrong_shape:?}: {wrong}");
        }
    }
}

#[test]
fn a_kl_vae_with_shapes_of_another_kind_is_refused() {
    let case = vae::case("ldm_multiplier");
    let sound = open(case.model()).unwrap();
    let runtime = Runtime::cpu().unwrap();
    let wrong_shapes: [&[usize]; 4] = [&[], &[32], &[0, 32, 3, 3], &[32, 31, 3, 3]];
    for damaged in ["decoder.conv_in.weight", "encoder.conv_out.weight", "decoder.up.0.block.0.conv1.weight"] {
        for wrong_shape in wrong_shapes {
            let tensors: Vec<_> = sound
                .tensors()
                .map(|tensor| {
                    let shape = if tensor.name == damaged { wrong_shape } else { tensor.shape };
                    f16_tensor(tensor.name, shape, &vec![half::f16::ZERO; shape.iter().product()])
                })
                .collect();
            let error = Vae::load(&open(file(&tensors, &[])).unwrap(), &runtime).err();
            let error = error.unwrap_or_else(|| panic!("{damaged} of {wrong_shape:?} was accepted"));
            assert_eq!(error.kind(), ErrorKind::InvalidFile, "{error}");
        }
    }
}

#[test]
fn a_config_that_disagrees_with_the_shapes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = vae::case("saved").write(folder.path());
    let config = path.join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains(r#""latent_channels": 4"#));
    fs::write(&config, text.replace(r#""latent_channels": 4"#, r#""latent_channels": 16"#)).unwrap();
    let error = Vae::open(&path, &Runtime::cpu().unwrap()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidFile);
    assert!(error.to_string().contains("latent_channels"), "{error}");
}

/// A fuzz target over inputs, each as it is and with a few bytes changed.
fn fuzzed(inputs: &[Vec<u8>], target: fn(&[u8])) {
    for (index, input) in inputs.iter().enumerate() {
        target(input);
        let mut places = random::uniform(&index.to_string(), 200);
        for _ in 0..40 {
            let mut changed = input.clone();
            for _ in 0..2 {
                let (place, value) = (places.next().unwrap(), places.next().unwrap());
                if let Some(byte) = changed.get_mut((place * input.len() as f64) as usize) {
                    *byte = (value * 256.0) as u8;
                }
            }
            target(&changed);
        }
    }
}

fn saved(folder: &str, extension: &str) -> Vec<Vec<u8>> {
    let paths = workspace::files(folder).into_iter().filter(|path| path.ends_with(extension));
    paths.map(|path| fs::read(workspace::root().join(path)).unwrap()).collect()
}

#[test]
fn the_fuzz_target_of_checkpoints_holds_on_saved_inputs() {
    let mut inputs = saved("fuzz/seeds/checkpoint", "");
    assert!(inputs.len() >= 15, "the saved inputs are missing");
    inputs.extend(hostile::files().into_iter().map(|hostile| hostile.bytes));
    fuzzed(&inputs, fuzz::checkpoint);
}

#[test]
fn the_fuzz_target_of_frames_holds_on_saved_inputs() {
    let mut inputs = saved("tests/fixtures/protocol", ".frame");
    assert!(inputs.len() >= 6, "the saved inputs are missing");
    // A hostile file as the body of a frame.
    inputs.extend(hostile::files().into_iter().map(|hostile| {
        let length = (hostile.bytes.len() as u32).to_be_bytes();
        [&length[..], &hostile.bytes].concat()
    }));
    fuzzed(&inputs, fuzz::frame);
}
