//! A daemon as those who watch it see it, through a WebSocket client and over HTTP.

use super::{Server, picture, program, run, until, wire::moonlet};
use luna_core::client::{CallOptions, Client, ClientSettings};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};
use tungstenite::{Message, WebSocket, stream::MaybeTlsStream};

pub type Socket = WebSocket<MaybeTlsStream<TcpStream>>;

/// A listener of a daemon.
pub fn listen(server: &Server) -> Socket {
    let (socket, answer) = tungstenite::connect(format!("ws://{}", server.watch)).unwrap();
    assert_eq!(answer.status().as_u16(), 101);
    let MaybeTlsStream::Plain(stream) = socket.get_ref() else { panic!("not plain") };
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket
}

pub fn next(socket: &mut Socket) -> Value {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Close(_) => panic!("the daemon has closed"),
            _ => {}
        }
    }
}

/// The next message of this type.
pub fn next_of(socket: &mut Socket, kind: &str) -> Value {
    loop {
        let message = next(socket);
        if message["type"] == kind {
            return message["data"].clone();
        }
    }
}

pub fn ask(socket: &mut Socket, kind: &str) {
    socket.send(Message::text(json!({ "type": kind }).to_string())).unwrap();
}

/// The answer to the bytes of a request: status, head, body.
pub fn exchange(server: &Server, request: &[u8]) -> (u16, String, String) {
    let mut stream = TcpStream::connect(&server.watch).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // It may be answered before all of it is written.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, head.to_owned(), body.to_owned())
}

pub fn get(server: &Server, path: &str, fields: &str) -> (u16, String, String) {
    exchange(server, format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", server.watch).as_bytes())
}

fn names(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Puts more requests at once than there are workers, and waits for all.
pub fn work(server: &Server, requests: usize) {
    let clients: Vec<Client> =
        (0..requests).map(|_| Client::connect(server.address.clone(), ClientSettings::default()).unwrap()).collect();
    let image = picture(64, 96);
    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| client.vae_encode(&image, &moonlet(), &CallOptions::default()).unwrap());
        }
    });
}

#[test]
fn monitors_are_told_the_state_field_for_field() {
    let server = Server::start("");
    work(&server, 1);
    let mut socket = listen(&server);
    let first = next(&mut socket);
    assert_eq!(names(&first), BTreeSet::from(["type", "data"]));
    assert_eq!(first["type"], "status");
    let data = &first["data"];
    let fields = [
        "status",
        "version",
        "device",
        "precision",
        "uptime_seconds",
        "total_requests",
        "vram_used_gb",
        "vram_total_gb",
        "vae_pool",
        "clip_pool",
    ];
    assert_eq!(names(data), BTreeSet::from(fields));
    assert_eq!((&data["status"], &data["device"], &data["precision"]), (&json!("ok"), &json!("cpu"), &json!("f32")));
    assert_eq!(data["version"], env!("CARGO_PKG_VERSION"));
    assert!(data["uptime_seconds"].is_f64() && data["total_requests"].as_u64().unwrap() >= 2, "{data}");
    let (used, total) = (data["vram_used_gb"].as_f64().unwrap(), data["vram_total_gb"].as_f64().unwrap());
    assert!(used > 0.005 && total > used, "{used} of {total}");
    for (pool, kind, done) in [("vae_pool", "vae", 1), ("clip_pool", "clip", 0)] {
        let pool = &data[pool];
        let fields = ["type", "active_workers", "queue_depth", "total_requests", "worker_ids"];
        assert_eq!(names(pool), BTreeSet::from(fields));
        let expected =
            json!({"type": kind, "active_workers": 1, "queue_depth": 0, "total_requests": done, "worker_ids": [0]});
        assert_eq!(*pool, expected);
    }
}

#[test]
fn the_state_comes_every_second_and_when_it_is_asked_for() {
    let server = Server::start("--handshake 1 --stall 1");
    let mut silent = listen(&server);
    // Longer than any patience of the daemon.
    let mut last = 0.0;
    for _ in 0..5 {
        let uptime = next_of(&mut silent, "status")["uptime_seconds"].as_f64().unwrap();
        assert!(uptime >= last);
        last = uptime;
    }
    assert!(last >= 3.0, "five messages within {last} s");
    let mut asking = listen(&server);
    for _ in 0..50 {
        ask(&mut asking, "get_status");
    }
    for _ in 0..51 {
        next_of(&mut asking, "status");
    }
    asking.send(Message::Ping(b"luna".to_vec().into())).unwrap();
    until("the pong", || matches!(asking.read().unwrap(), Message::Pong(payload) if payload[..] == *b"luna"));
    for wrong in ["", "{", "{\"type\":\"shutdown\"}", "[]", "{\"type\":\"get_status\",\"type\":1}"] {
        asking.send(Message::text(wrong)).unwrap();
        assert!(next_of(&mut asking, "error")["message"].as_str().unwrap().contains("get_status"), "{wrong}");
    }
    // The silent one is still there.
    next_of(&mut silent, "status");
}

