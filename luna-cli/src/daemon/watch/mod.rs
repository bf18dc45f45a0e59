//! The daemon as others see it: a port that speaks HTTP and WebSocket. Enters: the daemon's state and events. Leaves: the
//! messages of the monitoring WebSocket, a page for people, numbers for Prometheus, answers for health checks. It changes
//! nothing: nobody can do more here than look.
//!
//! Each connection has a thread, there are few of them, and they need no more than tungstenite's and httparse's parsers: an
//! async runtime would be a second way of doing what the rest of the daemon does with threads.

mod board;
mod door;
mod gpu;
mod guard;
mod history;
mod http;
mod messages;
mod metrics;
mod page;
mod session;

pub use gpu::{GpuSnapshot, Gpus};

use super::Daemon;
use board::Board;
use door::Door;
use luna_core::{Error, ErrorKind, Result};
use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::Ordering},
    thread,
};

/// The daemon, being watched. It ends when this is dropped.
pub struct Watch {
    door: Door,
    board: Arc<Board>,
}

impl Watch {
    /// Listens where the daemon's settings say, or not at all.
    ///
    /// # Errors
    /// `Io` if the address is in use, `InvalidInput` for an address that needs a token and has none.
    pub fn start(daemon: &Arc<Daemon>) -> Result<Option<Self>> {
        let Some(settings) = &daemon.settings.watch else { return Ok(None) };
        let wanted = settings.listen;
        if !wanted.ip().is_loopback() && daemon.settings.token.is_none() {
            return Err(Error::new(ErrorKind::InvalidInput, "others on the network could watch the daemon")
                .expected("a loopback address such as 127.0.0.1, or a token")
                .found(wanted.to_string())
                .remedy("give `--token-file FILE`, or `--watch-listen off`"));
        }
        let failed = |error| Error::io(format!("listen on {wanted}"), error).remedy("give another `--watch-listen`");
        let listener = TcpListener::bind(wanted).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        // Nobody else sets it.
        let _ = daemon.watched_at.set(address);
        let board = Arc::new(Board::new(daemon));
        let theirs = board.clone();
        let scalings = daemon.events.subscribe();
        let keep = move || board::keep(&theirs, &scalings);
        thread::Builder::new().name("luna-watch".to_owned()).spawn(keep).map_err(failed)?;
        Ok(Some(Self { door: Door::open(listener, address, &board)?, board }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.door.address()
    }

    /// From now on the daemon is ready for work.
    pub fn ready(&self) {
        self.board.ready.store(true, Ordering::SeqCst);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.board.closing.store(true, Ordering::SeqCst);
        self.door.close();
    }
}
