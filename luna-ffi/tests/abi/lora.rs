//! LoRAs through the C ABI: what ComfyUI, PEFT and LyCORIS compute, what became of each adapter, and what is refused.

#![allow(clippy::undocumented_unsafe_blocks, reason = "every pointer here leads to what the header says")]

use crate::{misuse::last, programs};
use luna::*;
use luna_tests::{lora, vae::relative_error};
use std::{
    ffi::{CStr, CString},
    mem,
    path::Path,
    ptr, slice,
};

fn zeroed<T>() -> T {
    // SAFETY: used for structs of the header only, of which zeros are a value.
    unsafe { mem::zeroed() }
}

fn view(shape: &[usize], data: &[f32]) -> luna_view {
    let mut view: luna_view = zeroed();
    (view.data, view.rank) = (data.as_ptr().cast(), shape.len() as u32);
    shape.iter().enumerate().for_each(|(axis, &side)| view.shape[axis] = side as i64);
    view
}

fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

fn open(folders: &[&Path], merged_bytes: u64) -> luna_session {
    let folders: Vec<_> = folders.iter().map(|folder| c_path(folder)).collect();
    let pointers: Vec<_> = folders.iter().map(|folder| folder.as_ptr()).collect();
    let size = size_of::<luna_open_options>();
    let (lora_folders, lora_folder_count) = (pointers.as_ptr(), pointers.len());
    let options = luna_open_options { size, lora_folders, lora_folder_count, merged_bytes, ..zeroed() };
    let mut session = zeroed();
    assert_eq!(unsafe { luna_open(&options, &mut session) }, luna_status::Ok, "{}", last());
    session
}

fn stack(
    session: luna_session,
    entries: &[luna_lora],
    options: &luna_loras_options,
) -> Result<luna_loras, luna_status> {
    let options = luna_loras_options { size: size_of::<luna_loras_options>(), ..*options };
    let mut loras = zeroed();
    match unsafe { luna_loras_new(session, entries.as_ptr(), entries.len(), &options, &mut loras) } {
        luna_status::Ok => Ok(loras),
        status => Err(status),
    }
}

fn load(session: luna_session, path: &Path) -> luna_model {
    let mut model = zeroed();
    let path = c_path(path);
    assert_eq!(unsafe { luna_model_load(session, path.as_ptr(), ptr::null(), &mut model) }, luna_status::Ok);
    model
}

/// A step of the fixture's, with LoRAs.
fn predict(
    model: luna_model,
    case: &luna_tests::diffusion::DenoiserCase,
    loras: luna_loras,
) -> Result<(Vec<f32>, luna_report), luna_status> {
    let step = case.input();
    let x = view(step.x.shape(), step.x.data());
    let timesteps = view(&[step.timesteps.len()], step.timesteps);
    let context = view(step.context.shape(), step.context.data());
    let y = step.y.map(|y| view(y.shape(), y.data()));
    let guidance = step.guidance.map(|guidance| view(&[guidance.len()], guidance));
    let input = luna_forward_input {
        size: size_of::<luna_forward_input>(),
        x: &x,
        timesteps: &timesteps,
        context: &context,
        y: y.as_ref().map_or(ptr::null(), ptr::from_ref),
        guidance: guidance.as_ref().map_or(ptr::null(), ptr::from_ref),
        ..zeroed()
    };
    let options = luna_forward_options { size: size_of::<luna_forward_options>(), loras, ..zeroed() };
    let mut report = luna_report { size: size_of::<luna_report>(), ..zeroed() };
    let mut prediction = zeroed();
    match unsafe { luna_model_forward(model, &input, &options, &mut prediction, &mut report) } {
        luna_status::Ok => {}
        status => return Err(status),
    }
    let mut out: luna_view = zeroed();
    assert_eq!(unsafe { luna_tensor_view(prediction, &mut out) }, luna_status::Ok);
    let count = out.shape[..out.rank as usize].iter().product::<i64>() as usize;
    let values = unsafe { slice::from_raw_parts(out.data.cast::<f32>(), count) }.to_vec();
    luna_tensor_free(prediction);
    Ok((values, report))
}

fn text(text: *const std::ffi::c_char) -> Option<String> {
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned())
}

/// Every adapter's outcome, name and nearest layer or what it is.
fn adapters(loras: luna_loras) -> Vec<(i32, String, Option<String>)> {
    let (mut list, mut count) = (zeroed(), 0);
    assert_eq!(unsafe { luna_loras_list_adapters(loras, &mut list) }, luna_status::Ok);
    assert_eq!(unsafe { luna_list_count(list, &mut count) }, luna_status::Ok);
    let told = (0..count).map(|index| {
        let mut adapter = luna_lora_adapter { size: size_of::<luna_lora_adapter>(), ..zeroed() };
        assert_eq!(unsafe { luna_list_lora_adapter(list, index, &mut adapter) }, luna_status::Ok);
        let targets = if adapter.target_count == 0 {
            &[]
        } else {
            unsafe { slice::from_raw_parts(adapter.targets, adapter.target_count) }
        };
        let target = targets.first().and_then(|&target| text(target));
        (adapter.outcome, text(adapter.key).unwrap(), target.or(text(adapter.nearest)).or(text(adapter.what)))
    });
    let told = told.collect();
    luna_list_free(list);
    told
}

