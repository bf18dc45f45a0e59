//! What a caller holds on to while calls run. Enters: functions of the caller's, deadlines. Leaves: `luna-core`'s calls.

use crate::{
    error::{Failure, Result},
    handle::{Callback, Caller, boundary, c_string, free, is_none, object},
    status::luna_status,
    table::{self, Object},
    types::luna_call,
};
use luna_core::{Call, CancelToken, Error, ErrorKind, client::CallOptions, protocol::EventKind};
use std::{
    ffi::{c_char, c_void},
    sync::Arc,
    time::{Duration, Instant},
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
    /// After so many milliseconds each call that has this is ended with `LUNA_STATUS_DEADLINE`, counted from its own start,
    /// of a daemon's models from the arrival of its request; 0 for never.
    pub deadline_ms: u64,
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
    deadline: Option<Duration>,
}

impl Object for CallState {
    const NAME: &'static str = "luna_call";
}

/// What watches one call: its own log and the session's.
pub(crate) struct Watch {
    /// Cancelled by the caller, or by its deadline.
    pub(crate) call: Call,
    listener: Option<Callback<Listener>>,
    /// The caller's own token, where there is somebody who could cancel.
    token: Option<CancelToken>,
    deadline: Option<Duration>,
    logs: [Log; 2],
}

/// Runs a call under the watch of a handle that may be none. What its deadline ended says so.
pub(crate) fn watched<T>(call: luna_call, session: Log, work: impl FnOnce(&Watch) -> Result<T>) -> Result<T> {
    let watch = Watch::new(call, session)?;
    work(&watch).map_err(|failure| watch.blamed(failure))
}

impl Watch {
    fn new(call: luna_call, session: Log) -> Result<Self> {
        if is_none(call) {
            let logs = [session, Log::default()];
            return Ok(Self { call: Call::new(), listener: None, token: None, deadline: None, logs });
        }
        let state: Arc<CallState> = object(call)?;
        let until = state.deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        let token = until.map_or_else(|| state.token.clone(), |until| state.token.until(until));
        let mut call = Call::new().cancelled_by(&token);
        if let Some(listener) = state.listener {
            call = call.on_progress(move |progress| {
                (listener.function)(progress.done as u64, progress.total as u64, listener.user_data());
            });
        }
        let (listener, deadline, logs) = (state.listener, state.deadline, [session, state.log]);
        Ok(Self { call, listener, token: Some(state.token.clone()), deadline, logs })
    }

    /// A failure with the deadline as its cause, where it is: what the caller cancelled itself is not.
    fn blamed(&self, failure: Failure) -> Failure {
        let own = self.token.as_ref().is_some_and(CancelToken::is_cancelled);
        if failure.status != luna_status::Cancelled || own || !self.call.cancel_token().is_late() {
            return failure;
        }
        let milliseconds = self.deadline.unwrap_or_default().as_millis();
        let error = Error::new(ErrorKind::Cancelled, "the call's deadline has passed")
            .expected(format!("an answer within {milliseconds} ms"))
            .remedy("give the call more time, or ask for less");
        Failure { status: luna_status::Deadline, error }
    }

    /// The same for a request to a daemon.
    pub(crate) fn request(&self) -> CallOptions {
        let mut options = CallOptions::default();
        if let Some(token) = &self.token {
            options = options.cancelled_by(token);
        }
        if let Some(deadline) = self.deadline {
            options = options.within(deadline);
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
        deadline: (options.deadline_ms > 0).then(|| Duration::from_millis(options.deadline_ms)),
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
