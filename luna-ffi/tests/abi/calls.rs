//! Calls that end before they are done: by their deadline, by their caller, by a listener that throws; and what C++ asks for.

#![allow(clippy::undocumented_unsafe_blocks, reason = "every pointer here leads to what the header says")]

use crate::{built, misuse::last, programs};
use luna::*;
use luna_tests::conformance;
use std::{mem, path::PathBuf, process::Command, ptr, time::Instant};

fn zeroed<T>() -> T {
    // SAFETY: used for structs of the header only, of which zeros are a value.
    unsafe { mem::zeroed() }
}

fn call(deadline_ms: u64) -> luna_call {
    let options = luna_call_options { size: size_of::<luna_call_options>(), deadline_ms, ..zeroed() };
    let mut call = zeroed();
    assert_eq!(unsafe { luna_call_new(&options, &mut call) }, luna_status::Ok);
    call
}

#[test]
fn a_deadline_ends_each_call_with_a_status_of_its_own() {
    let (mut session, mut vae) = (zeroed(), zeroed());
    assert_eq!(unsafe { luna_open(ptr::null(), &mut session) }, luna_status::Ok);
    assert_eq!(unsafe { luna_vae_load(session, c"moonlet".as_ptr(), &mut vae) }, luna_status::Ok);
    let pixels = vec![0.5f32; 768 * 768 * 3];
    let encode = |side: i64, call: luna_call| {
        let shape = [1, side, side, 3, 0, 0, 0, 0];
        let image = luna_view { data: pixels.as_ptr().cast(), rank: 4, shape, ..zeroed() };
        let options = luna_encode_options { size: size_of::<luna_encode_options>(), call, ..zeroed() };
        let mut latent = zeroed();
        let status = unsafe { luna_vae_encode(vae, &image, &options, &mut latent, ptr::null_mut()) };
        if status == luna_status::Ok {
            assert_eq!(luna_tensor_free(latent), luna_status::Ok);
        }
        status
    };
    let start = Instant::now();
    assert_eq!(encode(768, luna_call::NONE), luna_status::Ok);
    let whole = start.elapsed();
    let (short, long) = (call(1), call(600_000));
    let start = Instant::now();
    assert_eq!(encode(768, short), luna_status::Deadline);
    assert!(start.elapsed() < whole, "{:?} of {whole:?}", start.elapsed());
    assert!(last().contains("the call's deadline has passed: expected an answer within 1 ms"), "{}", last());
    // It counts for each call anew, and what the caller ends itself is no deadline.
    assert_eq!([encode(16, long), encode(16, long)], [luna_status::Ok; 2]);
    assert_eq!(luna_call_cancel(long), luna_status::Ok);
    assert_eq!(encode(16, long), luna_status::Cancelled);
    assert_eq!(luna_call_cancel(short), luna_status::Ok);
    assert_eq!(encode(768, short), luna_status::Cancelled);
    // A moment that no clock can tell never comes.
    let never = call(u64::MAX);
    assert_eq!(encode(16, never), luna_status::Ok);
    assert_eq!([short, long, never].map(|call| luna_call_free(call)), [luna_status::Ok; 3]);
    assert_eq!([luna_vae_free(vae), luna_close(session)], [luna_status::Ok; 2]);
}

/// What a program in C++ of this folder tells, built with the sanitizers where there are some.
fn sanitized(name: &str, arguments: &[PathBuf]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let source = luna_tests::workspace::root().join(format!("luna-ffi/tests/abi/{name}.cpp"));
    let program = folder.path().join(name);
    let mut compiler = built::compiler(built::present(&["g++", "clang++", "c++"])[0], "c++17");
    if cfg!(target_os = "linux") {
        compiler.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
    }
    built::build(&mut compiler, &source, &program);
    built::run(Command::new(&program).args(arguments))
}

#[test]
fn cpp_asks_for_all_that_the_header_has() {
    let folder = tempfile::tempdir().unwrap();
    let loras = programs::lora(folder.path()).parent().unwrap().to_owned();
    let told = sanitized("asks", &[loras, conformance::vlm(folder.path())]);
    assert_eq!(told.lines().count(), 10, "{told}");
    assert!(told.lines().all(|line| line.ends_with(": yes")), "{told}");
}

/// In C++, under the sanitizers where there are some: what a listener throws is what the caller catches, the work ends,
/// and nothing is left behind.
#[test]
fn what_listeners_in_cpp_throw_is_carried_to_the_caller() {
    let folder = tempfile::tempdir().unwrap();
    let told = sanitized("throws", &[conformance::vlm(folder.path())]);
    assert_eq!(told, "progress: 3 of several\npiece: 2 pieces\nlast piece: 1 pieces\nan int: 7\n0 handles left\n");
}
