//! The door. Enters: an address. Leaves: connections, each on threads of its own, and an end in good order.

use super::{Daemon, connection};
use luna_core::{Error, ErrorKind, Result};
use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How often the end is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// A daemon that listens.
pub struct Running {
    daemon: Arc<Daemon>,
    address: SocketAddr,
    closing: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Running {
    /// Listens.
    ///
    /// # Errors
    /// `Io` if the address is in use, `InvalidInput` for an address that needs a token and has none.
    pub fn start(daemon: Arc<Daemon>) -> Result<Self> {
        let wanted = daemon.settings.listen;
        if !wanted.ip().is_loopback() && daemon.settings.token.is_none() {
            return Err(Error::new(ErrorKind::InvalidInput, "others on the network could use the daemon")
                .expected("a loopback address such as 127.0.0.1, or a token")
                .found(wanted.to_string())
                .remedy("give `--token-file FILE`"));
        }
        let failed = |error| Error::io(format!("listen on {wanted}"), error);
        let listener = TcpListener::bind(wanted).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let closing = Arc::new(AtomicBool::new(false));
        let (theirs, end) = (daemon.clone(), closing.clone());
        let accept = move || accept(&theirs, &listener, &end);
        let acceptor = thread::Builder::new().name("luna-accept".to_owned()).spawn(accept).map_err(failed)?;
        Ok(Self { daemon, address, closing, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until `stop` says so or a client has asked for the end; then takes no new work, finishes what was accepted
    /// within [`crate::settings::DaemonSettings::drain`], and ends. Says whether all was finished.
    pub fn wait(mut self, stop: impl Fn() -> bool) -> bool {
        while !stop() && !self.daemon.is_draining() {
            thread::sleep(LOOK);
        }
        self.daemon.drain();
        let until = Instant::now() + self.daemon.settings.drain;
        let under_way = || self.daemon.pools.under_way() + self.daemon.saves.under_way();
        while under_way() > 0 && Instant::now() < until {
            thread::sleep(LOOK);
        }
        let finished = under_way() == 0;
        if self.daemon.saves.under_way() > 0 {
            // Dropping the saver would wait for it. Durable jobs go on when the daemon is started anew.
            std::mem::forget(self.daemon.clone());
        }
        for peer in self.daemon.clients.peers() {
            peer.jobs().iter().for_each(|job| job.cancel(&self.daemon, Some(luna_core::protocol::Reason::Draining)));
            peer.outbox.flush(Duration::from_secs(2));
        }
        self.close();
        finished
    }

    fn close(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // The acceptor waits for a connection: here is one.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(acceptor) = self.acceptor.take() {
            // It panics for no reason that is known.
            let _ = acceptor.join();
        }
        self.daemon.clients.peers().iter().for_each(|peer| peer.outbox.end());
        let until = Instant::now() + Duration::from_secs(2);
        while self.daemon.clients.connections() > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.acceptor.is_some() {
            self.daemon.drain();
            self.close();
        }
    }
}

fn accept(daemon: &Arc<Daemon>, listener: &TcpListener, closing: &AtomicBool) {
    let connections = Arc::new(AtomicUsize::new(0));
    while !closing.load(Ordering::SeqCst) {
        let Ok((stream, _)) = listener.accept() else {
            // Out of file handles, for instance: others may give some back.
            thread::sleep(LOOK);
            continue;
        };
        if closing.load(Ordering::SeqCst) {
            return;
        }
        // One more than may be is closed at once: its client sees the end of the stream.
        if connections.fetch_add(1, Ordering::SeqCst) >= daemon.settings.connections {
            connections.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (daemon, open) = (daemon.clone(), connections.clone());
        let serve = move || {
            // What goes wrong with one connection is that connection's end and nothing else.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| connection::serve(&daemon, stream)));
            open.fetch_sub(1, Ordering::SeqCst);
        };
        if thread::Builder::new().name("luna-connection".to_owned()).spawn(serve).is_err() {
            connections.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
