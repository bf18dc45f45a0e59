//! The wire: handshakes, pipelining, cancellation, deadlines, events, clients that go away or are slow.

use super::{Server, picture, until};
use luna_core::{
    CancelToken, ErrorKind, Precision,
    client::{CallOptions, Client, ClientSettings},
    protocol::{
        Echo, EventKind, Fault, FrameLimits, GetStatus, ListModels, Message, Ping, Reason, RegisterModelByPath, Reset,
        Role, TensorRef, VaeDecode, VaeEncode, read_body, write_frame,
    },
    vae::{DecodeOptions, EncodeOptions, Vae},
};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A connection without manners.
pub struct Raw(pub TcpStream);

impl Raw {
    pub fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(&server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self(stream)
    }

    pub fn greeted(server: &Server) -> Self {
        let mut raw = Self::connect(server);
        assert_eq!(raw.ask(json!({"id": 0, "cmd": "hello", "protocol": 1}))["ok"], true);
        raw
    }

    pub fn send(&mut self, request: &Value, tensors: &[TensorRef]) {
        write_frame(&mut self.0, Role::Request, &request.to_string(), tensors, u64::MAX).unwrap();
    }

    /// The next message; nothing at the end of the stream.
    pub fn receive(&mut self) -> Option<Value> {
        let limits = FrameLimits::default();
        let body = read_body(&mut self.0, &limits).ok()??;
        Some(serde_json::from_str(Message::parse(body, &limits).unwrap().json()).unwrap())
    }

    pub fn ask(&mut self, request: Value) -> Value {
        self.send(&request, &[]);
        self.receive().expect("an answer")
    }
}

pub fn status(client: &Client) -> Value {
    Value::Object(client.call(&GetStatus {}, &[]).unwrap().reply)
}

pub fn pool(client: &Client, name: &str) -> Value {
    let status = status(client);
    let pools = status["pools"].as_array().unwrap();
    pools.iter().find(|pool| pool["type"] == name).unwrap().clone()
}

pub fn moonlet() -> VaeEncode {
    VaeEncode { vae: Some("moonlet".to_owned()), ..VaeEncode::default() }
}

#[test]
fn another_version_is_refused_politely() {
    let server = Server::start("");
    let mut raw = Raw::connect(&server);
    let refused = raw.ask(json!({"id": 3, "cmd": "hello", "protocol": 2}));
    assert_eq!((&refused["id"], &refused["ok"]), (&json!(3), &json!(false)));
    assert_eq!(refused["error"]["reason"], "version");
    assert_eq!((&refused["error"]["expected"], &refused["error"]["found"]), (&json!("1"), &json!("2")));
    assert!(raw.receive().is_none(), "the connection ends");
    let mut raw = Raw::connect(&server);
    assert!(raw.ask(json!({"id": 1, "cmd": "ping"}))["error"]["message"].as_str().unwrap().contains("hello"));
    assert!(raw.receive().is_none());
}

#[test]
fn requests_are_pipelined_and_answers_matched() {
    let server = Server::start("");
    let client = Arc::new(server.client());
    let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let pending: Vec<_> = (1..=20usize)
        .map(|count| client.start(&Echo {}, &[TensorRef::f32("x", &[count], &values[..count])]).unwrap())
        .collect();
    for (pending, count) in pending.into_iter().zip(1..21usize).rev() {
        let answer = pending.wait().unwrap();
        assert_eq!(answer.message.tensor("x").unwrap().values().unwrap(), values[..count]);
    }
    // Many threads, one connection; slow and quick requests side by side.
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| client.vae_encode(&picture(256, 384), &moonlet(), &CallOptions::default()).unwrap());
        for count in 1..=8usize {
            let (client, values) = (&client, &values);
            scope.spawn(move || {
                for _ in 0..50 {
                    let answer = client.call(&Echo {}, &[TensorRef::f32("x", &[count], &values[..count])]).unwrap();
                    assert_eq!(answer.reply.tensors, 1);
                    assert_eq!(answer.message.tensor("x").unwrap().shape(), [count]);
                }
            });
        }
        assert_eq!(slow.join().unwrap().0.shape(), [1, 16, 32, 48]);
    });
}

