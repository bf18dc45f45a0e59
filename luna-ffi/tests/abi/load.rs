//! What files are taken for, and what is taken of them: halves of a VAE, activations, ways of preparing pictures.

#![allow(clippy::undocumented_unsafe_blocks, reason = "every pointer here leads to what the header says")]

use crate::misuse::last;
use luna::*;
use luna_core::{
    Image,
    picture::Filter,
    text::{ClipActivation, Conditioner, TextLoadOptions, TextModel},
    vision::{PictureView, Preprocessing, ResizeRule, VisionActivation, VisionLoadOptions, VisionModel, VisionOptions},
};
use luna_tests::{
    conformance::{self, values},
    lora::runtime,
    text,
};
use safetensors::Dtype;
use std::{ffi::CString, fs, mem, path::Path, ptr, slice};

fn zeroed<T>() -> T {
    // SAFETY: used for structs of the header only, of which zeros are a value.
    unsafe { mem::zeroed() }
}

fn open() -> luna_session {
    let mut session = zeroed();
    assert_eq!(unsafe { luna_open(ptr::null(), &mut session) }, luna_status::Ok);
    session
}

fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

fn view(shape: &[usize], data: &[f32]) -> luna_view {
    let mut view = luna_view { data: data.as_ptr().cast(), rank: shape.len() as u32, ..zeroed() };
    shape.iter().enumerate().for_each(|(axis, &side)| view.shape[axis] = side as i64);
    view
}

/// What a tensor holds; it is freed.
fn read(tensor: luna_tensor) -> Vec<f32> {
    let mut view: luna_view = zeroed();
    assert_eq!(unsafe { luna_tensor_view(tensor, &mut view) }, luna_status::Ok);
    let count = view.shape[..view.rank as usize].iter().product::<i64>() as usize;
    let values = unsafe { slice::from_raw_parts(view.data.cast::<f32>(), count) }.to_vec();
    assert_eq!(luna_tensor_free(tensor), luna_status::Ok);
    values
}

#[test]
fn half_a_vae_does_its_half() {
    let session = open();
    let load = |halves: i32| {
        let options = luna_vae_load_options { size: size_of::<luna_vae_load_options>(), halves, ..zeroed() };
        let mut vae = zeroed();
        match unsafe { luna_vae_load_with(session, c"moonlet".as_ptr(), &options, &mut vae) } {
            luna_status::Ok => Ok(vae),
            status => Err(status),
        }
    };
    let [whole, encoder, decoder] = [0, 1, 2].map(|halves| load(halves).unwrap());
    let bytes = |vae: luna_vae| {
        let mut info = luna_vae_info { size: size_of::<luna_vae_info>(), ..zeroed() };
        assert_eq!(unsafe { luna_vae_get_info(vae, &mut info) }, luna_status::Ok);
        assert_eq!((info.latent_channels, info.factor), (16, 8));
        info.weight_bytes
    };
    assert!(bytes(encoder) > 0 && bytes(decoder) > 0 && bytes(encoder) + bytes(decoder) <= bytes(whole));
    let pixels = values(&[1, 16, 24, 3]);
    let encode = |vae: luna_vae| {
        let (image, mut latent) = (view(&[1, 16, 24, 3], &pixels), zeroed());
        match unsafe { luna_vae_encode(vae, &image, ptr::null(), &mut latent, ptr::null_mut()) } {
            luna_status::Ok => Ok(read(latent)),
            status => Err(status),
        }
    };
    let latent = encode(whole).unwrap();
    let decode = |vae: luna_vae| {
        let (latent, mut image) = (view(&[1, 16, 2, 3], &latent), zeroed());
        match unsafe { luna_vae_decode(vae, &latent, ptr::null(), &mut image, ptr::null_mut()) } {
            luna_status::Ok => Ok(read(image)),
            status => Err(status),
        }
    };
    assert_eq!(encode(encoder).unwrap(), latent);
    assert_eq!(decode(decoder).unwrap(), decode(whole).unwrap());
    assert!(encode(decoder).is_err() && decode(encoder).is_err(), "{}", last());
    assert_eq!(load(3).unwrap_err(), luna_status::InvalidInput);
    assert_eq!([whole, encoder, decoder].map(|vae| luna_vae_free(vae)), [luna_status::Ok; 3]);
    assert_eq!(luna_close(session), luna_status::Ok);
}

