//! Loads libluna at run time, as a plugin host does, and asks it for its version and a session.

use std::{
    error::Error,
    ffi::{CStr, c_char, c_void},
    path::Path,
    ptr,
};

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Session {
    table: u64,
    slot: u32,
    generation: u32,
}

type AbiVersion = extern "C" fn() -> u32;
type Version = extern "C" fn() -> *const c_char;
type Open = unsafe extern "C" fn(*const c_void, *mut Session) -> i32;
type Close = extern "C" fn(Session) -> i32;

/// Gives the version of the library at `path`.
pub fn use_library(path: &Path) -> Result<String, Box<dyn Error>> {
    // SAFETY: libluna runs nothing when it is loaded, and the types are those of luna.h.
    unsafe {
        let library = libloading::Library::new(path)?;
        let abi = library.get::<AbiVersion>(b"luna_abi_version\0")?();
        if abi >> 16 != 1 {
            return Err(format!("this program is for ABI 1, the library has {}.{}", abi >> 16, abi & 0xffff).into());
        }
        let mut session = Session::default();
        let opened = library.get::<Open>(b"luna_open\0")?(ptr::null(), &mut session);
        let closed = library.get::<Close>(b"luna_close\0")?(session);
        let version = CStr::from_ptr(library.get::<Version>(b"luna_version\0")?()).to_str()?;
        assert_eq!((opened, closed), (0, 0));
        Ok(version.to_owned())
    }
}

#[allow(dead_code, reason = "the tests call use_library")]
fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: load_at_run_time LIBRARY")?;
    println!("libluna {}", use_library(Path::new(&path))?);
    Ok(())
}
