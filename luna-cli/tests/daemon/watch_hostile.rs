//! Whoever connects to the watched port and means no good, or is slow, or half gone.

use super::{
    Server, until,
    watch::{ask, exchange, get, listen, next_of},
};
use rand::{Rng, SeedableRng};
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};
use tungstenite::Message;

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn malformed_upgrades_are_refused() {
    let server = Server::start("");
    for (fields, status) in [
        (format!("{UPGRADE}{KEY}Origin: http://{}\r\n", server.watch), 101),
        (UPGRADE.to_owned(), 400),
        (format!("{UPGRADE}Sec-WebSocket-Key: short\r\n"), 400),
        (format!("{UPGRADE}Sec-WebSocket-Key: c2hvcnQ=\r\n"), 400),
        (format!("{UPGRADE}{KEY}{KEY}"), 400),
        (format!("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n{KEY}"), 400),
        (format!("Connection: Upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Version: 13\r\n{KEY}"), 400),
        (format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{KEY}"), 426),
        (format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n{KEY}"), 426),
    ] {
        let mut stream = TcpStream::connect(&server.watch).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(stream, "GET / HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", server.watch).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(String::from_utf8_lossy(&head), format!("HTTP/1.1 {status}"), "{fields}");
    }
    let post = format!("POST / HTTP/1.1\r\nHost: {}\r\n{UPGRADE}{KEY}\r\n", server.watch);
    assert_eq!(exchange(&server, post.as_bytes()).0, 405);
    // The answer to the key is the one of the WebSocket specification's own example.
    let mut stream = TcpStream::connect(&server.watch).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: {}\r\n{UPGRADE}{KEY}\r\n", server.watch).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
}

#[test]
fn other_names_and_other_sites_are_refused() {
    let server = Server::start("--watch-host luna.example");
    let port = server.watch.rsplit(':').next().unwrap();
    let status =
        |path: &str, fields: &str| exchange(&server, format!("GET {path} HTTP/1.1\r\n{fields}\r\n").as_bytes()).0;
    for path in ["/", "/metrics", "/healthz"] {
        for host in ["localhost", "127.0.0.1", "[::1]", "luna.example"] {
            assert_eq!(status(path, &format!("Host: {host}:{port}\r\n")), 200, "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1"] {
            assert_eq!(status(path, &format!("Host: {host}:{port}\r\n")), 421, "{host}");
        }
        assert_eq!(status(path, ""), 400);
        assert_eq!(status(path, &format!("Host: localhost:{port}\r\nHost: evil.example\r\n")), 400);
        assert_eq!(status(path, &format!("Host: localhost:{port}\r\nOrigin: http://evil.example\r\n")), 403);
    }
    let upgrade =
        |host: &str, origin: &str| status("/", &format!("Host: {host}\r\nOrigin: {origin}\r\n{UPGRADE}{KEY}"));
    // A page of a name that an attacker made mean this machine, and a page of another server on it.
    assert_eq!(upgrade(&format!("evil.example:{port}"), &format!("http://evil.example:{port}")), 421);
    for origin in ["http://evil.example", "http://localhost:1", "null", "file://", "https://luna.example"] {
        assert_eq!(upgrade(&format!("localhost:{port}"), origin), 403, "{origin}");
    }
}

#[test]
fn large_heads_are_refused_and_slow_ones_time_out() {
    let server = Server::start("--handshake 1");
    let large = format!("X: {}\r\n", "y".repeat(9000));
    assert_eq!(get(&server, "/", &large).0, 431);
    assert_eq!(get(&server, "/", &"X: y\r\n".repeat(100)).0, 431);
    assert_eq!(get(&server, &format!("/{}", "a".repeat(20_000)), "").0, 431);
    assert_eq!(exchange(&server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").0, 400);
    // Half a head, and nothing more; a byte now and then.
    let (status, _, _) = exchange(&server, b"GET / HTTP/1.1\r\nHost: loc");
    assert_eq!(status, 408);
    let mut slow = TcpStream::connect(&server.watch).unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut answer = Vec::new();
    until("the end of patience", || {
        let _ = slow.write_all(b"G");
        let mut piece = [0; 256];
        match slow.read(&mut piece) {
            Ok(0) => return true,
            Ok(read) => answer.extend_from_slice(&piece[..read]),
            Err(_) => {}
        }
        !answer.is_empty()
    });
    assert!(answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn half_open_and_idle_connections_leave_room_for_others() {
    let server = Server::start("--watch-connections 4 --handshake 1");
    // Those that say nothing fill all places, for a second.
    let idle: Vec<_> = (0..4).map(|_| TcpStream::connect(&server.watch).unwrap()).collect();
    until("room", || get(&server, "/healthz", "").0 == 200);
    drop(idle);
    // Those that shut their writing down are gone.
    let half: Vec<_> = (0..4)
        .map(|_| {
            let stream = TcpStream::connect(&server.watch).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            stream
        })
        .collect();
    until("room", || get(&server, "/healthz", "").0 == 200);
    drop(half);
    // One listener too many is turned away, the others stay.
    let mut listeners: Vec<_> = (0..4).map(|_| listen(&server)).collect();
    assert!(tungstenite::connect(format!("ws://{}", server.watch)).is_err());
    listeners.iter_mut().for_each(|socket| drop(next_of(socket, "status")));
    listeners.pop();
    until("room", || tungstenite::connect(format!("ws://{}", server.watch)).is_ok());
}

#[test]
fn a_listener_that_does_not_read_is_let_go_and_holds_nobody_up() {
    let server = Server::start("--stall 1");
    let mut deaf = listen(&server);
    let mut other = listen(&server);
    // What it asks for and does not take fills the connection.
    until("the end of patience", || deaf.send(Message::text(r#"{"type":"get_details"}"#)).is_err());
    until("its end", || get(&server, "/metrics", "").2.contains("luna_watch_dropped_total 1"));
    ask(&mut other, "get_status");
    next_of(&mut other, "status");
    server.client().ping().unwrap();
}

#[test]
fn frames_that_are_wrong_end_their_listener_only() {
    let server = Server::start("");
    let mut other = listen(&server);
    for (wrong, code) in [(Message::binary(vec![1, 2, 3]), 1003), (Message::text("x".repeat(5000)), 1009)] {
        let mut socket = listen(&server);
        socket.send(wrong).unwrap();
        let mut close = None;
        until("the close", || {
            match socket.read() {
                Ok(Message::Close(frame)) => close = frame,
                Ok(_) => {}
                Err(_) => return true,
            }
            close.is_some()
        });
        assert_eq!(u16::from(close.unwrap().code), code);
    }
    // Without a mask, and with a length that nobody has.
    for bytes in [&b"\x81\x05hello"[..], b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", b"\xf1\x80\0\0\0\0"] {
        let socket = listen(&server);
        let tungstenite::stream::MaybeTlsStream::Plain(stream) = socket.get_ref() else { panic!("not plain") };
        let mut stream = stream.try_clone().unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // It ends, by whatever means.
        let _ = stream.read_to_end(&mut answer);
    }
    next_of(&mut other, "status");
}

#[test]
fn random_bytes_disturb_nobody() {
    let mut server = Server::start("--handshake 1");
    let mut other = listen(&server);
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let good = format!("GET / HTTP/1.1\r\nHost: {}\r\n{UPGRADE}{KEY}\r\n\u{1}\u{2}\u{3}", server.watch).into_bytes();
    for round in 0..2000 {
        let mut bytes = good.clone();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..3) {
                0 => bytes[at] = random.random(),
                1 => bytes.truncate(at.max(1)),
                _ => bytes.extend_from_within(at..),
            }
        }
        let Ok(mut stream) = TcpStream::connect(&server.watch) else { continue };
        let _ = stream.write_all(&bytes);
        if round % 3 == 0 {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }
    next_of(&mut other, "status");
    until("room", || get(&server, "/healthz", "").0 == 200);
    assert!(server.child.try_wait().unwrap().is_none(), "the daemon has ended");
    server.client().ping().unwrap();
}
