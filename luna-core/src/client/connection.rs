//! One connection. Enters: requests of any number of threads. Leaves: each one's answers. Whoever waits first reads for
//! all; no thread of its own stands between the socket and the caller.

use super::{Answer, ClientSettings};
use crate::{
    Error, ErrorKind, Result,
    ipc::{self, Receiver, Sender, Stream},
    protocol::{
        Command, FrameLimits, Hello, IpcOffer, Message, NegotiateIpc, RequestHead, Role, TensorRef, VERSION, Welcome,
        read_body,
    },
};
use serde::Deserialize;
use std::{
    collections::{HashMap, VecDeque},
    io::BufReader,
    net::TcpStream,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Answers smaller than this come with one call to the system.
const READ_AHEAD: usize = 64 << 10;

pub(super) struct Connection {
    writer: Sender,
    frames: FrameLimits,
    /// Bytes of the largest body that the daemon takes.
    most: AtomicU64,
    ids: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// What came for each request that somebody waits for.
    arrived: HashMap<u64, VecDeque<Message>>,
    /// Taken out by whoever reads.
    reader: Option<BufReader<Receiver>>,
    /// Why nothing more will come.
    lost: Option<String>,
}

fn tcp(address: &str) -> Result<TcpStream> {
    let open = || {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    open().map_err(|error: std::io::Error| {
        Error::new(ErrorKind::Io, format!("cannot connect to a daemon at {address}: {error}"))
            .remedy("start one with `luna-cli start`, or correct the address")
            .source(error)
    })
}

#[derive(Deserialize)]
struct Addressee {
    id: u64,
}

impl Connection {
    /// Connects and shakes hands: by shared memory where it is wanted and can be, else by TCP.
    pub(super) fn open(address: &str, settings: &ClientSettings) -> Result<Self> {
        let far = Self::over(tcp(address)?.into(), settings)?;
        let nearer = far.writer.stream().tcp().and_then(|stream| stream.peer_addr().ok());
        let connection = if settings.shared_memory && ipc::AVAILABLE && nearer.is_some_and(|at| at.ip().is_loopback()) {
            far.nearer(address, settings)?
        } else {
            far
        };
        connection.greet(settings)?;
        Ok(connection)
    }

    fn over(stream: Stream, settings: &ClientSettings) -> Result<Self> {
        let again = stream.try_clone().map_err(|error| Error::io("use the connection", error))?;
        let reader = BufReader::with_capacity(READ_AHEAD, Receiver::new(again));
        let state = State { arrived: HashMap::new(), reader: Some(reader), lost: None };
        Ok(Self {
            writer: Sender::new(stream),
            frames: settings.frames.clone(),
            most: AtomicU64::new(u64::from(u32::MAX)),
            ids: AtomicU64::new(0),
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    /// The connection by shared memory that the daemon offers, or this one.
    fn nearer(self, address: &str, settings: &ClientSettings) -> Result<Self> {
        let offer: Result<Answer<IpcOffer>> = self.ask(&NegotiateIpc {});
        match offer {
            Ok(Answer { reply: IpcOffer { unix: Some(name) }, .. }) => match Stream::connect(&name) {
                Ok(stream) => Self::over(stream, settings),
                // The daemon sees another system, such as another container's.
                Err(_) => Ok(self),
            },
            Ok(_) => Ok(self),
            // A daemon that knows no such offer has ended the connection.
            Err(_) => Self::over(tcp(address)?.into(), settings),
        }
    }

    fn greet(&self, settings: &ClientSettings) -> Result<()> {
        let hello = Hello { protocol: VERSION, client: settings.name.clone(), token: settings.token.clone() };
        let welcome: Answer<Welcome> = self.ask(&hello)?;
        self.most.store(welcome.reply.frame_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Whether tensors go through shared memory.
    pub(super) fn is_shared(&self) -> bool {
        self.writer.stream().is_local()
    }

    fn ask<C: Command>(&self, command: &C) -> Result<Answer<C::Reply>> {
        let head = RequestHead { id: self.next_id(), ..RequestHead::default() };
        self.send(head.id, &head.json(C::NAME, command)?, &[])?;
        let answer = self.receive(head.id);
        self.forget(head.id);
        Answer::read(answer?)
    }

    pub(super) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lock().lost.is_some()
    }

    /// Sends a request whose answers will be waited for.
    pub(super) fn send(&self, id: u64, json: &str, tensors: &[TensorRef]) -> Result<()> {
        self.lock().arrived.insert(id, VecDeque::new());
        let sent = self.write(json, tensors);
        if let Err(error) = &sent {
            self.forget(id);
            // What exceeds the daemon's limit was not written at all.
            if error.kind() == ErrorKind::Io {
                self.lose(error);
            }
        }
        sent
    }

    /// Sends a request whose answer is of no interest.
    pub(super) fn send_and_forget<C: Command>(&self, command: &C) -> Result<()> {
        let head = RequestHead { id: self.next_id(), ..RequestHead::default() };
        self.write(&head.json(C::NAME, command)?, &[])
    }

    fn write(&self, json: &str, tensors: &[TensorRef]) -> Result<()> {
        let most = self.most.load(Ordering::Relaxed);
        self.writer.send(Role::Request, json, tensors, most)
    }

    /// The next message for a request.
    pub(super) fn receive(&self, id: u64) -> Result<Message> {
        let mut state = self.lock();
        loop {
            if let Some(message) = state.arrived.get_mut(&id).and_then(VecDeque::pop_front) {
                return Ok(message);
            }
            if let Some(reason) = &state.lost {
                return Err(Error::new(ErrorKind::Io, format!("the connection to the daemon is lost: {reason}")));
            }
            let Some(mut reader) = state.reader.take() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let next = self.read(&mut reader);
            state = self.lock();
            state.reader = Some(reader);
            match next {
                Ok((id, message)) => {
                    // Nobody waits for the answers of requests that were given up.
                    if let Some(messages) = state.arrived.get_mut(&id) {
                        messages.push_back(message);
                    }
                }
                Err(error) => state.lost = Some(error.to_string()),
            }
            self.changed.notify_all();
        }
    }

    fn read(&self, reader: &mut BufReader<Receiver>) -> Result<(u64, Message)> {
        let ended = || Error::new(ErrorKind::Io, "the daemon closed it");
        let body = read_body(reader, &self.frames)?.ok_or_else(ended)?;
        let message = reader.get_mut().parse(body, &self.frames)?;
        let id = serde_json::from_str::<Addressee>(message.json())
            .map_err(|error| Error::new(ErrorKind::Io, format!("an answer bears no id: {error}")))?
            .id;
        Ok((id, message))
    }

    /// What still comes for a request is dropped.
    pub(super) fn forget(&self, id: u64) {
        self.lock().arrived.remove(&id);
    }

    fn lose(&self, error: &Error) {
        self.lock().lost.get_or_insert_with(|| error.to_string());
        // Whoever reads is waked by the end of the stream.
        let _ = self.writer.stream().shutdown();
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
