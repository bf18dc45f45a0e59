//! One list of cases through every door: the crate, the C ABI and Python give the same bits and the same kinds of error.

use crate::{built, python::python};
use luna::*;
use luna_core::{
    Image, Latent, Precision, Runtime,
    text::{Conditioner, TextModel, TextOptions},
    vae::{DecodeOptions, EncodeOptions, Posterior, SizeRule, TileChoice, Tiling, Vae},
};
use serde_json::Value;
use std::{
    ffi::{CStr, CString},
    mem, ptr, slice,
};

/// `[name, answer]` for every case: `SHAPE SUM` or the kind of the error.
type Answers = Vec<(String, String)>;

fn cases() -> Vec<Value> {
    let cases: Vec<Value> = serde_json::from_str(include_str!("conformance.json")).unwrap();
    assert!(cases.len() >= 20);
    cases
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_default()
}

fn shape(case: &Value) -> Vec<usize> {
    case["shape"].as_array().unwrap().iter().map(|side| side.as_u64().unwrap() as usize).collect()
}

/// The numbers that a case is called with.
fn values(case: &Value) -> Vec<f32> {
    (0..shape(case).iter().product::<usize>()).map(|i| (((i * 37) % 101) as f64 / 100.0) as f32).collect()
}

/// A shape and FNV-1a over the bits of the values.
fn answer(shape: &[usize], values: &[f32]) -> String {
    let step = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let sum = values.iter().flat_map(|value| value.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, step);
    format!("{shape:?} {sum:016x}")
}

fn through_the_crate() -> Answers {
    let runtime = Runtime::cpu().unwrap();
    let (vae, model) = (Vae::moonlet(&runtime).unwrap(), TextModel::demo(&runtime).unwrap());
    let run = |case: &Value| -> luna_core::Result<String> {
        let precision = Precision::ALL.into_iter().find(|known| known.name() == text(case, "precision"));
        let (precision, scaled) = (precision.unwrap_or_default(), case["scaled"] == true);
        let four = || {
            <[usize; 4]>::try_from(shape(case))
                .map_err(|_| luna_core::Error::new(luna_core::ErrorKind::InvalidInput, ""))
        };
        let tiles =
            case["tile"].as_u64().map_or(TileChoice::Auto, |tile| TileChoice::Tiles(Tiling::with_tile(tile as usize)));
        match text(case, "op") {
            "encode" => {
                let posterior = case["seed"].as_u64().map_or(Posterior::Mean, |seed| Posterior::Sample { seed });
                let sizes = match text(case, "sizes") {
                    "pad" => SizeRule::Pad,
                    "refuse" => SizeRule::Refuse,
                    _ => SizeRule::Crop,
                };
                let options = EncodeOptions { precision, tiles, posterior, sizes, ..EncodeOptions::default() };
                let latent = vae.encode(&Image::new(four()?, values(case))?, &options)?.latent;
                let latent = if scaled { latent.scaled()? } else { latent };
                Ok(answer(&latent.shape(), latent.data()))
            }
            "decode" => {
                let latent = Latent::new(four()?, values(case))?.with_scale(vae.latent_scale(), scaled);
                let options = DecodeOptions { precision, tiles, ..DecodeOptions::default() };
                let image = vae.decode(&latent, &options)?.image;
                Ok(answer(&image.shape(), image.data()))
            }
            "text" => {
                let clip_skip = case["clip_skip"].as_u64().and_then(|skip| (skip as usize).try_into().ok());
                let options = TextOptions { precision, clip_skip, ..TextOptions::default() };
                let encoded = Conditioner::new(&[&model])?.encode(&[text(case, "prompt").into()], &options)?;
                Ok(answer(&encoded.first().shape(), encoded.first().data()))
            }
            "load" => Vae::open(text(case, "path"), &runtime).map(|_| "loaded".to_owned()),
            other => panic!("what is {other}?"),
        }
    };
    let answer = |case: &Value| run(case).unwrap_or_else(|error| error.kind().name().to_owned());
    cases().iter().map(|case| (text(case, "name").to_owned(), answer(case))).collect()
}

fn zeroed<T>() -> T {
    // SAFETY: used for structs of the header only, of which zeros are a value.
    unsafe { mem::zeroed() }
}

/// What a tensor of the C ABI holds.
fn read(tensor: luna_tensor) -> String {
    let mut view: luna_view = zeroed();
    // SAFETY: the view is of this tensor, which is freed after it was read.
    unsafe {
        assert_eq!(luna_tensor_view(tensor, &mut view), luna_status::Ok);
        let shape: Vec<_> = view.shape[..view.rank as usize].iter().map(|&side| side as usize).collect();
        let values = slice::from_raw_parts(view.data.cast::<f32>(), shape.iter().product());
        let answer = answer(&shape, values);
        assert_eq!(luna_tensor_free(tensor), luna_status::Ok);
        answer
    }
}

