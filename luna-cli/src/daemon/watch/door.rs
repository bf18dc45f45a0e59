//! The port that is watched at. Enters: connections, no more at once than the settings allow. Leaves: each on a thread of its
//! own, answered or refused.

use super::{
    board::Board,
    guard,
    http::{Answer, Refusal, Request},
    metrics, page, session,
};
use luna_core::{Error, Result};
use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long the door waits for connections when it closes.
const GOODBYE: Duration = Duration::from_secs(2);
/// A pause after what the system refuses.
const PAUSE: Duration = Duration::from_millis(20);

pub struct Door {
    address: SocketAddr,
    board: Arc<Board>,
    open: Arc<AtomicUsize>,
    acceptor: Option<JoinHandle<()>>,
}

impl Door {
    /// Answers whoever connects from now on.
    pub fn open(listener: TcpListener, address: SocketAddr, board: &Arc<Board>) -> Result<Self> {
        let open = Arc::new(AtomicUsize::new(0));
        let (theirs, connections) = (board.clone(), open.clone());
        let acceptor = thread::Builder::new()
            .name("luna-watch-door".to_owned())
            .spawn(move || accept(&theirs, &listener, &connections))
            .map_err(|error| Error::io("start a thread", error))?;
        Ok(Self { address, board: board.clone(), open, acceptor: Some(acceptor) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections and waits a little for those there are. The board is closing already.
    pub fn close(&mut self) {
        debug_assert!(self.board.is_closing());
        // The acceptor waits for a connection: here is one.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(acceptor) = self.acceptor.take() {
            // It panics for no reason that is known.
            let _ = acceptor.join();
        }
        let until = Instant::now() + GOODBYE;
        while self.open.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn accept(board: &Arc<Board>, listener: &TcpListener, open: &Arc<AtomicUsize>) {
    let most = board.daemon.settings.watch.as_ref().map_or(0, |settings| settings.connections);
    while !board.is_closing() {
        let Ok((stream, _)) = listener.accept() else {
            // Out of file handles, for instance: others may give some back.
            thread::sleep(PAUSE);
            continue;
        };
        if board.is_closing() {
            return;
        }
        // One more than may be is closed at once.
        if open.fetch_add(1, Ordering::SeqCst) >= most {
            open.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (board, connections) = (board.clone(), open.clone());
        let serve = move || {
            // What goes wrong with one connection is that connection's end and nothing else.
            let _ = catch_unwind(AssertUnwindSafe(|| serve(&board, stream)));
            connections.fetch_sub(1, Ordering::SeqCst);
        };
        if thread::Builder::new().name("luna-watcher".to_owned()).spawn(serve).is_err() {
            open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn serve(board: &Board, mut stream: TcpStream) -> io::Result<()> {
    let settings = &board.daemon.settings;
    prepare(&stream, settings.stall)?;
    let mut request = match Request::read(&mut stream, settings.handshake) {
        Ok(request) => request,
        Err(Some(refusal)) => return send(board, &mut stream, &refusal.into(), true),
        Err(None) => return Ok(()),
    };
    let at = stream.local_addr()?;
    let body = request.method != "HEAD";
    match route(board, &request, at) {
        Ok(Route::Answer(answer)) => send(board, &mut stream, &answer, body),
        Ok(Route::WebSocket(answer)) => {
            board.count_answer(101);
            session::serve(board, stream, &answer, std::mem::take(&mut request.rest))
        }
        Err(refusal) => {
            tracing::info!(status = refusal.status, path = request.path, "refused a watcher: {}", refusal.why);
            send(board, &mut stream, &refusal.into(), body)
        }
    }
}

fn send(board: &Board, stream: &mut TcpStream, answer: &Answer, body: bool) -> io::Result<()> {
    board.count_answer(answer.status);
    answer.send(stream, body)
}

/// A peer that is gone without a word is noticed, and one that does not read holds its thread for no longer than this.
fn prepare(stream: &TcpStream, stall: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(stall))?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(Duration::from_secs(60)))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(stall.max(Duration::from_secs(5))))?;
    // What is not read shall be noticed before much of it has piled up.
    socket.set_send_buffer_size(128 << 10)
}

enum Route {
    Answer(Answer),
    /// With the answer to its handshake.
    WebSocket(String),
}

fn route(board: &Board, request: &Request, at: SocketAddr) -> Result<Route, Refusal> {
    let settings = &board.daemon.settings;
    let watch = settings.watch.as_ref().ok_or(Refusal::new(503, "nobody watches"))?;
    guard::check(request, at, watch)?;
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return Err(Refusal::new(405, "only GET and HEAD are answered"));
    }
    // Health is told to whoever starts and stops daemons; it gives nothing away.
    match request.path.as_str() {
        "/healthz" => return Ok(Route::Answer(Answer::text(200, "ok"))),
        "/readyz" if board.is_ready() => return Ok(Route::Answer(Answer::text(200, "ready"))),
        "/readyz" if board.daemon.is_draining() => return Ok(Route::Answer(Answer::text(503, "draining"))),
        "/readyz" => return Ok(Route::Answer(Answer::text(503, "starting"))),
        _ => {}
    }
    guard::authorize(request, settings.token.as_ref())?;
    let upgrade = request.field("upgrade")?.is_some();
    match request.path.as_str() {
        "/" | "/ws" if upgrade => session::handshake(request).map(Route::WebSocket),
        "/" => Ok(Route::Answer(page::dashboard())),
        "/ws" => Err(Refusal::new(426, "a WebSocket is here; the page is at /")),
        "/metrics" => Ok(Route::Answer(metrics::answer(board))),
        _ => Err(Refusal::new(404, "there is /, /metrics, /healthz and /readyz")),
    }
}
