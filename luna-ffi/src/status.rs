//! Statuses: what every function answers. Enters: an error's kind. Leaves: its number and name.

use luna_core::ErrorKind;
use std::ffi::{CStr, c_char};

/// What a function answers: `LUNA_STATUS_OK`, or whose fault it is that there is no result. A number never changes its
/// meaning, and one that is no longer used is never given to something else. Treat a number that you do not know as
/// `LUNA_STATUS_INTERNAL`.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_status {
    /// Done.
    Ok = 0,
    /// An argument is wrong: shape, range, combination, NULL. The caller can correct it.
    InvalidInput = 1,
    /// A file is damaged or hostile.
    InvalidFile = 2,
    /// The file is sound, but Luna has no use for it; or this build of the library cannot do what was asked.
    Unsupported = 3,
    /// No such file, model, LoRA, job or tensor.
    NotFound = 4,
    /// The system refused: permissions, disk full, connection lost.
    Io = 5,
    /// Something from outside is larger than the limit that was set for it.
    LimitExceeded = 6,
    /// Memory did not suffice.
    OutOfMemory = 7,
    /// The caller cancelled.
    Cancelled = 8,
    /// Too much is waiting already; try again later.
    Busy = 9,
    /// The input or the result holds NaN or infinity.
    NonFinite = 10,
    /// The device is missing or failed.
    Device = 11,
    /// A fault of Luna's own. Please report it.
    Internal = 12,
    /// The handle was freed, was never given, belongs to another copy of the library, or is of another type.
    InvalidHandle = 100,
    /// The deadline of `luna_call_options` passed before the call was done.
    Deadline = 101,
}

impl luna_status {
    /// Every status.
    pub(crate) const ALL: [Self; 15] = [
        Self::Ok,
        Self::InvalidInput,
        Self::InvalidFile,
        Self::Unsupported,
        Self::NotFound,
        Self::Io,
        Self::LimitExceeded,
        Self::OutOfMemory,
        Self::Cancelled,
        Self::Busy,
        Self::NonFinite,
        Self::Device,
        Self::Internal,
        Self::InvalidHandle,
        Self::Deadline,
    ];

    pub(crate) fn of(kind: ErrorKind) -> Self {
        Self::ALL.into_iter().find(|status| *status as i32 == kind.code()).unwrap_or(Self::Internal)
    }

    pub(crate) const fn name(self) -> &'static CStr {
        match self {
            Self::Ok => c"ok",
            Self::InvalidInput => c"invalid_input",
            Self::InvalidFile => c"invalid_file",
            Self::Unsupported => c"unsupported",
            Self::NotFound => c"not_found",
            Self::Io => c"io",
            Self::LimitExceeded => c"limit_exceeded",
            Self::OutOfMemory => c"out_of_memory",
            Self::Cancelled => c"cancelled",
            Self::Busy => c"busy",
            Self::NonFinite => c"non_finite",
            Self::Device => c"device",
            Self::Internal => c"internal",
            Self::InvalidHandle => c"invalid_handle",
            Self::Deadline => c"deadline",
        }
    }
}

/// The name of a status in snake case, such as `not_found`; `unknown` for a number that is none. Valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn luna_status_name(status: i32) -> *const c_char {
    let known = luna_status::ALL.into_iter().find(|known| *known as i32 == status);
    known.map_or(c"unknown", luna_status::name).as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_the_librarys_kinds_and_bear_their_names() {
        for kind in ErrorKind::ALL {
            let status = luna_status::of(kind);
            assert_eq!((status as i32, status.name().to_str().unwrap()), (kind.code(), kind.name()));
        }
    }
}