#[test]
fn a_wrong_request_costs_its_answer_only() {
    let server = Server::start("");
    let mut raw = Raw::greeted(&server);
    for (request, says) in [
        (json!({"id": 1, "cmd": "vae_decode"}), "no such model"),
        (json!({"id": 1, "cmd": "load_everything"}), "no such command"),
        (json!({"id": 1, "cmd": "ping", "payload": 3}), "payload"),
        (json!({"id": 1, "cmd": "vae_encode", "vae": "moonlet"}), "`pixels` is missing"),
        (json!({"id": 1, "cmd": "vae_decode", "vae": "nobody"}), "no such model"),
        (json!({"id": 1, "cmd": "hello", "protocol": 1}), "already"),
    ] {
        let answer = raw.ask(request);
        assert_eq!(answer["id"], 1, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(says), "{answer}");
    }
    let unknown = raw.ask(json!({"id": 9, "cmd": "vae_decode", "vae": "nobody"}));
    assert_eq!(unknown["error"]["reason"], "unknown_model");
    assert_eq!(unknown["error"]["missing"], json!(["nobody"]));
    let denied = raw.ask(json!({"id": 9, "cmd": "register_model_by_path", "model_path": "/etc/hostname"}));
    assert_eq!(denied["error"]["reason"], "denied");
    raw.send(&json!({"id": 2, "cmd": "vae_encode", "vae": "moonlet"}), &[TensorRef::f32("pixels", &[2, 2], &[0.0; 4])]);
    assert!(raw.receive().unwrap()["error"]["expected"].as_str().unwrap().contains("height"));
    assert_eq!(raw.ask(json!({"id": 3, "cmd": "ping"}))["pong"], true);
    // What bears no id cannot be answered to anybody.
    assert_eq!(raw.ask(json!({"cmd": "ping"}))["id"], 0);
    assert!(raw.receive().is_none());
}