#[test]
fn workers_that_come_and_go_are_told_at_once() {
    let server = Server::start("--pool vae=1..3 --idle 1");
    let mut socket = listen(&server);
    work(&server, 24);
    let started = next_of(&mut socket, "scaling");
    let fields = ["event", "pool", "worker_id", "active_workers", "vram_available_gb"];
    assert_eq!(names(&started), BTreeSet::from(fields));
    assert_eq!(
        (&started["event"], &started["pool"], &started["worker_id"], &started["active_workers"]),
        (&json!("scale_up"), &json!("vae"), &json!(1), &json!(2))
    );
    assert!(started["vram_available_gb"].as_f64().unwrap() > 0.0);
    let mut workers = 2;
    while workers > 1 {
        let scaled = next_of(&mut socket, "scaling");
        let up = scaled["event"] == "scale_up";
        assert!(up || scaled["event"] == "scale_down", "{scaled}");
        workers = if up { workers + 1 } else { workers - 1 };
        assert_eq!(scaled["active_workers"], workers, "{scaled}");
    }
    // Who comes later hears of it as well.
    ask(&mut socket, "get_history");
    let history = next_of(&mut socket, "history");
    let scalings = history["scalings"].as_array().unwrap();
    assert!(scalings.len() >= 2 && scalings[0]["data"] == started, "{history}");
    let samples = history["samples"].as_array().unwrap();
    let requests: u64 = samples.iter().map(|sample| sample["requests"].as_u64().unwrap()).sum();
    assert!(requests >= 24, "{requests} requests in the history");
    assert!(samples.iter().any(|sample| sample["p95_ms"].as_f64().is_some_and(|ms| ms > 0.1)), "{samples:?}");
    assert!(get(&server, "/metrics", "").2.contains("luna_pool_scalings_total{pool=\"vae\",event=\"scale_up\"}"));
}

#[test]
fn numbers_for_prometheus_are_those_of_the_daemon() {
    let server = Server::start("");
    work(&server, 3);
    let (status, head, body) = get(&server, "/metrics", "");
    assert!(status == 200 && head.contains("text/plain; version=0.0.4"), "{head}");
    let value = |name: &str| -> f64 {
        let line = body.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("no {name} in {body}")).rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(value("luna_requests_total{command=\"vae_encode\",outcome=\"ok\"}"), 3.0);
    assert_eq!(value("luna_requests_total{command=\"vae_encode\",outcome=\"busy\"}"), 0.0);
    assert_eq!(value("luna_request_seconds_count{command=\"vae_encode\"}"), 3.0);
    assert_eq!(value("luna_request_seconds_bucket{command=\"vae_encode\",le=\"+Inf\"}"), 3.0);
    assert_eq!(value("luna_pool_finished_total{pool=\"vae\"}"), 3.0);
    let (sum, compute) = (
        value("luna_request_seconds_sum{command=\"vae_encode\"}"),
        value("luna_compute_seconds_total{command=\"vae_encode\"}"),
    );
    assert!(compute > 0.0 && sum >= compute, "{sum} {compute}");
    assert!(value("luna_resident_bytes") > 1e6 && value("luna_memory_total_bytes") > value("luna_resident_bytes"));
    assert!(value("luna_models_bytes") > 1e6 && value("luna_model_bytes{model=\"moonlet\"}") > 1e6);
    // The format: a family is told once, before its lines; buckets grow.
    let mut families = BTreeSet::new();
    let mut below = 0.0;
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(rest.split(' ').next().unwrap().to_owned()), "{line}");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let family =
                ["_bucket", "_sum", "_count"].iter().fold(name, |name, end| name.strip_suffix(end).unwrap_or(name));
            assert!(families.contains(family), "{line}");
        }
        if line.starts_with("luna_request_seconds_bucket{command=\"vae_encode\"") {
            let count: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            assert!(count >= below, "{line}");
            below = count;
        }
    }
}

