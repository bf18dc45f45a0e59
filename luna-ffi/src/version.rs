//! Which library this is. Enters: nothing. Leaves: numbers and a name that never change while it is loaded.

use std::ffi::{CStr, c_char};

/// The ABI that this header describes. Another major number means that functions, numbers or structs changed their
/// meaning; a higher minor number, that there are more of them.
pub const LUNA_ABI_MAJOR: u32 = 1;

/// See `LUNA_ABI_MAJOR`.
pub const LUNA_ABI_MINOR: u32 = 3;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(text) => text,
    Err(_) => c"",
};

/// The ABI of the loaded library: the major number in the upper 16 bits, the minor one in the lower. A program built
/// with this header can use the library if the major numbers are equal and the library's minor number is not below
/// `LUNA_ABI_MINOR`.
#[unsafe(no_mangle)]
pub extern "C" fn luna_abi_version() -> u32 {
    LUNA_ABI_MAJOR << 16 | LUNA_ABI_MINOR
}

/// The version of the library, such as `0.1.0`; valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn luna_version() -> *const c_char {
    VERSION.as_ptr()
}