#[test]
fn waiting_and_running_requests_are_cancelled() {
    let server = Server::start("--pool vae=1");
    let client = server.client();
    let large = picture(1536, 2048);
    client.vae_encode(&picture(16, 16), &moonlet(), &CallOptions::default()).unwrap();
    let shape = large.shape();
    let start = || client.start(&moonlet(), &[TensorRef::f32("pixels", &shape, large.data())]).unwrap();
    let (running, waiting) = (start(), start());
    until("the queue", || pool(&client, "vae")["busy_workers"] == 1 && pool(&client, "vae")["queue_depth"] == 1);
    waiting.cancel().unwrap();
    assert_eq!(waiting.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(pool(&client, "vae")["queue_depth"], 0);
    running.cancel().unwrap();
    let begun = Instant::now();
    assert_eq!(running.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(begun.elapsed() < Duration::from_secs(20));

    let token = CancelToken::new();
    token.cancel();
    let options = CallOptions::default().cancelled_by(&token);
    assert_eq!(client.vae_encode(&large, &moonlet(), &options).map(drop).unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn a_deadline_ends_what_waits_and_what_runs() {
    let server = Server::start("--pool vae=1");
    let client = server.client();
    client.vae_encode(&picture(16, 16), &moonlet(), &CallOptions::default()).unwrap();
    let options = CallOptions::default().within(Duration::from_millis(150));
    let error = client.vae_encode(&picture(1536, 2048), &moonlet(), &options).map(drop).unwrap_err();
    let fault = Fault::within(&error).unwrap();
    assert_eq!((fault.reason, error.kind()), (Some(Reason::Deadline), ErrorKind::Cancelled));
    assert!(fault.expected.as_deref().unwrap().contains("150 ms"), "{fault:?}");
    assert!(client.vae_encode(&picture(16, 24), &moonlet(), &options.clone().within(Duration::from_secs(60))).is_ok());
}

#[test]
fn progress_is_told_where_it_is_wanted() {
    let server = Server::start("");
    let client = server.client();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = seen.clone();
    let options = CallOptions::default().on_event(move |event| {
        if let EventKind::Progress { done, total } = event.kind {
            told.lock().unwrap().push((done, total));
        }
    });
    let (_, answer) = client.vae_encode(&picture(256, 256), &moonlet(), &options).unwrap();
    let seen = seen.lock().unwrap().clone();
    let (done, total) = *seen.last().expect("events");
    assert!(done == total && seen.is_sorted(), "{seen:?}");
    assert!(answer.head.compute_ms > 0.0 && answer.head.fallbacks.is_empty());
}

#[test]
fn what_memory_or_precision_did_not_suffice_for_is_done_otherwise_and_told() {
    let server = Server::start("");
    let client = server.client();
    let any = CallOptions::default();
    let vae = Vae::load(&Vae::moonlet_checkpoint().unwrap(), luna_tests::lora::runtime()).unwrap();
    let memory_limit = Some(vae.memory_for(24, 24, Precision::F32));
    let photo = picture(320, 384);
    let request = VaeEncode { memory_limit, ..moonlet() };
    let (latent, answer) = client.vae_encode(&photo, &request, &any).unwrap();
    assert_eq!(answer.head.fallbacks[0].name, "tiled", "{:?}", answer.head);
    assert!(answer.reply.report.tiling.is_some());
    let theirs = vae.encode(&photo, &EncodeOptions { memory_limit, ..EncodeOptions::default() }).unwrap();
    assert_eq!(latent.data(), theirs.latent.data());
    let never = VaeEncode { never_tiled: true, ..request };
    assert_eq!(client.vae_encode(&photo, &never, &any).map(drop).unwrap_err().kind(), ErrorKind::OutOfMemory);

    let huge = latent.data().iter().map(|value| value * 1e6).collect();
    let huge = luna_core::Latent::new(latent.shape(), huge).unwrap();
    let half = VaeDecode { vae: Some("moonlet".to_owned()), precision: Some("f16".to_owned()), ..VaeDecode::default() };
    let (image, answer) = client.vae_decode(&huge, &half, &any).unwrap();
    assert_eq!(answer.head.fallbacks[0].name, "widened_to_f32", "{:?}", answer.head);
    assert_eq!(answer.reply.report.precision, "f32");
    let theirs = vae.decode(&huge, &DecodeOptions { precision: Precision::F16, ..DecodeOptions::default() }).unwrap();
    assert_eq!(image.data(), theirs.image.data());
}

#[test]
fn a_client_that_goes_away_takes_its_work_along() {
    let server = Server::start("--pool vae=1");
    let watcher = server.client();
    watcher.vae_encode(&picture(16, 16), &moonlet(), &CallOptions::default()).unwrap();
    for end in [Shutdown::Both, Shutdown::Write] {
        let mut raw = Raw::greeted(&server);
        let large = picture(1536, 2048);
        for id in 1..=3 {
            let pixels = [TensorRef::f32("pixels", &[1, 1536, 2048, 3], large.data())];
            raw.send(&json!({"id": id, "cmd": "vae_encode", "vae": "moonlet"}), &pixels);
        }
        until("the queue", || pool(&watcher, "vae")["queue_depth"] == 2);
        raw.0.shutdown(end).unwrap();
        until("its end", || {
            let pool = pool(&watcher, "vae");
            pool["queue_depth"] == 0 && pool["busy_workers"] == 0
        });
    }
}

#[test]
fn reset_ends_the_clients_own_work_and_connections_and_no_others() {
    let server = Server::start("--pool vae=1");
    let named = |name: &str| {
        let mut settings = ClientSettings::default();
        settings.name = Some(name.to_owned());
        Client::connect(server.address.clone(), settings).unwrap()
    };
    let (first, second, other) = (named("comfy"), named("comfy"), named("game"));
    other.vae_encode(&picture(16, 16), &moonlet(), &CallOptions::default()).unwrap();
    let large = picture(1536, 2048);
    let pixels = [TensorRef::f32("pixels", &[1, 1536, 2048, 3], large.data())];
    let (running, waiting) = (first.start(&moonlet(), &pixels).unwrap(), second.start(&moonlet(), &pixels).unwrap());
    let small = picture(32, 32);
    until("the queue", || pool(&other, "vae")["queue_depth"] == 1);
    let theirs = other.start(&moonlet(), &[TensorRef::f32("pixels", &[1, 32, 32, 3], small.data())]).unwrap();
    let done = second.call(&Reset {}, &[]).unwrap().reply;
    assert_eq!((done.requests, done.connections), (2, 1));
    assert_eq!(waiting.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(running.wait().is_err());
    theirs.wait().unwrap();
    first.ping().unwrap();
}

#[test]
fn slow_and_silent_clients_lose_their_connection() {
    let server = Server::start("--handshake 1 --stall 1");
    let watcher = server.client();
    let ends = |mut stream: TcpStream| {
        let start = Instant::now();
        let ended = stream.read_to_end(&mut Vec::new());
        assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    };
    // Nothing; a part of a length; a part of a frame before the handshake; a part of a frame after it.
    let silent = Raw::connect(&server).0;
    let mut half_length = Raw::connect(&server).0;
    half_length.write_all(&[0, 0]).unwrap();
    let mut half_hello = Raw::connect(&server).0;
    half_hello.write_all(&[0, 0, 0, 100, 1, 2, 3]).unwrap();
    let mut half_frame = Raw::greeted(&server).0;
    half_frame.write_all(&[0, 0, 1, 0, 1, 2, 3]).unwrap();
    // One that drips.
    let mut drip = Raw::greeted(&server).0;
    let dripping = std::thread::spawn(move || {
        let start = Instant::now();
        let _ = drip.write_all(&[0, 0, 1, 0]);
        while drip.write_all(&[1]).is_ok() && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(100));
        }
        start.elapsed()
    });
    [silent, half_length, half_hello, half_frame].into_iter().for_each(ends);
    assert!(dripping.join().unwrap() < Duration::from_secs(15));
    // One that is silent between frames stays.
    watcher.ping().unwrap();
    until("their end", || status(&watcher)["connections"] == 1);
}

#[test]
fn too_large_frames_are_refused_before_they_come() {
    let server = Server::start("--max-frame 1MiB");
    let mut raw = Raw::greeted(&server);
    raw.0.write_all(&u32::MAX.to_be_bytes()).unwrap();
    let answer = raw.receive().unwrap();
    assert_eq!(answer["error"]["kind"], "limit_exceeded");
    assert!(raw.receive().is_none());
    // The client knows the limit and does not even begin.
    let client = server.client();
    let values = vec![0.0; 300_000];
    let error = client.call(&Echo {}, &[TensorRef::f32("x", &[300_000], &values)]).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    client.ping().unwrap();
}

#[test]
fn paths_stay_below_the_roots() {
    let folder = tempfile::tempdir().unwrap();
    let (models, secret) = (folder.path().join("models"), folder.path().join("secret.safetensors"));
    std::fs::create_dir(&models).unwrap();
    let file = luna_tests::vae::case("ldm_sd").model();
    std::fs::write(&secret, &file).unwrap();
    std::fs::write(models.join("own.safetensors"), &file).unwrap();
    let server = Server::start(&format!("--model-root {}", models.display()));
    let client = server.client();
    let register = |path: &str| {
        client
            .call(&RegisterModelByPath { model_path: path.to_owned(), ..RegisterModelByPath::default() }, &[])
            .map(|answer| answer.reply)
    };
    let model = register("own.safetensors").unwrap();
    assert_eq!(
        (model.name.as_str(), model.loaded, &*model.components),
        ("own.safetensors", false, &["vae".to_owned()][..])
    );
    #[cfg(unix)]
    std::os::unix::fs::symlink(&secret, models.join("link.safetensors")).unwrap();
    for path in ["link.safetensors", "../secret.safetensors", secret.to_str().unwrap()] {
        let error = register(path).unwrap_err();
        assert_eq!(Fault::within(&error).unwrap().reason, Some(Reason::Denied), "{path}: {error}");
    }
    assert_eq!(client.call(&ListModels {}, &[]).unwrap().reply.models.len(), 1);
    // The only VAE needs no name, and its id is as good as its name.
    for vae in [None, Some(model.model_id.clone())] {
        let request = VaeEncode { vae, ..VaeEncode::default() };
        let (latent, answer) = client.vae_encode(&picture(32, 16), &request, &CallOptions::default()).unwrap();
        assert_eq!((latent.shape(), answer.reply.vae.name.as_str()), ([1, 4, 4, 2], "own.safetensors"));
    }
}

#[test]
fn idempotent_requests_survive_a_restart_and_others_are_not_repeated() {
    let mut server = Server::start("");
    let client = server.client();
    client.ping().unwrap();
    let address = server.address.clone();
    let restarter = std::thread::spawn(move || {
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        Server::listen(&address, "")
    });
    let start = Instant::now();
    let mut asked = 0;
    while start.elapsed() < Duration::from_secs(2) || !restarter.is_finished() {
        assert!(client.call(&Ping {}, &[]).unwrap().reply.pong);
        asked += 1;
        assert!(start.elapsed() < Duration::from_secs(30));
    }
    assert!(asked > 10);
    let (latent, _) = client.vae_encode(&picture(16, 24), &moonlet(), &CallOptions::default()).unwrap();
    assert_eq!(latent.shape(), [1, 16, 2, 3]);
    drop(restarter.join().unwrap());
}
