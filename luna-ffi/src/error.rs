//! Errors, as the thread that met them remembers them. Enters: what failed. Leaves: a status, and the words at
//! `luna_last_error`.

use crate::{
    handle::{boundary, c_string},
    status::luna_status,
};
use luna_core::{
    Error, ErrorKind,
    protocol::{Fault, Reason},
};
use std::{
    cell::RefCell,
    ffi::{CString, c_char},
    ptr,
};

crate::handle::records!(luna_error);

/// What went wrong on this thread last. Texts are UTF-8 and belong to Luna; they are valid until another function fails
/// on this thread, or the thread ends. A text that there is nothing to say for is NULL.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_error {
    /// `sizeof(luna_error)`, set by the caller.
    pub size: usize,
    /// The status that the function answered; `LUNA_STATUS_OK` if none has failed on this thread.
    pub status: i32,
    /// What is wrong.
    pub message: *const c_char,
    /// What would have been right.
    pub expected: *const c_char,
    /// What was there instead.
    pub found: *const c_char,
    /// What the caller can do.
    pub remedy: *const c_char,
    /// All of it as one sentence.
    pub text: *const c_char,
}

/// Why a function has no result.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: luna_status,
    pub(crate) error: Error,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let late = Fault::within(&error).is_some_and(|fault| fault.reason == Some(Reason::Deadline));
        let status = if late { luna_status::Deadline } else { luna_status::of(error.kind()) };
        Self { status, error }
    }
}

/// The failure of an argument that the caller can correct.
pub(crate) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

/// A failure's words, as C reads them.
struct Words {
    status: luna_status,
    message: CString,
    expected: Option<CString>,
    found: Option<CString>,
    remedy: Option<CString>,
    text: CString,
}

thread_local! {
    static LAST: RefCell<Option<Words>> = const { RefCell::new(None) };
}

/// Remembers a failure on this thread and gives its status.
pub(crate) fn remember(failure: Failure) -> luna_status {
    let Failure { status, error } = failure;
    let words = Words {
        status,
        message: c_string(error.message()),
        expected: error.expectation().map(c_string),
        found: error.finding().map(c_string),
        remedy: error.advice().map(c_string),
        text: c_string(&error.to_string()),
    };
    // A thread that ends has nobody left to ask.
    let _ = LAST.try_with(|last| *last.borrow_mut() = Some(words));
    status
}

/// What the last function that failed on this thread had to say. Functions that succeed leave it as it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_last_error(error: *mut luna_error) -> luna_status {
    boundary(|caller| {
        let mut out = caller.report(error)?;
        let text = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        let told = LAST.with_borrow(|last| {
            last.as_ref().map(|words| luna_error {
                size: 0,
                status: words.status as i32,
                message: words.message.as_ptr(),
                expected: text(&words.expected),
                found: text(&words.found),
                remedy: text(&words.remedy),
                text: words.text.as_ptr(),
            })
        });
        let none = ptr::null();
        out.put(told.unwrap_or(luna_error {
            size: 0,
            status: 0,
            message: none,
            expected: none,
            found: none,
            remedy: none,
            text: none,
        }));
        Ok(())
    })
}
