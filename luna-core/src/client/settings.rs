//! What a caller may set about a client and about a call.

use crate::{
    CancelToken,
    protocol::{Event, FrameLimits},
};
use std::{sync::Arc, time::Duration};

/// Settings of a [`super::Client`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientSettings {
    /// Who this is; connections of one name count as one client to the daemon.
    pub name: Option<String>,
    /// The daemon's token, where it asks for one.
    pub token: Option<String>,
    /// How long [`super::Client::connect`] tries: not at all again by default.
    pub connect_for: Duration,
    /// How long a call tries to connect anew, and to be taken by a daemon that drains: 10 s by default.
    pub reconnect_for: Duration,
    /// Whether a call tries again where the daemon is busy, for as long as it would reconnect: no by default.
    pub wait_when_busy: bool,
    /// Whether tensors go through shared memory where the daemon is on this machine and the system can: yes by default.
    pub shared_memory: bool,
    /// Bounds for frames that come.
    pub frames: FrameLimits,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            name: None,
            token: None,
            connect_for: Duration::ZERO,
            reconnect_for: Duration::from_secs(10),
            wait_when_busy: false,
            shared_memory: true,
            frames: FrameLimits::of_bytes(u64::from(u32::MAX)),
        }
    }
}

type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

/// What a caller holds on to while a call runs.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct CallOptions {
    /// After this time the caller has no use for an answer.
    pub deadline: Option<Duration>,
    /// Cancels the request.
    pub cancel: Option<CancelToken>,
    /// Hears of progress and of pieces of text.
    pub on_event: Option<Listener>,
}

impl CallOptions {
    /// Gives up after this time.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Lets this token cancel the request.
    pub fn cancelled_by(mut self, token: &CancelToken) -> Self {
        self.cancel = Some(token.clone());
        self
    }

    /// Calls this with every event, from the thread that reads the connection.
    pub fn on_event(mut self, listener: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(listener));
        self
    }
}

impl std::fmt::Debug for CallOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CallOptions(deadline {:?}, watched: {})", self.deadline, self.on_event.is_some())
    }
}
