//! Vision-language models through the C ABI: the vision part of a GGUF model where it was named, and LoRAs that PEFT knows.

#![allow(clippy::undocumented_unsafe_blocks, reason = "every pointer here leads to what the header says")]

use crate::misuse::last;
use luna::*;
use luna_core::{Runtime, vlm::VlmModel};
use luna_tests::{
    conformance::{self, values},
    model_case::ModelCase,
    vlm_gguf::{self, Storage},
    workspace,
};
use std::{
    ffi::{CStr, CString},
    fs, mem,
    path::Path,
    ptr, slice,
};

fn zeroed<T>() -> T {
    // SAFETY: used for structs of the header only, of which zeros are a value.
    unsafe { mem::zeroed() }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

fn open() -> luna_session {
    let mut session = zeroed();
    assert_eq!(unsafe { luna_open(ptr::null(), &mut session) }, luna_status::Ok);
    session
}

fn load(session: luna_session, path: &Path, projector: Option<&Path>) -> Result<luna_vlm, luna_status> {
    let (path, projector, mut vlm) = (c_path(path), projector.map(c_path), zeroed());
    let size = size_of::<luna_vlm_load_options>();
    let projector = projector.as_ref().map_or(ptr::null(), |path| path.as_ptr());
    let options = luna_vlm_load_options { size, projector, ..zeroed() };
    match unsafe { luna_vlm_load(session, path.as_ptr(), &options, &mut vlm) } {
        luna_status::Ok => Ok(vlm),
        status => Err(status),
    }
}

/// Ids of an answer about a picture, and how it was made.
fn ask(vlm: luna_vlm, loras: luna_loras) -> Result<(Vec<u32>, luna_report), luna_status> {
    let (shape, mut image) = ([1usize, 48, 64, 3], zeroed::<luna_view>());
    let values = values(&shape);
    (image.data, image.rank) = (values.as_ptr().cast(), 4);
    shape.iter().enumerate().for_each(|(axis, &side)| image.shape[axis] = side as i64);
    let images = [&raw const image];
    let size = size_of::<luna_question>();
    let prompt = c"What is it?".as_ptr();
    let question = luna_question { size, prompt, images: images.as_ptr(), image_count: 1, ..zeroed() };
    let size = size_of::<luna_generate_options>();
    let options = luna_generate_options { size, max_tokens: 5, ignore_end: 1, loras, ..zeroed() };
    let (mut list, mut report) = (zeroed(), luna_report { size: size_of::<luna_report>(), ..zeroed() });
    match unsafe { luna_vlm_generate(vlm, &question, &options, &mut list, &mut report) } {
        luna_status::Ok => {}
        status => return Err(status),
    }
    let mut told = luna_generated { size: size_of::<luna_generated>(), ..zeroed() };
    assert_eq!(unsafe { luna_list_generated(list, 0, &mut told) }, luna_status::Ok);
    let ids = unsafe { slice::from_raw_parts(told.ids, told.id_count) }.to_vec();
    luna_list_free(list);
    Ok((ids, report))
}

#[test]
fn a_vision_part_may_lie_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let case = ModelCase::read(&workspace::root().join("tests/fixtures/vlm/qwen3_vl.safetensors"));
    let whole = vlm_gguf::write("qwen3_vl", &case.tensors, folder.path(), Storage::AsConverted);
    let beside = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let beside = beside.into_iter().find(|path| path.to_string_lossy().contains("mmproj")).unwrap();
    let (session, expected) = (open(), VlmModel::open(&whole, &Runtime::cpu().unwrap()).unwrap().info());
    let first = load(session, &whole, None).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let moved = elsewhere.join("vision.gguf");
    fs::rename(&beside, &moved).unwrap();
    let alone = folder.path().join("alone.gguf");
    fs::copy(&whole, &alone).unwrap();
    assert_eq!(load(session, &alone, None).unwrap_err(), luna_status::NotFound, "{}", last());
    let second = load(session, &alone, Some(&moved)).unwrap_or_else(|status| panic!("{status:?}: {}", last()));
    let mut info = luna_vlm_info { size: size_of::<luna_vlm_info>(), ..zeroed() };
    assert_eq!(unsafe { luna_vlm_get_info(second, &mut info) }, luna_status::Ok);
    assert_eq!((info.layers, info.vision_layers), (expected.layers as u64, expected.vision_layers as u64));
    assert_eq!(unsafe { CStr::from_ptr(info.family) }, c"qwen3_vl");
    assert_eq!(load(session, &alone, Some(&folder.path().join("none.gguf"))).unwrap_err(), luna_status::NotFound);
    assert_eq!(load(session, &alone, Some(&alone)).unwrap_err(), luna_status::InvalidInput, "{}", last());
    assert_eq!([luna_vlm_free(first), luna_vlm_free(second), luna_close(session)], [luna_status::Ok; 3]);
}

#[test]
fn loras_come_with_the_call() {
    let (folder, session) = (tempfile::tempdir().unwrap(), open());
    let vlm = load(session, &conformance::vlm(folder.path()), None).unwrap();
    let stack = |path: &Path, options: luna_loras_options| {
        let (path, mut loras) = (c_path(path), zeroed());
        let entry = luna_lora { path: path.as_ptr(), clip: 1.0, ..zeroed() };
        let options = luna_loras_options { size: size_of::<luna_loras_options>(), ..options };
        assert_eq!(unsafe { luna_loras_new(session, &entry, 1, &options, &mut loras) }, luna_status::Ok);
        loras
    };
    let (plain, report) = ask(vlm, luna_loras::NONE).unwrap();
    assert_eq!((report.adapters_applied, report.layers_branch), (0, 0));
    let peft = luna_tests::lora::path("qwen3_vl", "peft");
    let (functional, merged) =
        (stack(&peft, zeroed()), stack(&peft, luna_loras_options { mode: luna_lora_mode::Merged as i32, ..zeroed() }));
    let (changed, report) = ask(vlm, functional).unwrap();
    assert_eq!((report.adapters_applied, report.adapters_missed, report.lora_mode), (14, 0, 0));
    assert_eq!(report.layers_branch + report.layers_built, 16);
    let (same, report) = ask(vlm, merged).unwrap();
    assert_eq!((report.lora_mode, report.layers_merged), (luna_lora_mode::Merged as i32, 16));
    assert_eq!(same, changed);
    assert_ne!(changed, plain, "the adapter says something");
    assert_eq!(ask(vlm, luna_loras::NONE).unwrap().0, plain, "the model is as it was");
    let (mut list, mut file) = (zeroed(), luna_lora_file { size: size_of::<luna_lora_file>(), ..zeroed() });
    assert_eq!(unsafe { luna_loras_list_files(functional, &mut list) }, luna_status::Ok);
    assert_eq!(unsafe { luna_list_lora_file(list, 0, &mut file) }, luna_status::Ok);
    assert_eq!((unsafe { CStr::from_ptr(file.model) }, file.applied, file.strength), (c"qwen3_vl", 14, 1.0));
    let kohya = stack(&luna_tests::lora::path("sd15_ldm", "kohya"), zeroed());
    assert_eq!(ask(vlm, kohya).unwrap_err(), luna_status::InvalidInput);
    assert!(last().contains("for other components"), "{}", last());
    luna_list_free(list);
    for loras in [functional, merged, kohya] {
        assert_eq!(luna_loras_free(loras), luna_status::Ok);
    }
    assert_eq!([luna_vlm_free(vlm), luna_close(session)], [luna_status::Ok; 2]);
}
