//! What callers do wrong: each is a status, and nothing worse.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every pointer here leads to what the header says, or is what the test is about"
)]

use crate::built;
use luna::*;
use std::{
    ffi::{CStr, c_char, c_void},
    mem, ptr, thread,
};

fn zeroed<T>() -> T {
    // SAFETY: used for structs of the header only, of which zeros are a value.
    unsafe { mem::zeroed() }
}

fn session() -> luna_session {
    let mut session = zeroed();
    assert_eq!(unsafe { luna_open(ptr::null(), &mut session) }, luna_status::Ok);
    session
}

fn moonlet(session: luna_session) -> luna_vae {
    let mut vae = zeroed();
    assert_eq!(unsafe { luna_vae_load(session, c"moonlet".as_ptr(), &mut vae) }, luna_status::Ok, "{}", last());
    vae
}

/// What the last error says.
pub fn last() -> String {
    let mut error: luna_error = zeroed();
    error.size = size_of::<luna_error>();
    assert_eq!(unsafe { luna_last_error(&mut error) }, luna_status::Ok);
    if error.text.is_null() {
        return String::new();
    }
    unsafe { CStr::from_ptr(error.text) }.to_str().unwrap().to_owned()
}

fn view(values: &[f32], shape: &[i64]) -> luna_view {
    let mut view: luna_view = zeroed();
    (view.data, view.rank) = (values.as_ptr().cast(), shape.len() as u32);
    view.shape[..shape.len()].copy_from_slice(shape);
    view
}

fn encode(vae: luna_vae, image: &luna_view) -> Result<luna_tensor, luna_status> {
    let mut latent = zeroed();
    match unsafe { luna_vae_encode(vae, image, ptr::null(), &mut latent, ptr::null_mut()) } {
        luna_status::Ok => Ok(latent),
        status => Err(status),
    }
}

