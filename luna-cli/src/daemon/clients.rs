//! Who is connected. Enters: connections and the names they give. Leaves: clients, each with a lane in the queues and a
//! bound on the bytes it may have under way.

use super::connection::Peer;
use luna_core::AttentionMode;
use std::{
    collections::HashMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Requests and answers of this size need no room: they can always cancel what takes it.
const SMALL: u64 = 64 << 10;

/// A client: one named program, or one nameless connection.
pub struct Client {
    /// Its lane in the queues.
    pub lane: u64,
    /// What it calls itself, or a number.
    pub name: String,
    /// How its calls compute attention where they do not say it.
    attention: Mutex<AttentionMode>,
    most_bytes: u64,
    bytes: Mutex<u64>,
    room: Condvar,
}

/// Bytes that a client has under way; given back when dropped.
pub struct Held {
    client: Arc<Client>,
    bytes: u64,
}

impl Client {
    /// Waits until so many more bytes may be under way. A frame of no more than [`SMALL`] bytes never waits.
    pub fn hold(self: &Arc<Self>, bytes: u64, ended: &AtomicBool) -> Option<Held> {
        let mut held = self.lock();
        while bytes > SMALL && *held > 0 && *held + bytes > self.most_bytes {
            if ended.load(Ordering::Relaxed) {
                return None;
            }
            held = self.room.wait_timeout(held, Duration::from_millis(200)).unwrap_or_else(PoisonError::into_inner).0;
        }
        *held += bytes;
        Some(Held { client: self.clone(), bytes })
    }

    pub fn attention(&self) -> AttentionMode {
        *self.attention.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the mode and tells the one before.
    pub fn set_attention(&self, mode: AttentionMode) -> AttentionMode {
        std::mem::replace(&mut self.attention.lock().unwrap_or_else(PoisonError::into_inner), mode)
    }

    /// What the names of its sequences in the first-block cache begin with.
    pub fn first_blocks(&self) -> String {
        format!("{}/", self.lane)
    }

    /// Bytes under way.
    pub fn bytes(&self) -> u64 {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        *self.client.lock() -= self.bytes;
        self.client.room.notify_all();
    }
}

/// Everyone.
pub struct Clients {
    most_bytes: u64,
    numbers: AtomicU64,
    /// Those that have a connection.
    named: Mutex<HashMap<String, Arc<Client>>>,
    peers: Mutex<HashMap<u64, Arc<Peer>>>,
}

impl Clients {
    pub fn new(most_bytes: u64) -> Self {
        Self { most_bytes, numbers: AtomicU64::new(1), named: Mutex::default(), peers: Mutex::default() }
    }

    /// A number for a connection.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// A client that nobody else is.
    pub fn nameless(&self) -> Arc<Client> {
        let lane = self.number();
        self.new_client(lane, format!("#{lane}"))
    }

    pub fn enter(&self, peer: &Arc<Peer>) {
        self.lock().insert(peer.number, peer.clone());
    }

    /// Makes a connection one of the client of this name, or of a new client.
    pub fn admit(&self, peer: &Peer, name: Option<&str>) -> Arc<Client> {
        let mut named = self.named();
        let new = |name: &str| self.new_client(self.number(), name.to_owned());
        let client = match name {
            Some(name) => named.entry(name.to_owned()).or_insert_with(|| new(name)).clone(),
            None => peer.client().clone(),
        };
        peer.belong_to(&client);
        client
    }

    /// Says whether that was the client's last connection. Then the client has ended: who comes with its name is another.
    pub fn leave(&self, peer: &Peer) -> bool {
        // No connection is admitted meanwhile.
        let mut named = self.named();
        let mut peers = self.lock();
        peers.remove(&peer.number);
        let client = peer.client();
        let is_last = !peers.values().any(|other| Arc::ptr_eq(other.client(), client));
        if is_last {
            named.retain(|_, other| !Arc::ptr_eq(other, client));
        }
        is_last
    }

    pub fn peers(&self) -> Vec<Arc<Peer>> {
        self.lock().values().cloned().collect()
    }

    pub fn connections(&self) -> usize {
        self.lock().len()
    }

    fn new_client(&self, lane: u64, name: String) -> Arc<Client> {
        Arc::new(Client {
            lane,
            name,
            attention: Mutex::default(),
            most_bytes: self.most_bytes,
            bytes: Mutex::new(0),
            room: Condvar::new(),
        })
    }

    fn named(&self) -> MutexGuard<'_, HashMap<String, Arc<Client>>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::outbox::Outbox;
    use luna_core::ipc::Stream;
    use std::{
        collections::HashSet,
        net::{TcpListener, TcpStream},
        thread,
    };

    /// A client that has ended is nobody's any more: what it has left behind may be forgotten.
    #[test]
    fn nobody_joins_a_client_that_has_ended() {
        const THREADS: usize = 4;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let outbox = Outbox::start(Stream::from(stream)).unwrap();
        let (clients, ended) = (Clients::new(1 << 20), Mutex::new(HashSet::new()));
        let come_and_go = || {
            for _ in 0..2000 {
                let peer = Arc::new(Peer::new(&clients, outbox.clone()));
                clients.enter(&peer);
                let lane = clients.admit(&peer, Some("x")).lane;
                assert!(!ended.lock().unwrap().contains(&lane), "its last connection has left before");
                if clients.leave(&peer) {
                    assert!(ended.lock().unwrap().insert(lane), "it ended twice");
                }
            }
        };
        thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(come_and_go))));
        assert_eq!((clients.connections(), clients.named().len()), (0, 0));
        assert!(ended.into_inner().unwrap().len() > 1);
        outbox.end();
    }
}
