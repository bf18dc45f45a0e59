//! One connection. Enters: requests of any number of threads. Leaves: each one's answers. Whoever waits first reads for
//! all; no thread of its own stands between the socket and the caller.

use super::{Answer, ClientSettings};
use crate::{
    Error, ErrorKind, Result,
    protocol::{
        Command, FrameLimits, Hello, Message, RequestHead, Role, TensorRef, VERSION, Welcome, read_body, write_frame,
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
    writer: Mutex<TcpStream>,
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
    reader: Option<BufReader<TcpStream>>,
    /// Why nothing more will come.
    lost: Option<String>,
}

#[derive(Deserialize)]
struct Addressee {
    id: u64,
}

impl Connection {
    /// Connects and shakes hands.
    pub(super) fn open(address: &str, settings: &ClientSettings) -> Result<Self> {
        let failed = |error| {
            let error: std::io::Error = error;
            Error::new(ErrorKind::Io, format!("cannot connect to a daemon at {address}: {error}"))
                .remedy("start one with `luna-cli start`, or correct the address")
                .source(error)
        };
        let stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let reader = BufReader::with_capacity(READ_AHEAD, stream.try_clone().map_err(failed)?);
        let state = State { arrived: HashMap::new(), reader: Some(reader), lost: None };
        let connection = Self {
            writer: Mutex::new(stream),
            frames: settings.frames.clone(),
            most: AtomicU64::new(u64::from(u32::MAX)),
            ids: AtomicU64::new(0),
            state: Mutex::new(state),
            changed: Condvar::new(),
        };
        let hello = Hello { protocol: VERSION, client: settings.name.clone(), token: settings.token.clone() };
        let head = RequestHead { id: connection.next_id(), ..RequestHead::default() };
        connection.send(head.id, &head.json(Hello::NAME, &hello)?, &[])?;
        let welcome: Answer<Welcome> = Answer::read(connection.receive(head.id)?)?;
        connection.forget(head.id);
        connection.most.store(welcome.reply.frame_bytes, Ordering::Relaxed);
        Ok(connection)
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
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        write_frame(&mut *writer, Role::Request, json, tensors, most)
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

    fn read(&self, reader: &mut BufReader<TcpStream>) -> Result<(u64, Message)> {
        let ended = || Error::new(ErrorKind::Io, "the daemon closed it");
        let message = Message::parse(read_body(reader, &self.frames)?.ok_or_else(ended)?, &self.frames)?;
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
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writer.shutdown(std::net::Shutdown::Both);
        drop(writer);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