#[test]
fn null_is_refused_everywhere() {
    let session = session();
    let vae = moonlet(session);
    let none = ptr::null::<c_void>();
    let out = ptr::null_mut::<c_void>();
    let text: luna_text = zeroed();
    let model: luna_model = zeroed();
    let refused = [
        unsafe { luna_open(none.cast(), out.cast()) },
        unsafe { luna_call_new(none.cast(), out.cast()) },
        unsafe { luna_get_stats(session, out.cast()) },
        unsafe { luna_list_residents(session, out.cast()) },
        unsafe { luna_pin(session, none.cast(), 1) },
        unsafe { luna_unload(session, none.cast(), out.cast()) },
        unsafe { luna_inspect(none.cast(), out.cast()) },
        unsafe { luna_picture_read(none.cast(), out.cast()) },
        unsafe { luna_vae_load(session, none.cast(), out.cast()) },
        unsafe { luna_vae_load_with(session, none.cast(), none.cast(), out.cast()) },
        unsafe { luna_vae_get_info(vae, out.cast()) },
        unsafe { luna_vae_encode(vae, none.cast(), none.cast(), out.cast(), out.cast()) },
        unsafe { luna_vae_decode(vae, none.cast(), none.cast(), out.cast(), out.cast()) },
        unsafe { luna_text_load(session, none.cast(), 1, none.cast(), out.cast()) },
        unsafe { luna_text_list_encoders(text, out.cast()) },
        unsafe { luna_text_tokenize(text, none.cast(), none.cast(), out.cast(), out.cast()) },
        unsafe { luna_text_encode(text, none.cast(), 1, none.cast(), out.cast(), out.cast()) },
        unsafe { luna_text_encode_ids(text, none.cast(), none.cast(), out.cast(), out.cast()) },
        unsafe { luna_model_load(session, none.cast(), none.cast(), out.cast()) },
        unsafe { luna_model_get_info(model, out.cast()) },
        unsafe { luna_model_forward(model, none.cast(), none.cast(), out.cast(), out.cast()) },
        unsafe { luna_model_pooled(model, none.cast(), none.cast(), out.cast()) },
        unsafe { luna_noise_levels(4, out.cast()) },
        unsafe { luna_steps_forget(session, none.cast(), out.cast()) },
        unsafe { luna_text_get_cache_usage(text, out.cast()) },
        unsafe { luna_connect(none.cast(), none.cast(), out.cast()) },
        unsafe { luna_loras_new(session, none.cast(), 1, none.cast(), out.cast()) },
        unsafe { luna_loras_list_files(zeroed(), out.cast()) },
        unsafe { luna_loras_list_adapters(zeroed(), out.cast()) },
        unsafe { luna_loras_list_tags(zeroed(), out.cast()) },
        unsafe { luna_list_loras(session, out.cast()) },
        unsafe { luna_vision_load(session, none.cast(), out.cast()) },
        unsafe { luna_vision_load_with(session, none.cast(), none.cast(), out.cast()) },
        unsafe { luna_vision_get_info(zeroed(), out.cast()) },
        unsafe { luna_vision_encode(zeroed(), none.cast(), 1, none.cast(), out.cast(), out.cast()) },
        unsafe { luna_vision_encode_pixels(zeroed(), none.cast(), none.cast(), out.cast(), out.cast()) },
        unsafe { luna_vlm_load(session, none.cast(), none.cast(), out.cast()) },
        unsafe { luna_vlm_get_info(zeroed(), out.cast()) },
        unsafe { luna_vlm_generate(zeroed(), none.cast(), none.cast(), out.cast(), out.cast()) },
        unsafe { luna_save_submit(session, none.cast(), out.cast()) },
        unsafe { luna_save_list_pictures(session, 0, out.cast()) },
        unsafe { luna_save_list_jobs(session, out.cast()) },
        unsafe { luna_list_count(zeroed(), out.cast()) },
        unsafe { luna_list_resident(zeroed(), 0, out.cast()) },
        unsafe { luna_list_component(zeroed(), 0, out.cast()) },
        unsafe { luna_list_encoder(zeroed(), 0, out.cast()) },
        unsafe { luna_list_token(zeroed(), 0, out.cast()) },
        unsafe { luna_list_problem(zeroed(), 0, out.cast()) },
        unsafe { luna_list_picture(zeroed(), 0, out.cast()) },
        unsafe { luna_list_job(zeroed(), 0, out.cast()) },
        unsafe { luna_list_lora_file(zeroed(), 0, out.cast()) },
        unsafe { luna_list_lora_adapter(zeroed(), 0, out.cast()) },
        unsafe { luna_list_lora_name(zeroed(), 0, out.cast()) },
        unsafe { luna_list_lora_tag(zeroed(), 0, out.cast()) },
        unsafe { luna_list_generated(zeroed(), 0, out.cast()) },
        unsafe { luna_tensor_view(zeroed(), out.cast()) },
        unsafe { luna_tensor_to_dlpack(zeroed(), out.cast()) },
        unsafe { luna_view_from_dlpack(none, out.cast()) },
    ];
    for (at, status) in refused.into_iter().enumerate() {
        assert_eq!(status, luna_status::InvalidInput, "call {at}");
    }
    let mut view: luna_view = zeroed();
    assert_eq!(unsafe { luna_view_from_dlpack(none, &mut view) }, luna_status::InvalidInput);
    assert!(last().contains("the DLManagedTensor is NULL"), "{}", last());
    let empty = luna_view { rank: 4, shape: [1, 8, 8, 3, 0, 0, 0, 0], ..zeroed() };
    assert_eq!(encode(vae, &empty).unwrap_err(), luna_status::InvalidInput);
    assert!(last().contains("no data"), "{}", last());
    assert_eq!((luna_vae_free(vae), luna_close(session)), (luna_status::Ok, luna_status::Ok));
}

#[test]
fn freed_foreign_and_mistaken_handles_are_refused() {
    let session = session();
    let vae = moonlet(session);
    let image = [0.5f32; 8 * 8 * 3];
    let picture = view(&image, &[1, 8, 8, 3]);
    let latent = encode(vae, &picture).unwrap();
    // Of another type.
    let luna_tensor { table, slot, generation } = latent;
    assert_eq!(encode(luna_vae { table, slot, generation }, &picture).unwrap_err(), luna_status::InvalidHandle);
    assert!(last().contains("expected an open luna_vae, found a luna_tensor"), "{}", last());
    assert_eq!(luna_vae_free(luna_vae { table, slot, generation }), luna_status::InvalidHandle);
    // All zero, of no slot, of another copy of the library.
    for wrong in [zeroed(), luna_vae { slot: 1 << 30, ..vae }, luna_vae { table: vae.table ^ 2, ..vae }] {
        assert_eq!(encode(wrong, &picture).unwrap_err(), luna_status::InvalidHandle);
    }
    // Freed twice, used after that.
    assert_eq!((luna_vae_free(vae), luna_vae_free(vae)), (luna_status::Ok, luna_status::InvalidHandle));
    assert_eq!(encode(vae, &picture).unwrap_err(), luna_status::InvalidHandle);
    assert!(last().contains("freed"), "{}", last());
    assert_eq!((luna_tensor_free(latent), luna_tensor_free(latent)), (luna_status::Ok, luna_status::InvalidHandle));
    // A session that is closed while its models are used.
    let vae = moonlet(session);
    assert_eq!((luna_close(session), luna_close(session)), (luna_status::Ok, luna_status::InvalidHandle));
    assert_eq!(luna_tensor_free(encode(vae, &picture).unwrap()), luna_status::Ok);
    assert_eq!(luna_vae_free(vae), luna_status::Ok);
}

