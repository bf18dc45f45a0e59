//! Vision-language models through the C ABI: the vision part of a GGUF model where it was named, LoRAs that PEFT knows,
//! conversations and prepared prompts.

#![allow(clippy::undocumented_unsafe_blocks, reason = "every pointer here leads to what the header says")]

use crate::misuse::last;
use luna::*;
use luna_core::{
    Image, Runtime,
    tokenizer::{ChatMessage, MessagePart, Role},
    vision::PixelValues,
    vlm::{GenerateOptions, Question, VlmInput, VlmModel},
};
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

/// Ids of an answer, or what it failed with.
fn answer(vlm: luna_vlm, question: luna_question) -> Result<Vec<u32>, luna_status> {
    let question = luna_question { size: size_of::<luna_question>(), ..question };
    let size = size_of::<luna_generate_options>();
    let options = luna_generate_options { size, max_tokens: 6, ignore_end: 1, ..zeroed() };
    let mut list = zeroed();
    match unsafe { luna_vlm_generate(vlm, &question, &options, &mut list, ptr::null_mut()) } {
        luna_status::Ok => {}
        status => return Err(status),
    }
    let mut told = luna_generated { size: size_of::<luna_generated>(), ..zeroed() };
    assert_eq!(unsafe { luna_list_generated(list, 0, &mut told) }, luna_status::Ok);
    let ids = unsafe { slice::from_raw_parts(told.ids, told.id_count) }.to_vec();
    luna_list_free(list);
    Ok(ids)
}

fn view<T>(dtype: luna_dtype, shape: &[usize], data: &[T]) -> luna_view {
    let mut view = luna_view { data: data.as_ptr().cast(), dtype: dtype as i32, rank: shape.len() as u32, ..zeroed() };
    shape.iter().enumerate().for_each(|(axis, &side)| view.shape[axis] = side as i64);
    view
}

#[test]
fn conversations_and_prepared_prompts_go_on() {
    let (folder, session) = (tempfile::tempdir().unwrap(), open());
    let path = conformance::vlm(folder.path());
    let (vlm, model) = (load(session, &path, None).unwrap(), VlmModel::open(&path, &Runtime::cpu().unwrap()).unwrap());
    let options = GenerateOptions { max_tokens: 6, stop_at_end: false, ..GenerateOptions::default() };
    let shapes = [[2usize, 48, 64, 3], [1, 40, 56, 3]];
    let pixels = shapes.map(|shape| values(&shape));
    let images = [0, 1].map(|at| Image::new(shapes[at], pixels[at].clone()).unwrap());
    let shown = [0, 1].map(|at| view(luna_dtype::F32, &shapes[at], &pixels[at]));

    // Two pictures in one array, words between pictures, and a turn of the model's.
    let words = |text: &str| MessagePart::Text(text.to_owned());
    let messages = [
        ChatMessage { role: Role::System, parts: vec![words("brief")] },
        ChatMessage { role: Role::User, parts: vec![MessagePart::Image, MessagePart::Image, words("These?")] },
        ChatMessage { role: Role::Assistant, parts: vec![words("Two foxes.")] },
        ChatMessage { role: Role::User, parts: vec![words("And "), MessagePart::Image, words("this?")] },
    ];
    let input = model.prompt(&messages, &images).unwrap();
    let theirs = model.generate(&input, &options, &mut |_| {}).unwrap();
    let said = |text: &'static CStr| luna_message_part { text: text.as_ptr(), image: ptr::null() };
    let seen = |image: &luna_view| luna_message_part { text: ptr::null(), image };
    let parts = [
        vec![said(c"brief")],
        vec![seen(&shown[0]), said(c"These?")],
        vec![said(c"Two foxes.")],
        vec![said(c"And "), seen(&shown[1]), said(c"this?")],
    ];
    let roles = [luna_role::System, luna_role::User, luna_role::Assistant, luna_role::User];
    let turn = |(role, parts): (luna_role, &Vec<luna_message_part>)| luna_message {
        role: role as i32,
        reserved: 0,
        parts: parts.as_ptr(),
        part_count: parts.len(),
    };
    let turns: Vec<_> = roles.into_iter().zip(&parts).map(turn).collect();
    let chat = luna_question { messages: turns.as_ptr(), message_count: turns.len(), ..zeroed() };
    assert_eq!(answer(vlm, chat).unwrap_or_else(|status| panic!("{status:?}: {}", last())), theirs.ids);

    // The same prompt, prepared.
    let ids: Vec<i64> = input.ids.iter().map(|&id| id.into()).collect();
    let grids: Vec<i64> = input.patches.grids.iter().flatten().map(|&side| side as i64).collect();
    let input_ids = view(luna_dtype::I64, &[1, ids.len()], &ids);
    let patches = [input.patches.data.len() / input.patches.length, input.patches.length];
    let pixel_values = view(luna_dtype::F32, &patches, &input.patches.data);
    let image_grid_thw = view(luna_dtype::I64, &[grids.len() / 3, 3], &grids);
    let prepared = luna_question {
        input_ids: &input_ids,
        pixel_values: &pixel_values,
        image_grid_thw: &image_grid_thw,
        ..zeroed()
    };
    assert_eq!(answer(vlm, prepared).unwrap_or_else(|status| panic!("{status:?}: {}", last())), theirs.ids);
    let text = model.prompt(&Question::new("What?").messages(0), &[]).unwrap();
    let plain: Vec<i64> = text.ids.iter().map(|&id| id.into()).collect();
    let text_ids = view(luna_dtype::I64, &[plain.len()], &plain);
    let alone = answer(vlm, luna_question { input_ids: &text_ids, ..zeroed() }).unwrap();
    assert_eq!(alone, model.generate(&text, &options, &mut |_| {}).unwrap().ids);

    // What is not clear is refused.
    let unclear = luna_message_part { text: c"a".as_ptr(), image: &shown[0] };
    let nobody = [luna_message { role: 9, ..turns[0] }];
    let neither = [luna_message { parts: &unclear, part_count: 1, ..turns[0] }];
    let flat = view(luna_dtype::I64, &[grids.len()], &grids);
    for (wrong, message) in [
        (luna_question { prompt: c"a".as_ptr(), ..chat }, "not clear what the model shall read"),
        (luna_question { prompt: c"a".as_ptr(), ..prepared }, "not clear what the model shall read"),
        (luna_question { system: c"a".as_ptr(), ..chat }, "not clear what the model shall read"),
        (luna_question { pixel_values: &pixel_values, ..chat }, "not clear what the model shall read"),
        (luna_question { message_count: 0, ..chat }, "no messages"),
        (luna_question { messages: nobody.as_ptr(), message_count: 1, ..zeroed() }, "no such role"),
        (luna_question { messages: neither.as_ptr(), message_count: 1, ..zeroed() }, "part of a message is not clear"),
        (luna_question { image_grid_thw: &flat, ..prepared }, "expected [pictures, 3]"),
        (luna_question { image_grid_thw: ptr::null(), ..prepared }, "or patches with `image_grid_thw`"),
        (luna_question { pixel_values: ptr::null(), ..prepared }, "no pictures"),
        (luna_question { pixel_values: &shown[0], ..prepared }, "expected [patches, length]"),
        (luna_question { input_ids: &image_grid_thw, ..zeroed() }, "expected [ids] or [1, ids]"),
    ] {
        assert_eq!(answer(vlm, wrong).unwrap_err(), luna_status::InvalidInput, "{message}");
        assert!(last().contains(message), "{message}: {}", last());
    }
    assert_eq!([luna_vlm_free(vlm), luna_close(session)], [luna_status::Ok; 2]);
}