#[test]
fn health_is_told_and_the_page_is_served() {
    let server = Server::start("");
    assert_eq!(get(&server, "/healthz", "").2, "ok\n");
    assert_eq!(
        (get(&server, "/readyz", "").0, get(&server, "/nothing", "").0, get(&server, "/ws", "").0),
        (200, 404, 426)
    );
    let (status, head, page) = get(&server, "/?x=1", "");
    assert!(status == 200 && page.starts_with("<!doctype html>") && page.ends_with("</html>\n"), "{head}");
    assert!(
        head.contains("Content-Security-Policy: default-src 'none'") && head.contains("X-Frame-Options: DENY"),
        "{head}"
    );
    let nonce = head.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert_eq!(page.matches(&format!("nonce=\"{nonce}\"")).count(), 2, "style and script");
    let head_only = exchange(&server, format!("HEAD / HTTP/1.1\r\nHost: {}\r\n\r\n", server.watch).as_bytes());
    assert!(
        head_only.0 == 200 && head_only.2.is_empty() && head_only.1.contains("Content-Length: "),
        "{}",
        head_only.1
    );
    let post = exchange(
        &server,
        format!("POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: 3\r\n\r\nabc", server.watch).as_bytes(),
    );
    assert!(post.0 == 405 && post.1.contains("Allow: GET, HEAD"), "{}", post.1);
}

#[test]
fn listeners_are_told_the_end() {
    let mut server = Server::start("");
    let mut socket = listen(&server);
    next_of(&mut socket, "status");
    let folder = tempfile::tempdir().unwrap();
    assert!(run(folder.path(), &format!("stop --connect {}", server.address)).status.success());
    let mut close = None;
    until("the close", || {
        match socket.read() {
            Ok(Message::Close(frame)) => close = frame,
            Ok(_) => {}
            Err(_) => return true,
        }
        false
    });
    assert_eq!(u16::from(close.unwrap().code), 1001);
    assert_eq!(server.ended(), Some(0));
}

#[test]
fn it_is_watched_only_where_and_by_whom_it_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start("--watch-listen off");
    let status: Value =
        serde_json::from_slice(&run(folder.path(), &format!("status --json --connect {}", server.address)).stdout)
            .unwrap();
    assert!(status["status"]["watch"].is_null(), "{status}");
    let open = run(folder.path(), "serve --listen 127.0.0.1:0 --watch-listen 0.0.0.0:0");
    assert_eq!(open.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&open.stderr).contains("--token-file"));
    std::fs::write(folder.path().join("token"), "0123456789abcdef\n").unwrap();
    let server = Server::start(&format!("--token-file {}", folder.path().join("token").display()));
    let asked = get(&server, "/", "");
    assert!(asked.0 == 401 && asked.1.contains("WWW-Authenticate: Basic"), "{}", asked.1);
    for path in ["/", "/metrics"] {
        assert_eq!(get(&server, path, "Authorization: Bearer 0123456789abcdef\r\n").0, 200);
        assert_eq!(get(&server, path, "Authorization: Basic OjAxMjM0NTY3ODlhYmNkZWY=\r\n").0, 200);
        assert_eq!(get(&server, path, "Authorization: Bearer 0123456789abcdee\r\n").0, 401);
    }
    assert_eq!((get(&server, "/healthz", "").0, get(&server, "/readyz", "").0), (200, 200));
    let refused = tungstenite::connect(format!("ws://{}", server.watch)).unwrap_err();
    assert!(matches!(refused, tungstenite::Error::Http(answer) if answer.status().as_u16() == 401));
}

/// NVML as this machine may not have it: the real loader, and a library of the same name that tells of one GPU.
#[cfg(target_os = "linux")]
#[test]
fn the_memory_of_an_nvidia_gpu_is_told_by_its_driver() {
    let folder = tempfile::tempdir().unwrap();
    let source = luna_tests::workspace::root().join("tests/fixtures/nvml/nvml.c");
    let library = folder.path().join("libnvidia-ml.so.1");
    let built = std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(built.unwrap().success(), "a C compiler is needed, as for the workspace");
    let mut command = program();
    command.args(["serve", "--listen", "127.0.0.1:0"]).env("LD_LIBRARY_PATH", folder.path());
    let server = Server::spawn(command);
    let mut socket = listen(&server);
    ask(&mut socket, "get_details");
    let gpus = next_of(&mut socket, "details")["snapshot"]["gpus"].clone();
    let gib = |gib: u64| gib << 30;
    assert_eq!(gpus, json!([{"index": 0, "name": "Test GPU", "used": gib(3), "free": gib(9), "total": gib(12)}]));
    let metrics = get(&server, "/metrics", "").2;
    assert!(
        metrics.contains(&format!("luna_gpu_memory_used_bytes{{gpu=\"0\",name=\"Test GPU\"}} {}", gib(3))),
        "{metrics}"
    );
    // The models of this daemon are on the CPU, and so is what monitors are told.
    ask(&mut socket, "get_status");
    assert_ne!(next_of(&mut socket, "status")["vram_total_gb"], 12.0);
}