#[test]
fn options_of_other_sizes_are_understood_or_refused() {
    let session = session();
    let vae = moonlet(session);
    let image = [0.5f32; 8 * 8 * 3];
    let picture = view(&image, &[1, 8, 8, 3]);
    let mut latent: luna_tensor = zeroed();
    let mut run = |options: *const luna_encode_options| unsafe {
        luna_vae_encode(vae, &picture, options, &mut latent, ptr::null_mut())
    };
    let mut options: luna_encode_options = zeroed();
    assert_eq!(run(&options), luna_status::InvalidInput);
    assert!(last().contains("set `size` to sizeof(luna_encode_options)"), "{}", last());
    // A program with an older header has fewer fields.
    options.size = mem::offset_of!(luna_encode_options, sizes);
    options.sizes = 77;
    assert_eq!(run(&options), luna_status::Ok);
    // One with a newer header has more: fine as long as they are not set.
    #[repr(C)]
    struct Newer(luna_encode_options, [u64; 2]);
    let mut newer = Newer(zeroed(), [0, 0]);
    newer.0.size = size_of::<Newer>();
    assert_eq!(run((&raw const newer).cast()), luna_status::Ok);
    newer.1[1] = 1;
    assert_eq!(run((&raw const newer).cast()), luna_status::Unsupported);
    assert!(last().contains("use a library at least as new as the header"), "{}", last());
    // Numbers that are none.
    for wrong in [
        luna_encode_options { precision: 9, ..zeroed() },
        luna_encode_options { tiling: -1, ..zeroed() },
        luna_encode_options { tile: 32, ..zeroed() },
        luna_encode_options { sizes: 3, ..zeroed() },
    ] {
        let options = luna_encode_options { size: size_of::<luna_encode_options>(), ..wrong };
        assert_eq!(run(&options), luna_status::InvalidInput);
    }
    // A report of an older program is not written past its end.
    let mut report = [u64::MAX; 16];
    report[0] = 16;
    let target = report.as_mut_ptr().cast::<luna_report>();
    assert_eq!(unsafe { luna_vae_encode(vae, &picture, ptr::null(), &mut latent, target) }, luna_status::Ok);
    assert_eq!((report[0], report[1], report[2]), (16, 0, u64::MAX));
    luna_vae_free(vae);
    luna_close(session);
}

#[test]
fn impossible_arrays_are_refused_before_they_are_looked_at() {
    let session = session();
    let vae = moonlet(session);
    let image = [0.5f32; 8 * 8 * 3];
    let good = view(&image, &[1, 8, 8, 3]);
    let huge = i64::MAX / 2;
    let wrong = [
        luna_view { rank: 9, ..good },
        luna_view { dtype: 99, ..good },
        luna_view { dtype: luna_dtype::Bool as i32, ..good },
        luna_view { rank: 3, ..good },
        luna_view { shape: [1, -8, 8, 3, 0, 0, 0, 0], ..good },
        luna_view { shape: [huge, huge, huge, 3, 0, 0, 0, 0], ..good },
        luna_view { strided: 1, strides: [huge; 8], ..good },
        luna_view { shape: [1, 8, 8, 2, 0, 0, 0, 0], ..good },
    ];
    for (at, view) in wrong.iter().enumerate() {
        let status = encode(vae, view).unwrap_err();
        assert!(matches!(status, luna_status::InvalidInput | luna_status::LimitExceeded), "{at}: {status:?}");
    }
    let not_a_number = [f32::NAN; 8 * 8 * 3];
    assert_eq!(encode(vae, &view(&not_a_number, &[1, 8, 8, 3])).unwrap_err(), luna_status::NonFinite);
    luna_vae_free(vae);
    luna_close(session);
}

