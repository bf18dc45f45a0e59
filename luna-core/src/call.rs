//! What a caller holds on to while a call runs: a token to cancel it, a callback that hears its progress, a watch on its
//! layers.

use crate::LayerTimes;
use luna_kernels::Interrupt;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Cancels calls from another thread. Clones share one state.
///
/// ```
/// let token = luna_core::CancelToken::new();
/// let clone = token.clone();
/// std::thread::spawn(move || clone.cancel()).join().unwrap();
/// assert!(token.is_cancelled());
/// ```
#[derive(Debug, Clone, Default)]
pub struct CancelToken {
    cancelled: Arc<AtomicBool>,
    /// A moment is looked at where the flag is, so that no thread has to watch the clock.
    until: Option<Instant>,
}

impl CancelToken {
    /// A token that nobody has cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks every call that holds this token to stop. They answer with an error of the kind `Cancelled`.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// The same token for a call that nobody waits for after this moment: it counts as cancelled from then on. The token
    /// itself stays as it is.
    ///
    /// ```
    /// use luna_core::CancelToken;
    /// let token = CancelToken::new();
    /// let late = token.until(std::time::Instant::now());
    /// assert!(late.is_cancelled() && late.is_late() && !token.is_cancelled());
    /// ```
    pub fn until(&self, moment: Instant) -> Self {
        let until = self.until.map_or(moment, |earlier| earlier.min(moment));
        Self { cancelled: self.cancelled.clone(), until: Some(until) }
    }

    /// Whether [`CancelToken::cancel`] was called, or the moment of [`CancelToken::until`] has come.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.is_late()
    }

    /// Whether the moment of [`CancelToken::until`] has come.
    pub fn is_late(&self) -> bool {
        self.until.is_some_and(|moment| Instant::now() >= moment)
    }
}

impl Interrupt for CancelToken {
    fn interrupted(&self) -> bool {
        self.is_cancelled()
    }
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Steps done.
    pub done: usize,
    /// Steps in all.
    pub total: usize,
}

type Listener = Arc<dyn Fn(Progress) + Send + Sync>;

/// What a caller may attach to any call: cancellation, progress, times of layers.
#[derive(Clone, Default)]
pub struct Call {
    cancel: CancelToken,
    listener: Option<Listener>,
    times: Option<LayerTimes>,
}

impl Call {
    /// A call that nobody watches.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `token` cancel the call.
    pub fn cancelled_by(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }

    /// Tells `listener` after each step. It is called from the computing thread and should return quickly.
    pub fn on_progress(mut self, listener: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Notes in `times` how long each layer takes.
    pub fn timed_by(mut self, times: &LayerTimes) -> Self {
        self.times = Some(times.clone());
        self
    }

    /// The token of this call.
    pub fn cancel_token(&self) -> &CancelToken {
        &self.cancel
    }

    pub(crate) fn times(&self) -> Option<&LayerTimes> {
        self.times.as_ref()
    }

    pub(crate) fn report(&self, progress: Progress) {
        if let Some(listener) = &self.listener {
            listener(progress);
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call(cancelled: {}, watched: {})", self.cancel.is_cancelled(), self.listener.is_some())
    }
}