fn entry(path: &CStr, model: f64) -> luna_lora {
    luna_lora { path: path.as_ptr(), model, clip: model, ..zeroed() }
}

#[test]
fn stacks_give_what_others_compute() {
    let (folder, session) = (tempfile::tempdir().unwrap(), open(&[], 0));
    let cases: Vec<_> = lora::cases().into_iter().filter(|case| case.model == "sd15_ldm").collect();
    assert!(cases.len() >= 8, "{}", cases.len());
    let step = luna_tests::diffusion::case("sd15_ldm");
    let model = load(session, &step.write(folder.path()));
    for case in &cases {
        let paths: Vec<_> = case.stack.iter().map(|(name, _)| c_path(&lora::path(&case.model, name))).collect();
        let entries: Vec<_> = paths.iter().zip(&case.stack).map(|(path, (_, model))| entry(path, *model)).collect();
        for mode in [luna_lora_mode::Functional, luna_lora_mode::Merged] {
            let loras = stack(session, &entries, &luna_loras_options { mode: mode as i32, ..zeroed() }).unwrap();
            let (out, report) = predict(model, &step, loras).unwrap_or_else(|_| panic!("{}: {}", case.name, last()));
            assert!(relative_error(&out, &case.out) < 1e-4, "{}: {}", case.name, relative_error(&out, &case.out));
            assert!(report.adapters_applied > 0, "{}", case.name);
            // The second call takes what the first worked out.
            assert_eq!(predict(model, &step, loras).unwrap().0, out, "{}", case.name);
            assert_eq!(luna_loras_free(loras), luna_status::Ok);
        }
    }
    let plain = predict(model, &step, luna_loras::NONE).unwrap().0;
    assert_eq!(plain, lora::Model::open("sd15_ldm").predict(None), "the model is as it was");
    luna_model_free(model);
    luna_close(session);
}

#[test]
fn every_adapters_fate_is_told_also_where_it_is_refused() {
    let (folder, session) = (tempfile::tempdir().unwrap(), open(&[], 0));
    let step = luna_tests::diffusion::case("sd15_ldm");
    let model = load(session, &step.write(folder.path()));
    // One adapter finds its layer, one is of another size, one has no layer.
    let f32 = |name: &str, shape: &[usize]| {
        luna_tests::safetensors_file::f32_tensor(name, shape, &vec![0.01; shape.iter().product()])
    };
    let good = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";
    let bad = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_x";
    let known = lora::open("sd15_ldm", "kohya");
    assert!(known.adapters() > 0);
    let tensors = [
        f32(&format!("{bad}.lora_down.weight"), &[2, 8]),
        f32(&format!("{bad}.lora_up.weight"), &[8, 2]),
        f32(&format!("{good}.lora_down.weight"), &[2, 7]),
        f32(&format!("{good}.lora_up.weight"), &[7, 2]),
    ];
    let bytes = luna_tests::safetensors_file::file(&tensors, &[]);
    let name = c"made here";
    let kohya = c_path(&lora::path("sd15_ldm", "kohya"));
    let entries = [
        entry(&kohya, 0.5),
        luna_lora { name: name.as_ptr(), data: bytes.as_ptr().cast(), data_bytes: bytes.len(), model: 1.0, ..zeroed() },
    ];
    let loose = stack(session, &entries, &zeroed()).unwrap();
    let report = predict(model, &step, loose).unwrap().1;
    assert_eq!(report.adapters_missed, 2);
    let told = adapters(loose);
    assert_eq!(told.iter().filter(|(outcome, ..)| *outcome == 0).count(), report.adapters_applied as usize);
    let of = |wanted: luna_lora_outcome| told.iter().find(|(outcome, ..)| *outcome == wanted as i32).unwrap();
    assert_eq!(of(luna_lora_outcome::Unmatched).1, bad);
    assert!(of(luna_lora_outcome::Unmatched).2.is_some(), "the nearest layer is told");
    assert_eq!(of(luna_lora_outcome::WrongShape).1, good);
    let strict = stack(session, &entries, &luna_loras_options { strict: 1, ..zeroed() }).unwrap();
    assert_eq!(predict(model, &step, strict).unwrap_err(), luna_status::InvalidInput);
    assert!(last().contains("does not fit the model wholly"), "{}", last());
    assert_eq!(adapters(strict).len(), told.len(), "also of what was refused");
    // A stack for text encoders alone does nothing for a denoiser, which is an error unless it is allowed.
    let ink = c_path(&programs::lora(folder.path()));
    let nothing = stack(session, &[entry(&ink, 1.0)], &zeroed()).unwrap();
    assert_eq!(predict(model, &step, nothing).unwrap_err(), luna_status::InvalidInput);
    assert!(last().contains("nothing of the LoRA stack applies"), "{}", last());
    let allowed = stack(session, &[entry(&ink, 1.0)], &luna_loras_options { allow_nothing: 1, ..zeroed() }).unwrap();
    assert_eq!(predict(model, &step, allowed).unwrap().1.adapters_applied, 0);
    for loras in [loose, strict, nothing, allowed] {
        luna_loras_free(loras);
    }
    luna_model_free(model);
    luna_close(session);
}