#[test]
fn lists_tell_what_they_hold_and_where_they_end() {
    let session = session();
    let vae = moonlet(session);
    let mut list: luna_list = zeroed();
    assert_eq!(unsafe { luna_list_residents(session, &mut list) }, luna_status::Ok);
    let mut resident: luna_resident = zeroed();
    resident.size = size_of::<luna_resident>();
    assert_eq!(unsafe { luna_list_resident(list, 0, &mut resident) }, luna_status::Ok);
    let id = unsafe { CStr::from_ptr(resident.id) }.to_owned();
    assert_eq!((id.as_bytes().len(), resident.leases), (64, 1));
    assert_eq!(unsafe { luna_list_resident(list, 1, &mut resident) }, luna_status::NotFound);
    let mut token: luna_token = zeroed();
    token.size = size_of::<luna_token>();
    assert_eq!(unsafe { luna_list_token(list, 0, &mut token) }, luna_status::InvalidInput);
    assert!(last().contains("expected a list of luna_token, found a list of luna_resident"), "{}", last());
    let mut fate = -1;
    assert_eq!(unsafe { luna_unload(session, id.as_ptr(), &mut fate) }, luna_status::Ok);
    assert_eq!(fate, luna_unloaded::WhenReturned as i32);
    assert_eq!(unsafe { luna_unload(session, id.as_ptr(), &mut fate) }, luna_status::NotFound);
    luna_list_free(list);
    luna_vae_free(vae);
    luna_close(session);
}

#[test]
fn threads_may_free_what_others_use() {
    let session = session();
    let vae = moonlet(session);
    let (mut worked, mut refused) = (0, 0);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    let image = [0.5f32; 8 * 8 * 3];
                    let mut counts = (0, 0);
                    for _ in 0..40 {
                        match encode(vae, &view(&image, &[1, 8, 8, 3])) {
                            Ok(latent) => {
                                counts.0 += 1;
                                assert_eq!(luna_tensor_free(latent), luna_status::Ok);
                            }
                            Err(luna_status::InvalidHandle) => counts.1 += 1,
                            Err(other) => panic!("{other:?}: {}", last()),
                        }
                    }
                    counts
                })
            })
            .collect();
        scope.spawn(move || {
            thread::sleep(std::time::Duration::from_millis(100));
            assert_eq!(luna_vae_free(vae), luna_status::Ok);
            assert_eq!(luna_close(session), luna_status::Ok);
        });
        for worker in workers {
            let (ok, gone) = worker.join().unwrap();
            (worked, refused) = (worked + ok, refused + gone);
        }
    });
    assert_eq!(worked + refused, 160);
}

/// In a process of its own, where nothing else comes and goes.
#[cfg(target_os = "linux")]
#[test]
fn ten_thousand_sessions_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let source = luna_tests::workspace::root().join("luna-ffi/tests/abi/cycles.c");
    let program = folder.path().join("cycles");
    let compiler = built::present(&["gcc", "clang", "cc"])[0];
    built::build(&mut built::compiler(compiler, "c99"), &source, &program);
    let told = built::run(&mut std::process::Command::new(program));
    println!("{told}");
    let numbers: Vec<u64> = told.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    let [grown, cycles, handles] = numbers[..] else { panic!("{told}") };
    // An allocator keeps some pages; a leak of a hundred bytes each would be 1000 KiB.
    assert!(cycles == 10_000 && handles == 0 && grown < 1000, "{told}");
}

#[test]
fn texts_that_are_not_utf8_are_refused() {
    let session = session();
    let mut vae: luna_vae = zeroed();
    let path = [0xffu8, 0xfe, 0];
    let status = unsafe { luna_vae_load(session, path.as_ptr().cast::<c_char>(), &mut vae) };
    assert_eq!(status, luna_status::InvalidInput);
    assert!(last().contains("UTF-8"), "{}", last());
    assert_eq!(unsafe { luna_vae_load(session, c"/nowhere/at/all".as_ptr(), &mut vae) }, luna_status::NotFound);
    luna_close(session);
}
