//! A call's deadline on a daemon, through the C ABI: the daemon ends the request, and the status says why.

#![allow(clippy::undocumented_unsafe_blocks, reason = "every pointer here leads to what the header says")]

use crate::Daemon;
use luna::*;
use luna_tests::conformance::Files;
use std::{
    ffi::{CStr, CString},
    mem, ptr,
};

fn zeroed<T>() -> T {
    // SAFETY: used for structs of the header only, of which zeros are a value.
    unsafe { mem::zeroed() }
}

#[test]
fn a_deadline_crosses_the_wire() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::write(folder.path());
    let daemon = Daemon::start(&files, "deadline");
    let (address, mut session, mut vae) = (CString::new(&*daemon.address).unwrap(), zeroed(), zeroed());
    assert_eq!(unsafe { luna_connect(address.as_ptr(), ptr::null(), &mut session) }, luna_status::Ok);
    assert_eq!(unsafe { luna_vae_load(session, c"moonlet".as_ptr(), &mut vae) }, luna_status::Ok);
    let pixels = vec![0.5f32; 512 * 512 * 3];
    let encode = |side: i64, deadline_ms: u64| {
        let options = luna_call_options { size: size_of::<luna_call_options>(), deadline_ms, ..zeroed() };
        let mut call = zeroed();
        assert_eq!(unsafe { luna_call_new(&options, &mut call) }, luna_status::Ok);
        let shape = [1, side, side, 3, 0, 0, 0, 0];
        let image = luna_view { data: pixels.as_ptr().cast(), rank: 4, shape, ..zeroed() };
        let options = luna_encode_options { size: size_of::<luna_encode_options>(), call, ..zeroed() };
        let mut latent = zeroed();
        let status = unsafe { luna_vae_encode(vae, &image, &options, &mut latent, ptr::null_mut()) };
        assert_eq!(luna_call_free(call), luna_status::Ok);
        if status == luna_status::Ok {
            assert_eq!(luna_tensor_free(latent), luna_status::Ok);
        }
        status
    };
    assert_eq!(encode(512, 5), luna_status::Deadline);
    let mut error = luna_error { size: size_of::<luna_error>(), ..zeroed() };
    assert_eq!(unsafe { luna_last_error(&mut error) }, luna_status::Ok);
    let text = unsafe { CStr::from_ptr(error.text) }.to_str().unwrap();
    assert!(text.contains("deadline has passed") && text.contains("within 5 ms"), "{text}");
    assert_eq!(encode(16, 600_000), luna_status::Ok, "the daemon works on");
    assert_eq!([luna_vae_free(vae), luna_close(session)], [luna_status::Ok; 2]);
}