#[test]
fn one_stack_is_merged_with_a_model_at_a_time() {
    let (folder, session, narrow) = (tempfile::tempdir().unwrap(), open(&[], 0), open(&[], 1));
    let step = luna_tests::diffusion::case("sd15_ldm");
    let path = step.write(folder.path());
    let (model, twin) = (load(session, &path), load(session, &path));
    let kohya = c_path(&lora::path("sd15_ldm", "kohya"));
    let merged = luna_loras_options { mode: luna_lora_mode::Merged as i32, ..zeroed() };
    let auto = luna_loras_options { mode: luna_lora_mode::Auto as i32, forwards: 1000, ..zeroed() };
    let (first, second) =
        (stack(session, &[entry(&kohya, 0.5)], &merged), stack(session, &[entry(&kohya, 1.0)], &merged));
    let (first, second) = (first.unwrap(), second.unwrap());
    let (out, report) = predict(model, &step, first).unwrap();
    assert_eq!((report.lora_mode, report.not_merged), (luna_lora_mode::Merged as i32, 0));
    // Another handle to the same model and the same stack share the copy.
    assert_eq!(predict(twin, &step, first).unwrap().0, out);
    assert_eq!(predict(model, &step, second).unwrap_err(), luna_status::Busy);
    assert!(last().contains("free the other stack first"), "{}", last());
    let chosen = stack(session, &[entry(&kohya, 1.0)], &auto).unwrap();
    let report = predict(model, &step, chosen).unwrap().1;
    assert_eq!((report.lora_mode, report.not_merged), (0, luna_not_merged::InUse as i32));
    let mut stats = luna_stats { size: size_of::<luna_stats>(), ..zeroed() };
    assert_eq!(unsafe { luna_get_stats(session, &mut stats) }, luna_status::Ok);
    assert!(stats.merged_bytes > 0 && stats.loras == 1, "{stats:?}");
    luna_loras_free(first);
    assert!(predict(model, &step, second).is_ok());
    luna_loras_free(second);
    assert_eq!(unsafe { luna_get_stats(session, &mut stats) }, luna_status::Ok);
    assert_eq!(stats.merged_bytes, 0, "the copy goes with its stack");
    let small = load(narrow, &path);
    let refused = stack(narrow, &[entry(&kohya, 0.5)], &merged).unwrap();
    assert_eq!(predict(small, &step, refused).unwrap_err(), luna_status::LimitExceeded);
    for loras in [chosen, refused] {
        luna_loras_free(loras);
    }
    for model in [model, twin, small] {
        luna_model_free(model);
    }
    assert_eq!([luna_close(session), luna_close(narrow)], [luna_status::Ok; 2]);
}

#[test]
fn loras_go_by_name_and_what_is_not_clear_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    programs::lora(folder.path());
    let session = open(&[folder.path()], 0);
    let named = |name: &CStr| luna_lora { name: name.as_ptr(), clip: 1.0, ..zeroed() };
    let found = stack(session, &[named(c"in")], &zeroed()).unwrap();
    luna_loras_free(found);
    assert_eq!(stack(session, &[named(c"oil")], &zeroed()).unwrap_err(), luna_status::NotFound);
    assert!(last().contains("no LoRA named `oil`"), "{}", last());
    let wrong = [
        zeroed(),
        luna_lora { path: c"x".as_ptr(), ..named(c"ink") },
        luna_lora { path: c"".as_ptr(), ..zeroed() },
        luna_lora { model: f64::NAN, ..named(c"ink") },
    ];
    for (at, entry) in wrong.iter().enumerate() {
        assert_eq!(stack(session, &[*entry], &zeroed()).unwrap_err(), luna_status::InvalidInput, "{at}");
    }
    for options in [
        luna_loras_options { mode: 3, ..zeroed() },
        luna_loras_options { dora: 3, ..zeroed() },
        luna_loras_options { forwards: 3, ..zeroed() },
    ] {
        assert_eq!(stack(session, &[named(c"ink")], &options).unwrap_err(), luna_status::InvalidInput);
    }
    let (mut list, mut name) = (zeroed(), luna_lora_name { size: size_of::<luna_lora_name>(), ..zeroed() });
    assert_eq!(unsafe { luna_list_loras(session, &mut list) }, luna_status::Ok);
    assert_eq!(unsafe { luna_list_lora_name(list, 0, &mut name) }, luna_status::Ok);
    assert_eq!(text(name.name).as_deref(), Some("ink"));
    luna_list_free(list);
    luna_close(session);
}
