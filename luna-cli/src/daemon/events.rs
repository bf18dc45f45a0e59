//! What happens in a daemon, for those who watch it. Enters: events. Leaves: the same to every listener, none of whom can
//! hold the daemon up.

use serde::Serialize;
use std::sync::{
    Mutex, PoisonError,
    mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
};

/// Events that a listener may have waiting.
const BACKLOG: usize = 1024;

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DaemonEvent {
    /// A client's connection was accepted and shook hands.
    Connected { connection: u64, client: String },
    /// It ended.
    Disconnected { connection: u64, client: String },
    /// A worker was started or ended.
    Scaled { pool: &'static str, up: bool, worker: usize, workers: usize },
    /// A request was answered; `fault` is the reason's or kind's name.
    Answered {
        connection: u64,
        client: String,
        request: u64,
        command: &'static str,
        queue_ms: f64,
        compute_ms: f64,
        fallbacks: Vec<String>,
        fault: Option<String>,
    },
    /// A save job is finished: how it ended, and its pictures.
    Saved { job: String, state: &'static str, pictures: usize },
    /// No new work is taken.
    Draining,
}

/// The listeners.
#[derive(Default)]
pub struct Events(Mutex<Vec<SyncSender<DaemonEvent>>>);

impl Events {
    pub fn subscribe(&self) -> Receiver<DaemonEvent> {
        let (sender, receiver) = sync_channel(BACKLOG);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Whether anybody listens, so that nothing is made for nobody.
    pub fn are_heard(&self) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub fn tell(&self, event: DaemonEvent) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| !matches!(listener.try_send(event.clone()), Err(TrySendError::Disconnected(_))));
    }
}
