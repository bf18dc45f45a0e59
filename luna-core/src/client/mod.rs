//! A blocking client of a daemon. Enters: an address, requests as values. Leaves: replies as values. It speaks
//! [`crate::protocol`] and knows no model.
//!
//! One connection carries any number of requests at once: a [`Client`] may be used by many threads, and
//! [`Client::start`] sends a request without waiting for its answer. A connection that is lost is made anew, and what
//! is idempotent is asked again.

mod answer;
mod connection;
mod diffusion;
mod lora;
mod models;
mod save;
mod settings;
mod text;
mod vae;
mod vision;

pub use answer::{Answer, Pending};
pub use settings::{CallOptions, ClientSettings};
pub use text::TextEncodings;
pub use vision::{VisionFeatures, chat_turns};

use crate::{
    AttentionMode, CancelToken, Error, ErrorKind, Result,
    protocol::{Cancel, Command, Event, Fault, Ping, Reason, RequestHead, SetAttentionMode, TensorRef},
};
use connection::Connection;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

/// How long a client waits before it tries again; doubled each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How often a cancelled token is looked for.
const CANCEL_POLL: Duration = Duration::from_millis(20);

/// A client of a daemon.
///
/// ```no_run
/// use luna_core::{Image, client::{Client, ClientSettings}, protocol::VaeEncode};
/// let client = Client::connect("127.0.0.1:19283", ClientSettings::default())?;
/// client.ping()?;
/// let grey = Image::new([1, 64, 64, 3], vec![0.5; 64 * 64 * 3])?;
/// let options = VaeEncode { vae: Some("moonlet".to_owned()), ..VaeEncode::default() };
/// let (latent, answer) = client.vae_encode(&grey, &options, &Default::default())?;
/// println!("{:?}, waited {} ms", latent.shape(), answer.head.queue_ms);
/// # Ok::<(), luna_core::Error>(())
/// ```
pub struct Client {
    address: String,
    settings: ClientSettings,
    connection: Mutex<Option<Arc<Connection>>>,
    /// What a new connection has to be told.
    attention: Mutex<Option<AttentionMode>>,
}

impl Client {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// `Io` if nobody answers there, within [`ClientSettings::connect_for`]; a fault of the daemon if it refuses the
    /// version or the token.
    pub fn connect(address: impl Into<String>, settings: ClientSettings) -> Result<Self> {
        let client =
            Self { address: address.into(), settings, connection: Mutex::default(), attention: Mutex::default() };
        let until = Instant::now() + client.settings.connect_for;
        client.retry(until, |_| client.connection().map(drop))?;
        Ok(client)
    }

    /// Where the daemon listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether tensors go through shared memory now. It is so by itself where the daemon is on this machine and the
    /// system can, unless [`ClientSettings::shared_memory`] says no.
    pub fn is_shared(&self) -> bool {
        self.lock().as_ref().is_some_and(|connection| connection.is_shared())
    }

