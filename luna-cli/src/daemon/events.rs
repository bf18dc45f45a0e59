//! What happens in a daemon. Enters: events. Leaves: a line of the log for each, and what concerns the workers to those who
//! watch, none of whom can hold the daemon up.

use std::sync::{
    Mutex, PoisonError,
    mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
};
use tracing::{debug, error, info, warn};

/// Events that a listener may have waiting.
const BACKLOG: usize = 1024;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum DaemonEvent {
    /// A client's connection was accepted and shook hands.
    Connected { connection: u64, client: String },
    /// It ended.
    Disconnected { connection: u64, client: String },
    /// A worker was started or ended.
    Scaled(Scaled),
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

/// A worker of a pool was started or ended.
#[derive(Debug, Clone, Copy)]
pub struct Scaled {
    pub pool: &'static str,
    pub up: bool,
    pub worker: usize,
    /// Workers afterwards.
    pub workers: usize,
}

/// The listeners.
#[derive(Default)]
pub struct Events(Mutex<Vec<SyncSender<Scaled>>>);

impl Events {
    /// Every worker that is started or ended from now on. A receiver that does not keep up loses events.
    pub fn subscribe(&self) -> Receiver<Scaled> {
        let (sender, receiver) = sync_channel(BACKLOG);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Whether answers are of interest to anybody, so that nothing is made for nobody.
    pub fn are_heard(&self) -> bool {
        tracing::enabled!(tracing::Level::WARN)
    }

    pub fn tell(&self, event: DaemonEvent) {
        log(&event);
        let DaemonEvent::Scaled(scaled) = event else { return };
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| !matches!(listener.try_send(scaled), Err(TrySendError::Disconnected(_))));
    }
}

fn log(event: &DaemonEvent) {
    match event {
        DaemonEvent::Connected { connection, client } => info!(connection, client, "connected"),
        DaemonEvent::Disconnected { connection, client } => info!(connection, client, "disconnected"),
        DaemonEvent::Scaled(Scaled { pool, up, worker, workers }) => {
            info!(pool, worker, workers, "{}", if *up { "worker started" } else { "worker ended" });
        }
        DaemonEvent::Answered { connection, client, request, command, queue_ms, compute_ms, fallbacks, fault } => {
            let fallbacks = fallbacks.join(" ");
            // One line for each level: the level of a line is decided where it stands.
            macro_rules! answered {
                ($level:ident, $message:literal $(, $fault:ident)?) => {
                    $level!(connection, client, request, command, queue_ms, compute_ms, fallbacks, $($fault,)? $message)
                };
            }
            match fault.as_deref() {
                None if fallbacks.is_empty() => answered!(info, "answered"),
                None => answered!(warn, "answered otherwise than asked for"),
                Some(fault @ "internal") => answered!(error, "failed", fault),
                Some(fault @ ("busy" | "cancelled")) => answered!(debug, "refused", fault),
                Some(fault) => answered!(warn, "refused", fault),
            }
        }
        DaemonEvent::Saved { job, state, pictures } if *state == "failed" => warn!(job, pictures, "saving failed"),
        DaemonEvent::Saved { job, state, pictures } => info!(job, state, pictures, "saved"),
        DaemonEvent::Draining => info!("draining"),
    }
}
