//! One WebSocket. Enters: a request to speak it, then what a listener asks for. Leaves: the state at once and every second,
//! news of workers, answers. A listener may be silent for as long as it likes; one that does not read is let go.

use super::{
    board::Board,
    http::{Refusal, Request},
    messages::{self, Wanted},
};
use std::{
    io::{self, Write},
    net::TcpStream,
    sync::{atomic::Ordering, mpsc::TryRecvError},
    time::Duration,
};
use tungstenite::{
    Error, Message, WebSocket,
    handshake::derive_accept_key,
    protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
};

/// The most bytes of what a listener sends.
const MESSAGE_BYTES: usize = 4 << 10;
/// How often a listener is looked after, and so how late news may come.
const LOOK: Duration = Duration::from_millis(25);

/// The answer to a request for a WebSocket.
///
/// # Errors
/// 400 for a handshake that is wrong, 426 for another version.
pub fn handshake(request: &Request) -> Result<String, Refusal> {
    let wrong = Refusal::new(400, "the WebSocket handshake is wrong");
    if !request.lists("connection", "upgrade") || !request.lists("upgrade", "websocket") {
        return Err(wrong);
    }
    if request.field("sec-websocket-version")? != Some("13") {
        return Err(Refusal::new(426, "the daemon speaks version 13 of the WebSocket protocol"));
    }
    let key = request.field("sec-websocket-key")?.ok_or(wrong)?;
    let length = data_encoding::BASE64.decode(key.as_bytes()).map_err(|_| wrong)?.len();
    if length != 16 {
        return Err(wrong);
    }
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    ))
}

/// Serves a listener until it goes, or the daemon does.
pub fn serve(board: &Board, mut stream: TcpStream, answer: &str, rest: Vec<u8>) -> io::Result<()> {
    stream.write_all(answer.as_bytes())?;
    stream.set_read_timeout(Some(LOOK))?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES))
        .max_frame_size(Some(MESSAGE_BYTES))
        .write_buffer_size(0);
    let mut socket = WebSocket::from_partially_read(stream, rest, Role::Server, Some(config));
    board.listeners.fetch_add(1, Ordering::Relaxed);
    let outcome = speak(board, &mut socket);
    board.listeners.fetch_sub(1, Ordering::Relaxed);
    match outcome {
        // It could not be written to in time.
        Err(Error::Io(error)) if is_pause(&error) => {
            board.dropped.fetch_add(1, Ordering::Relaxed);
            tracing::debug!("a listener that did not read was let go");
            Ok(())
        }
        // Whatever else ends it concerns nobody but the listener.
        _ => Ok(()),
    }
}

fn speak(board: &Board, socket: &mut WebSocket<TcpStream>) -> Result<(), Error> {
    let news = board.listen();
    tell(socket, &board.message(Wanted::Status))?;
    loop {
        loop {
            match news.try_recv() {
                Ok(text) => tell(socket, &text)?,
                Err(TryRecvError::Empty) => break,
                // The board has given it up.
                Err(TryRecvError::Disconnected) => return Err(Error::Io(io::ErrorKind::TimedOut.into())),
            }
        }
        if board.is_closing() {
            return leave(socket, CloseCode::Away, "the daemon has ended");
        }
        match socket.read() {
            Ok(Message::Text(text)) => match messages::read(&text) {
                Ok(wanted) => tell(socket, &board.message(wanted))?,
                Err(error) => tell(socket, &error)?,
            },
            Ok(Message::Binary(_)) => return leave(socket, CloseCode::Unsupported, "only text is understood"),
            // What the protocol itself answers is written now.
            Ok(_) => socket.flush()?,
            Err(Error::Io(error)) if is_pause(&error) => {}
            Err(Error::Capacity(_)) => return leave(socket, CloseCode::Size, "the message is too large"),
            Err(error @ Error::Protocol(_)) => {
                leave(socket, CloseCode::Protocol, "the frame is wrong")?;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
    }
}

fn tell(socket: &mut WebSocket<TcpStream>, text: &str) -> Result<(), Error> {
    socket.send(Message::text(text))
}

/// Ends the conversation politely.
fn leave(socket: &mut WebSocket<TcpStream>, code: CloseCode, reason: &'static str) -> Result<(), Error> {
    socket.close(Some(CloseFrame { code, reason: reason.into() }))?;
    socket.flush()
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