    /// Whether the daemon is there.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn ping(&self) -> Result<()> {
        self.call(&Ping {}, &[]).map(drop)
    }

    /// Whether the daemon has ended the connection. It asks, and makes no new connection.
    pub fn is_gone(&self) -> bool {
        let connection = self.lock().clone();
        let ask = |connection: Arc<Connection>| {
            let head = RequestHead { id: connection.next_id(), ..RequestHead::default() };
            connection.send(head.id, &head.json(Ping::NAME, &Ping {})?, &[])?;
            Pending::new(connection, head.id).wait()
        };
        let answer: Option<Result<Answer<<Ping as Command>::Reply>>> = connection.map(ask);
        answer.is_none_or(|answer| answer.is_err_and(|error| is_lost(&error)))
    }

    /// Asks and waits for the answer. If the connection is lost it is made anew and an idempotent command is asked
    /// again, within [`ClientSettings::reconnect_for`].
    ///
    /// # Errors
    /// The daemon's fault, of its kind, with the [`Fault`] as its source; `Io` if the connection is lost.
    pub fn call<C: Command>(&self, command: &C, tensors: &[TensorRef]) -> Result<Answer<C::Reply>> {
        self.call_with(command, tensors, &CallOptions::default())
    }

    /// As [`Client::call`], with a deadline, events or a token that cancels.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn call_with<C: Command>(
        &self,
        command: &C,
        tensors: &[TensorRef],
        options: &CallOptions,
    ) -> Result<Answer<C::Reply>> {
        let listen = |event: &Event| options.on_event.iter().for_each(|listener| listener(event));
        self.call_heard(command, tensors, options, &listen, true)
    }

    /// As [`Client::call_with`], with a listener of this call's own; `twice` says whether it may be asked twice.
    fn call_heard<C: Command>(
        &self,
        command: &C,
        tensors: &[TensorRef],
        options: &CallOptions,
        listen: &(dyn Fn(&Event) + Sync),
        twice: bool,
    ) -> Result<Answer<C::Reply>> {
        let until = Instant::now() + self.settings.reconnect_for;
        self.retry(until, |again| {
            let mut sent = false;
            let mut once = || {
                let connection = self.connection()?;
                let head = RequestHead {
                    id: connection.next_id(),
                    deadline_ms: options.deadline.map(|deadline| deadline.as_millis() as u64),
                    progress: options.on_event.is_some(),
                };
                let json = head.json(C::NAME, command)?;
                sent = true;
                connection.send(head.id, &json, tensors)?;
                wait(&connection, head.id, options.cancel.as_ref(), listen)
            };
            let outcome = once();
            if sent && !(C::IDEMPOTENT && twice) && outcome.as_ref().is_err_and(is_lost) {
                *again = false;
            }
            outcome
        })
    }

    /// Asks without waiting: any number of requests may be under way.
    ///
    /// # Errors
    /// `Io` if the request cannot be sent. It is not sent again by itself.
    pub fn start<C: Command>(&self, command: &C, tensors: &[TensorRef]) -> Result<Pending<C::Reply>> {
        let connection = self.connection()?;
        let head = RequestHead { id: connection.next_id(), ..RequestHead::default() };
        connection.send(head.id, &head.json(C::NAME, command)?, tensors)?;
        Ok(Pending::new(connection, head.id))
    }

    /// The connection there is, or a new one.
    fn connection(&self) -> Result<Arc<Connection>> {
        let mut connection = self.lock();
        if let Some(connection) = connection.as_ref().filter(|connection| !connection.is_lost()) {
            return Ok(connection.clone());
        }
        let new = Arc::new(Connection::open(&self.address, &self.settings)?);
        if let Some(mode) = *self.attention.lock().unwrap_or_else(PoisonError::into_inner) {
            new.send_and_forget(&SetAttentionMode { mode: mode.name().to_owned() })?;
        }
        *connection = Some(new.clone());
        Ok(new)
    }

    fn remember_attention(&self, mode: AttentionMode) {
        *self.attention.lock().unwrap_or_else(PoisonError::into_inner) = Some(mode);
    }

    /// Tries until it works, fails for good, or time is up. The attempt may forbid another one.
    fn retry<T>(&self, until: Instant, attempt: impl Fn(&mut bool) -> Result<T>) -> Result<T> {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut again = true;
            let error = match attempt(&mut again) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let wait = match Fault::within(&error) {
                Some(Fault { reason: Some(Reason::Draining), .. }) => pause,
                Some(fault) if self.settings.wait_when_busy && fault.kind() == ErrorKind::Busy => {
                    fault.retry_after_ms.map_or(pause, Duration::from_millis)
                }
                None if is_lost(&error) => pause,
                _ => return Err(error),
            };
            if !again || Instant::now() + wait > until {
                return Err(error);
            }
            thread::sleep(wait);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.address)
    }
}

/// Waits for an answer, and cancels the request when the token says so.
fn wait<R: serde::de::DeserializeOwned>(
    connection: &Arc<Connection>,
    id: u64,
    token: Option<&CancelToken>,
    listen: &(dyn Fn(&Event) + Sync),
) -> Result<Answer<R>> {
    let pending = Pending::new(connection.clone(), id);
    let Some(token) = token else { return pending.wait_with(listen) };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| cancel_when_told(connection, id, token, &done));
        let answer = pending.wait_with(listen);
        done.store(true, Ordering::Relaxed);
        answer
    })
}

/// Whether the connection failed, so that nobody knows what became of the request.
fn is_lost(error: &Error) -> bool {
    error.kind() == ErrorKind::Io && Fault::within(error).is_none()
}

/// Asks the daemon to cancel a request once the token is cancelled.
fn cancel_when_told(connection: &Connection, id: u64, token: &CancelToken, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        if token.is_cancelled() {
            // If this cannot be sent, the wait for the answer fails as well.
            let _ = connection.send_and_forget(&Cancel { request: id });
            return;
        }
        thread::sleep(CANCEL_POLL);
    }
}
