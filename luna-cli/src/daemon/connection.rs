//! One connection of a client: its reader. Enters: bytes. Leaves: quick answers at once, jobs for all else. A client that
//! is slow in mid-frame, or silent before it has said who it is, loses its connection.

use super::{
    Daemon,
    clients::{Client, Clients, Held},
    events::DaemonEvent,
    handlers::{self, Where},
    job::{self, Job, Load},
    outbox::Outbox,
    reply::Reply,
};
use luna_core::{
    Error, ErrorKind,
    ipc::{Receiver, Stream},
    protocol::{
        Command, Fault, FrameLimits, Hello, Message, NegotiateIpc, Reason, Request, RequestHead, Role, VERSION, Welcome,
    },
    protocol::{read_length, read_rest},
};
use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

/// How often a silent connection is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Nobody needs more to say who they are.
const HELLO_BYTES: u64 = 64 << 10;
/// The least speed of a frame, in bytes a second, beside the time that any frame has.
const SLOWEST: u64 = 1 << 20;
/// Requests that one connection may have waiting and running.
const MOST_JOBS: usize = 4096;

/// A connection as others see it.
pub struct Peer {
    pub number: u64,
    pub outbox: Arc<Outbox>,
    client: OnceLock<Arc<Client>>,
    nobody: Arc<Client>,
    jobs: Mutex<HashMap<u64, Arc<Job>>>,
}

impl Peer {
    /// One that has not yet said who it is.
    pub fn new(clients: &Clients, outbox: Arc<Outbox>) -> Self {
        Self {
            number: clients.number(),
            outbox,
            client: OnceLock::new(),
            nobody: clients.nameless(),
            jobs: Mutex::default(),
        }
    }

    /// Whose it is.
    pub fn client(&self) -> &Arc<Client> {
        self.client.get().unwrap_or(&self.nobody)
    }

    /// A connection shakes hands once.
    pub fn belong_to(&self, client: &Arc<Client>) {
        let _ = self.client.set(client.clone());
    }

    pub fn add_job(&self, id: u64, job: &Arc<Job>) -> Result<(), Fault> {
        let mut jobs = self.lock();
        if jobs.len() >= MOST_JOBS {
            let error = Error::new(ErrorKind::Busy, "too many requests of this connection are under way");
            return Err(Fault::from(error).retry_after(100));
        }
        if jobs.contains_key(&id) {
            let error = Error::new(ErrorKind::InvalidInput, "a request of this id is under way on this connection");
            return Err(error.found(id.to_string()).into());
        }
        jobs.insert(id, job.clone());
        Ok(())
    }

    pub fn remove_job(&self, id: u64) {
        self.lock().remove(&id);
    }

    pub fn job(&self, id: u64) -> Option<Arc<Job>> {
        self.lock().get(&id).cloned()
    }

    pub fn jobs(&self) -> Vec<Arc<Job>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves a connection until it ends.
pub fn serve(daemon: &Arc<Daemon>, stream: Stream) -> io::Result<()> {
    let settings = &daemon.settings;
    stream.set_timeouts(Some(LOOK.min(settings.stall)), Some(settings.stall))?;
    if let Some(tcp) = stream.tcp() {
        tcp.set_nodelay(true)?;
        let alive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60));
        socket2::SockRef::from(tcp).set_tcp_keepalive(&alive)?;
    }
    let outbox = Outbox::start(stream.try_clone()?)?;
    let peer = Arc::new(Peer::new(&daemon.clients, outbox.clone()));
    daemon.clients.enter(&peer);
    let reader = BufReader::with_capacity(64 << 10, Patient { receiver: Receiver::new(stream), until: None });
    let mut session = Session { daemon, peer: &peer, reader };
    session.run();
    let is_last = daemon.clients.leave(&peer);
    // What a client that is gone has waiting or running is of no use to anybody.
    for job in peer.jobs() {
        job.cancel(daemon, None);
    }
    outbox.flush(Duration::from_secs(1));
    outbox.end();
    if is_last {
        daemon.first_blocks.forget_all(&peer.client().first_blocks());
    }
    if peer.client.get().is_some() {
        let client = peer.client().name.clone();
        daemon.events.tell(DaemonEvent::Disconnected { connection: peer.number, client });
    }
    Ok(())
}

struct Session<'a> {
    daemon: &'a Arc<Daemon>,
    peer: &'a Arc<Peer>,
    reader: BufReader<Patient>,
}