fn through_the_c_abi() -> Answers {
    let (mut session, mut vae, mut clip): (luna_session, luna_vae, luna_text) = (zeroed(), zeroed(), zeroed());
    let demo = [c"demo".as_ptr()];
    // SAFETY: every pointer leads to what the header says.
    unsafe {
        assert_eq!(luna_open(ptr::null(), &mut session), luna_status::Ok);
        assert_eq!(luna_vae_load(session, c"moonlet".as_ptr(), &mut vae), luna_status::Ok);
        assert_eq!(luna_text_load(session, demo.as_ptr(), 1, ptr::null(), &mut clip), luna_status::Ok);
    }
    let run = |case: &Value| -> Result<String, luna_status> {
        let precision = ["f32", "bf16", "f16"].iter().position(|known| *known == text(case, "precision"));
        let (precision, scaled) = (precision.unwrap_or(0) as i32, u32::from(case["scaled"] == true));
        let tile = case["tile"].as_u64().unwrap_or(0) as u32;
        let tiling = if tile == 0 { 0 } else { luna_tiling::Always as i32 };
        let mut tensor: luna_tensor = zeroed();
        let status = match text(case, "op") {
            "text" => {
                let prompt = CString::new(text(case, "prompt")).unwrap();
                let (prompts, mut encoded) = ([prompt.as_ptr()], zeroed::<luna_conditioning>());
                let clip_skip = case["clip_skip"].as_u64().unwrap_or(0) as u32;
                let size = size_of::<luna_text_options>();
                let options = luna_text_options { size, precision, clip_skip, ..zeroed() };
                // SAFETY: as above.
                let status =
                    unsafe { luna_text_encode(clip, prompts.as_ptr(), 1, &options, &mut encoded, ptr::null_mut()) };
                tensor = encoded.tokens;
                let rest = luna_conditioning { tokens: luna_tensor::NONE, ..encoded };
                assert_eq!(luna_conditioning_free(rest), luna_status::Ok);
                status
            }
            "load" => {
                let path = CString::new(text(case, "path")).unwrap();
                // SAFETY: as above.
                unsafe { luna_vae_load(session, path.as_ptr(), &mut zeroed()) }
            }
            op => {
                let (values, mut view) = (values(case), zeroed::<luna_view>());
                (view.data, view.rank) = (values.as_ptr().cast(), shape(case).len() as u32);
                shape(case).iter().enumerate().for_each(|(axis, &side)| view.shape[axis] = side as i64);
                let none = ptr::null_mut();
                if op == "encode" {
                    let sizes = ["crop", "pad", "refuse"].iter().position(|known| *known == text(case, "sizes"));
                    let options = luna_encode_options {
                        size: size_of::<luna_encode_options>(),
                        sizes: sizes.unwrap_or(0) as i32,
                        sample: u32::from(case["seed"].is_u64()),
                        seed: case["seed"].as_u64().unwrap_or(0),
                        ..luna_encode_options { precision, scaled, tile, tiling, ..zeroed() }
                    };
                    // SAFETY: as above.
                    unsafe { luna_vae_encode(vae, &view, &options, &mut tensor, none) }
                } else {
                    let size = size_of::<luna_decode_options>();
                    let options = luna_decode_options { size, precision, scaled, tile, tiling, ..zeroed() };
                    // SAFETY: as above.
                    unsafe { luna_vae_decode(vae, &view, &options, &mut tensor, none) }
                }
            }
        };
        if status == luna_status::Ok { Ok(read(tensor)) } else { Err(status) }
    };
    let name = |status: luna_status| {
        // SAFETY: names are valid for ever.
        unsafe { CStr::from_ptr(luna_status_name(status as i32)) }.to_str().unwrap().to_owned()
    };
    let answers = cases().iter().map(|case| (text(case, "name").to_owned(), run(case).unwrap_or_else(name))).collect();
    assert_eq!([luna_text_free(clip), luna_vae_free(vae), luna_close(session)], [luna_status::Ok; 3]);
    answers
}

fn through_python() -> Answers {
    let told = built::run(python().arg("bindings/python/tests/conformance.py").env("PYTHONPATH", "bindings/python"));
    let answers: Vec<(String, String)> = serde_json::from_str(&told).unwrap();
    answers
}

#[test]
fn every_door_gives_the_same() {
    let expected = through_the_crate();
    assert!(expected.iter().filter(|(_, answer)| answer.starts_with('[')).count() >= 15, "{expected:?}");
    assert!(expected.iter().filter(|(_, answer)| answer == "invalid_input").count() >= 4, "{expected:?}");
    assert_eq!(through_the_c_abi(), expected, "the C ABI");
    assert_eq!(through_python(), expected, "Python");
}
