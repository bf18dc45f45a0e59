//! The door. Enters: an address. Leaves: connections, each on threads of its own, and an end in good order.

use super::{Daemon, connection, near::NearDoor};
use luna_core::{Error, ErrorKind, Result, ipc::Stream};
use std::{
    io,
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
    acceptors: Vec<JoinHandle<()>>,
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
        let mut running = Self { daemon, address, closing: Arc::default(), acceptors: Vec::new() };
        let open = Arc::<AtomicUsize>::default();
        running.accept(&open, move || listener.accept().map(|(stream, _)| stream.into())).map_err(failed)?;
        // Where the system has no such door, or does not open one, clients stay with TCP.
        if let Ok(near) = NearDoor::open() {
            let _ = running.daemon.near.set(near.name().to_owned());
            running.accept(&open, move || near.accept()).map_err(failed)?;
        }
        Ok(running)
    }

    /// Lets in who comes by a door.
    fn accept(
        &mut self,
        open: &Arc<AtomicUsize>,
        next: impl Fn() -> io::Result<Stream> + Send + 'static,
    ) -> io::Result<()> {
        let (daemon, closing, open) = (self.daemon.clone(), self.closing.clone(), open.clone());
        let accept = move || accept(&daemon, next, &open, &closing);
        self.acceptors.push(thread::Builder::new().name("luna-accept".to_owned()).spawn(accept)?);
        Ok(())
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
        // The acceptors wait for a connection: here is one for each.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        let _ = self.daemon.near.get().map(|name| Stream::connect(name));
        for acceptor in self.acceptors.drain(..) {
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
        if !self.acceptors.is_empty() {
            self.daemon.drain();
            self.close();
        }
    }
}

fn accept(
    daemon: &Arc<Daemon>,
    next: impl Fn() -> io::Result<Stream>,
    connections: &Arc<AtomicUsize>,
    closing: &AtomicBool,
) {
    while !closing.load(Ordering::SeqCst) {
        let Ok(stream) = next() else {
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
