//! What a caller holds on to while calls run. Enters: functions of the caller's. Leaves: `luna-core`'s calls.

use crate::{
    error::Result,
    handle::{Callback, Caller, boundary, c_string, free, is_none, object},
    status::luna_status,
    table::{self, Object},
    types::luna_call,
};
use luna_core::{Call, CancelToken, client::CallOptions, protocol::EventKind};
use std::{
    ffi::{c_char, c_void},
    sync::Arc,
};

crate::handle::records!(luna_call_options);

/// Hears how far a call has come: `done` of `total` steps. Called from Luna's threads; should return quickly, and must
/// neither throw nor leave by `longjmp`.
pub type luna_progress_function = Option<extern "C-unwind" fn(done: u64, total: u64, user_data: *mut c_void)>;

/// Hears what Luna did, one line at a time: loads, fallbacks, retries. `level` is a `luna_log_level`; `message` is valid
/// while the function runs. Called from any thread; should return quickly, and must neither throw nor leave by
/// `longjmp`.
pub type luna_log_function = Option<extern "C-unwind" fn(level: i32, message: *const c_char, user_data: *mut c_void)>;

/// How much a line of the log matters.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_log_level {
    /// Something was done as asked.
    Info = 0,
    /// Something was done otherwise than asked.
    Warning = 1,
    /// Something failed.
    Error = 2,
}

/// Options of `luna_call_new`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_call_options {
    /// `sizeof(luna_call_options)`.
    pub size: usize,
    /// Hears the progress of every call; may be NULL.
    pub progress: luna_progress_function,
    /// Hears what these calls did; may be NULL. The session's log hears it, too.
    pub log: luna_log_function,
    /// Handed to both functions.
    pub user_data: *mut c_void,
}

type Logger = extern "C-unwind" fn(i32, *const c_char, *mut c_void);
type Listener = extern "C-unwind" fn(u64, u64, *mut c_void);

/// Where lines go.
#[derive(Clone, Copy, Default)]
pub(crate) struct Log(Option<Callback<Logger>>);

impl Log {
    pub(crate) fn new(function: luna_log_function, user_data: *mut c_void) -> Self {
        Self(Callback::new(function, user_data))
    }

    pub(crate) fn tell(&self, level: luna_log_level, message: &str) {
        if let Some(callback) = &self.0 {
            (callback.function)(level as i32, c_string(message).as_ptr(), callback.user_data());
        }
    }
}

/// The object behind `luna_call`.
pub(crate) struct CallState {
    token: CancelToken,
    listener: Option<Callback<Listener>>,
    log: Log,
}

impl Object for CallState {
    const NAME: &'static str = "luna_call";
}

/// What watches one call: its own log and the session's.
pub(crate) struct Watch {
    pub(crate) call: Call,
    listener: Option<Callback<Listener>>,
    /// Whether there is somebody who could cancel.
    watched: bool,
    logs: [Log; 2],
}

impl Watch {
    /// Of a handle that may be none.
    pub(crate) fn new(call: luna_call, session: Log) -> Result<Self> {
        if is_none(call) {
            return Ok(Self { call: Call::new(), listener: None, watched: false, logs: [session, Log::default()] });
        }
        let state: Arc<CallState> = object(call)?;
        let mut call = Call::new().cancelled_by(&state.token);
        if let Some(listener) = state.listener {
            call = call.on_progress(move |progress| {
                (listener.function)(progress.done as u64, progress.total as u64, listener.user_data());
            });
        }
        Ok(Self { call, listener: state.listener, watched: true, logs: [session, state.log] })
    }

    /// The same for a request to a daemon.
    pub(crate) fn request(&self) -> CallOptions {
        let mut options = CallOptions::default();
        if self.watched {
            options = options.cancelled_by(self.call.cancel_token());
        }
        match self.listener {
            Some(listener) => options.on_event(move |event| {
                if let EventKind::Progress { done, total } = event.kind {
                    (listener.function)(done, total, listener.user_data());
                }
            }),
            None => options,
        }
    }

    pub(crate) fn tell(&self, level: luna_log_level, message: &str) {
        self.logs.iter().for_each(|log| log.tell(level, message));
    }

    /// Tells what was done otherwise than asked for.
    pub(crate) fn warn(&self, what: &str, fallback: &impl std::fmt::Display) {
        self.tell(luna_log_level::Warning, &format!("{what}: {fallback}"));
    }
}

fn new_call(caller: &Caller, options: *const luna_call_options) -> Result<CallState> {
    let options = caller.options(options)?;
    Ok(CallState {
        token: CancelToken::new(),
        listener: Callback::new(options.progress, options.user_data),
        log: Log::new(options.log, options.user_data),
    })
}

/// Makes something to watch and cancel calls with. Put it into the options of any number of calls, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_call_new(options: *const luna_call_options, call: *mut luna_call) -> luna_status {
    boundary(|caller| {
        let place = caller.output("call", call)?;
        place.put(table::insert(new_call(caller, options)?));
        Ok(())
    })
}

/// Asks every call that has this in its options to stop, those to come among them: they answer
/// `LUNA_STATUS_CANCELLED`. May be called from a callback.
#[unsafe(no_mangle)]
pub extern "C" fn luna_call_cancel(call: luna_call) -> luna_status {
    boundary(|_| {
        object::<CallState>(call)?.token.cancel();
        Ok(())
    })
}

/// Frees it. Calls that run go on, and still call its functions.
#[unsafe(no_mangle)]
pub extern "C" fn luna_call_free(call: luna_call) -> luna_status {
    free::<CallState>(call)
}
