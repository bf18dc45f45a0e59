//! The library as a plugin host has it: loaded at run time, also twice.

use crate::built;
use std::{mem, path::Path, ptr};

#[path = "../../../examples/rust/load_at_run_time.rs"]
mod example;

#[test]
fn the_example_loads_the_library() {
    assert_eq!(example::use_library(&built::library()).unwrap(), env!("CARGO_PKG_VERSION"));
    assert!(example::use_library(Path::new("no/such/library.so")).is_err());
}

#[repr(C)]
#[derive(Clone, Copy, PartialEq, Debug)]
struct Handle([u64; 2]);

type Open = unsafe extern "C" fn(*const (), *mut Handle) -> i32;
type Close = extern "C" fn(Handle) -> i32;

/// Two versions in one process: neither knows the other's handles.
#[test]
fn two_copies_in_one_process_keep_apart() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("another_version.so");
    std::fs::copy(built::library(), &copy).unwrap();
    // SAFETY: libluna runs nothing when it is loaded; the types are those of the header.
    unsafe {
        let libraries = [built::library(), copy].map(|path| libloading::Library::new(path).unwrap());
        let open = libraries.each_ref().map(|library| *library.get::<Open>(b"luna_open\0").unwrap());
        let close = libraries.each_ref().map(|library| *library.get::<Close>(b"luna_close\0").unwrap());
        let sessions = open.map(|open| {
            let mut session: Handle = mem::zeroed();
            assert_eq!(open(ptr::null(), &mut session), 0);
            session
        });
        assert_ne!(sessions[0], sessions[1]);
        assert_eq!([close[0](sessions[1]), close[1](sessions[0])], [100, 100]);
        assert_eq!([close[0](sessions[0]), close[1](sessions[1])], [0, 0]);
        // Threads of a library may outlive its last session by a moment.
        libraries.into_iter().for_each(mem::forget);
    }
}