/// The prompts of a fixture as transformers' processor made them give the ids that transformers generated.
#[test]
fn prepared_prompts_give_what_transformers_generates() {
    let (folder, session) = (tempfile::tempdir().unwrap(), open());
    let case = ModelCase::read(&workspace::root().join("tests/fixtures/vlm/qwen3_vl.safetensors"));
    let vlm = load(session, &conformance::vlm(folder.path()), None).unwrap();
    let [ids, grids, generated] = ["ids", "grids", "generated"].map(|name| case.integers(&format!("0/{name}")));
    let (patches, shape) = (case.floats("0/pixel_values"), case.shape("0/pixel_values"));
    let input_ids = view(luna_dtype::I64, &[1, ids.len()], &ids);
    let pixel_values = view(luna_dtype::F32, shape, &patches);
    let image_grid_thw = view(luna_dtype::I64, &[grids.len() / 3, 3], &grids);
    let question = luna_question {
        input_ids: &input_ids,
        pixel_values: &pixel_values,
        image_grid_thw: &image_grid_thw,
        ..zeroed()
    };
    let ours = answer(vlm, question).unwrap_or_else(|status| panic!("{status:?}: {}", last()));
    assert_eq!(ours.iter().map(|&id| i64::from(id)).collect::<Vec<_>>(), generated[..6]);
    assert_eq!([luna_vlm_free(vlm), luna_close(session)], [luna_status::Ok; 2]);
}

/// LLaVA cuts whole pictures itself.
#[test]
fn whole_pictures_of_a_prepared_prompt_are_cut_by_the_model() {
    let (folder, session) = (tempfile::tempdir().unwrap(), open());
    let case = ModelCase::read(&workspace::root().join("tests/fixtures/vlm/llava.safetensors"));
    let path = case.write(folder.path());
    let (vlm, model) = (load(session, &path, None).unwrap(), VlmModel::open(&path, &Runtime::cpu().unwrap()).unwrap());
    let side = case.config.as_ref().unwrap()["vision_config"]["image_size"].as_u64().unwrap() as usize;
    let shape = [2, 3, side, side];
    let values = values(&shape);
    let patches = model.cut(&PixelValues::new(shape, values.clone()).unwrap()).unwrap();
    let places: usize = patches.grids.iter().map(|grid| grid.iter().product::<usize>()).sum();
    let mut ids = vec![1, 5];
    ids.extend(std::iter::repeat_n(model.info().picture_id, places));
    ids.extend([7, 9]);
    let options = GenerateOptions { max_tokens: 6, stop_at_end: false, ..GenerateOptions::default() };
    let theirs = model.generate(&VlmInput { ids: ids.clone(), patches }, &options, &mut |_| {}).unwrap();
    let numbers: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let (input_ids, pixel_values) =
        (view(luna_dtype::I32, &[numbers.len()], &numbers), view(luna_dtype::F32, &shape, &values));
    let question = luna_question { input_ids: &input_ids, pixel_values: &pixel_values, ..zeroed() };
    assert_eq!(answer(vlm, question).unwrap_or_else(|status| panic!("{status:?}: {}", last())), theirs.ids);
    assert_eq!([luna_vlm_free(vlm), luna_close(session)], [luna_status::Ok; 2]);
}