impl Session<'_> {
    fn run(&mut self) {
        let hello = FrameLimits::of_bytes(HELLO_BYTES);
        let until = Instant::now() + self.daemon.settings.handshake;
        self.reader.get_mut().until = Some(until);
        let Some((mut message, _)) = self.next(&hello) else { return };
        if self.offer(&message) {
            self.reader.get_mut().until = Some(until);
            let Some((second, _)) = self.next(&hello) else { return };
            message = second;
        }
        if !self.greet(&message) {
            return;
        }
        let frames = FrameLimits::of_bytes(self.daemon.settings.frame_bytes);
        loop {
            // Between two frames a client may be silent for as long as it likes.
            self.reader.get_mut().until = None;
            let Some((message, held)) = self.next(&frames) else { return };
            if !self.handle(message, held) {
                return;
            }
        }
    }

    /// The next message; `None` when the connection has ended, is too slow, or speaks something else, which is answered
    /// where that is possible.
    fn next(&mut self, frames: &FrameLimits) -> Option<(Message, Option<Held>)> {
        let refuse = |error: Error| {
            if error.kind() != ErrorKind::Io {
                self.peer.outbox.send_now(job::frame(self.daemon, self.peer, 0, "", [0.0; 2], Err(error.into()), None));
            }
        };
        if self.reader.fill_buf().ok()?.is_empty() {
            return None;
        }
        let stall = self.daemon.settings.stall;
        self.reader.get_mut().until.get_or_insert(Instant::now() + stall);
        let length = read_length(&mut self.reader, frames).map_err(refuse).ok()??;
        let held = self.peer.client().hold(length as u64, self.peer.outbox.ended())?;
        self.reader.get_mut().until =
            Some(Instant::now() + stall + Duration::from_millis(length as u64 * 1000 / SLOWEST));
        let body = read_rest(&mut self.reader, length).map_err(refuse).ok()?;
        let message = self.reader.get_mut().receiver.parse(body, frames).map_err(refuse).ok()?;
        if message.bytes() <= length as u64 {
            return Some((message, Some(held)));
        }
        // Tensors in shared memory count as those that came.
        drop(held);
        let held = self.peer.client().hold(message.bytes(), self.peer.outbox.ended())?;
        Some((message, Some(held)))
    }

    /// Tells of a nearer way, which may be asked for before the handshake. Says whether that was asked.
    fn offer(&self, message: &Message) -> bool {
        match RequestHead::parse(message.json()) {
            Ok((head, Ok(Request::NegotiateIpc(_)))) => {
                self.answer(head.id, NegotiateIpc::NAME, handlers::offer(self.daemon));
                true
            }
            _ => false,
        }
    }

    /// The handshake. Says whether the connection may go on.
    fn greet(&mut self, message: &Message) -> bool {
        let (id, outcome) = match RequestHead::parse(message.json()) {
            Ok((head, Ok(Request::Hello(hello)))) => (head.id, self.admit(&hello)),
            Ok((head, Ok(_))) => {
                let error = Error::new(ErrorKind::InvalidInput, "the first request of a connection must be `hello`");
                (head.id, Err(error.into()))
            }
            Ok((head, Err(fault))) => (head.id, Err(fault)),
            Err(error) => (0, Err(error.into())),
        };
        let admitted = outcome.is_ok();
        self.answer(id, "hello", outcome);
        admitted
    }

    fn admit(&self, hello: &Hello) -> Result<Reply, Fault> {
        let settings = &self.daemon.settings;
        if hello.protocol != VERSION {
            let error = Error::new(ErrorKind::Unsupported, "the daemon does not speak this version of the protocol")
                .expected(VERSION.to_string())
                .found(hello.protocol.to_string())
                .remedy("use a client and a daemon of the same version of Luna");
            return Err(Fault::because(Reason::Version, error));
        }
        if let Some(token) = &settings.token {
            // Digests compare in constant time.
            let given = blake3::hash(hello.token.as_deref().unwrap_or_default().as_bytes());
            if given != *token || hello.token.is_none() {
                let error = Error::new(ErrorKind::InvalidInput, "the daemon asks for its token")
                    .remedy("name the file that holds it: `--token-file FILE`");
                return Err(Fault::because(Reason::Unauthorized, error));
            }
        }
        let name = self.daemon.clients.admit(self.peer, hello.client.as_deref()).name.clone();
        self.daemon.events.tell(DaemonEvent::Connected { connection: self.peer.number, client: name });
        let server = concat!("luna ", env!("CARGO_PKG_VERSION")).to_owned();
        Ok(Reply::of(&Welcome { protocol: VERSION, server, frame_bytes: settings.frame_bytes })?)
    }

    /// Does or queues what was asked. Says whether the connection may go on.
    fn handle(&mut self, message: Message, held: Option<Held>) -> bool {
        let parsed = match message.role() {
            Role::Request => RequestHead::parse(message.json()),
            _ => Err(Error::new(ErrorKind::InvalidInput, "only requests come from clients")),
        };
        let (head, request) = match parsed {
            Ok((head, Ok(request))) => (head, request),
            Ok((head, Err(fault))) => {
                self.answer(head.id, "", Err(fault));
                return true;
            }
            // Without an id nobody can be answered.
            Err(error) => {
                self.answer(0, "", Err(error.into()));
                return false;
            }
        };
        let command = request.name();
        match handlers::place(&request) {
            Where::Here => {
                let start = Instant::now();
                let outcome = handlers::here(self.daemon, self.peer, request, message);
                let times = [0.0, start.elapsed().as_secs_f64() * 1e3];
                let frame = job::frame(self.daemon, self.peer, head.id, command, times, outcome, held);
                self.peer.outbox.send_now(frame);
            }
            Where::Pool(pool) => {
                let load = Load { request, message, held };
                if let Err(fault) = job::submit(self.daemon, self.peer, head, pool, load) {
                    self.answer(head.id, command, Err(fault));
                }
            }
        }
        true
    }

    fn answer(&self, id: u64, command: &'static str, outcome: Result<Reply, Fault>) {
        self.peer.outbox.send_now(job::frame(self.daemon, self.peer, id, command, [0.0; 2], outcome, None));
    }
}

/// A stream that waits for its client until a moment, or for ever.
struct Patient {
    receiver: Receiver,
    until: Option<Instant>,
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.until.is_some_and(|until| Instant::now() >= until) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match self.receiver.read(buffer) {
                Err(error) if is_pause(error.kind()) => {}
                other => return other,
            }
        }
    }
}

fn is_pause(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