#[test]
fn a_vision_encoder_is_read_as_it_is_said() {
    let (folder, session) = (tempfile::tempdir().unwrap(), open());
    let path = conformance::vision(folder.path());
    let (shape, name) = ([1usize, 50, 30, 3], c_path(&path));
    let pixels = values(&shape);
    let load = |options: luna_vision_load_options| {
        let options = luna_vision_load_options { size: size_of::<luna_vision_load_options>(), ..options };
        let mut vision = zeroed();
        match unsafe { luna_vision_load_with(session, name.as_ptr(), &options, &mut vision) } {
            luna_status::Ok => Ok(vision),
            status => Err(status),
        }
    };
    let embed = |vision: luna_vision| {
        let (image, mut features) = (view(&shape, &pixels), zeroed::<luna_features>());
        let (images, none) = ([&raw const image], ptr::null_mut());
        let status = unsafe { luna_vision_encode(vision, images.as_ptr(), 1, ptr::null(), &mut features, none) };
        assert_eq!(status, luna_status::Ok, "{}", last());
        let embeds = read(features.image_embeds);
        features.image_embeds = luna_tensor::NONE;
        assert_eq!(luna_features_free(features), luna_status::Ok);
        embeds
    };
    let theirs = |options: VisionLoadOptions| {
        let model = VisionModel::open_with(&path, runtime(), &options).unwrap();
        let image = Image::new(shape, pixels.clone()).unwrap();
        let encoded = model.encode(&[PictureView::whole(&image)], &VisionOptions::default()).unwrap();
        encoded.image_embeds.unwrap().data().to_vec()
    };
    let usual = VisionModel::open(&path, runtime()).unwrap();
    let side = usual.info().image_size;
    let preprocessing = Preprocessing {
        resize: ResizeRule::Exact(side, side),
        filter: Filter::Bilinear,
        crop: None,
        rescale: 1.0 / 255.0,
        mean: [0.5; 3],
        std: [0.25; 3],
    };
    let cases = [
        (zeroed(), VisionLoadOptions::default()),
        (
            luna_vision_load_options { activation: luna_vision_activation::Gelu as i32, ..zeroed() },
            VisionLoadOptions { activation: Some(VisionActivation::Gelu), ..VisionLoadOptions::default() },
        ),
        (
            luna_vision_load_options {
                preprocessing: 1,
                resize: luna_resize::Exact as i32,
                filter: luna_filter::Bilinear as i32,
                resize_height: side as u32,
                resize_width: side as u32,
                mean: [0.5; 3],
                std: [0.25; 3],
                ..zeroed()
            },
            VisionLoadOptions { preprocessing: Some(preprocessing), ..VisionLoadOptions::default() },
        ),
    ];
    let mut made = Vec::new();
    for (ours, options) in cases {
        let vision = load(ours).unwrap_or_else(|status| panic!("{status:?}: {}", last()));
        made.push(embed(vision));
        assert_eq!(made.last(), Some(&theirs(options)), "case {}", made.len());
        assert_eq!(luna_vision_free(vision), luna_status::Ok);
    }
    assert!(made[0] != made[1] && made[0] != made[2], "each way of reading is a model of its own");
    let exact = luna_vision_load_options { preprocessing: 1, resize: luna_resize::Exact as i32, ..zeroed() };
    for (wrong, message) in [
        (luna_vision_load_options { activation: 9, ..zeroed() }, "no such activation"),
        (exact, "resize_height is 0"),
        (luna_vision_load_options { resize_height: 32, ..exact }, "resize_width is 0"),
        (luna_vision_load_options { resize: 2, crop_height: 8, ..exact }, "crop_width is 0"),
        (luna_vision_load_options { resize: 2, std: [1.0, 0.0, 1.0], ..exact }, "without zeros"),
        (luna_vision_load_options { resize: 2, mean: [f32::NAN; 3], ..exact }, "finite numbers"),
    ] {
        assert_eq!(load(wrong).unwrap_err(), luna_status::InvalidInput, "{message}");
        assert!(last().contains(message), "{}", last());
    }
    assert_eq!(luna_close(session), luna_status::Ok);
}

#[test]
fn a_clip_computes_with_the_activation_that_is_said() {
    let (folder, session) = (tempfile::tempdir().unwrap(), open());
    let path = folder.path().join("l.safetensors");
    fs::write(&path, text::file(&[("", &text::clip(&text::CLIP_L))], |_| Dtype::F32)).unwrap();
    let (name, prompts) = (c_path(&path), [c"a fox".as_ptr()]);
    let (names, kinds) = ([name.as_ptr()], [c"clip_l".as_ptr()]);
    let load = |activation: i32| {
        let activations = [activation];
        let options = luna_text_load_options {
            size: size_of::<luna_text_load_options>(),
            encoders: kinds.as_ptr(),
            activations: activations.as_ptr(),
            ..zeroed()
        };
        let mut text = zeroed();
        match unsafe { luna_text_load(session, names.as_ptr(), 1, &options, &mut text) } {
            luna_status::Ok => Ok(text),
            status => Err(status),
        }
    };
    let activations = [(0, None), (1, Some(ClipActivation::QuickGelu)), (2, Some(ClipActivation::Gelu))];
    let made = activations.map(|(number, activation)| {
        let (encoders, mut made) = (load(number).unwrap(), zeroed::<luna_conditioning>());
        let status =
            unsafe { luna_text_encode(encoders, prompts.as_ptr(), 1, ptr::null(), &mut made, ptr::null_mut()) };
        assert_eq!(status, luna_status::Ok, "{}", last());
        let tokens = read(made.tokens);
        made.tokens = luna_tensor::NONE;
        assert_eq!([luna_conditioning_free(made), luna_text_free(encoders)], [luna_status::Ok; 2]);
        let kind = Some(text::CLIP_L.kind);
        let options = TextLoadOptions { kind, activation, ..TextLoadOptions::default() };
        let model = TextModel::open_with(&path, runtime(), &options).unwrap();
        let theirs = Conditioner::new(&[&model]).unwrap().encode(&["a fox".into()], &Default::default()).unwrap();
        assert_eq!(tokens, theirs.first().data());
        tokens
    });
    assert!(made[0] == made[1] && made[1] != made[2], "CLIP-L's own is QuickGelu");
    assert_eq!(load(7).unwrap_err(), luna_status::InvalidInput);
    assert_eq!(luna_close(session), luna_status::Ok);
}
