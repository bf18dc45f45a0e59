//! Shared memory between a daemon and clients on its machine: by itself, with the same answers, and gone with either side.

use super::{Server, picture, program, until, wire::moonlet};
use luna_core::{
    client::{CallOptions, Client, ClientSettings},
    protocol::{Echo, TensorRef},
};
use serde_json::json;

fn far(server: &Server) -> Client {
    let mut settings = ClientSettings::default();
    settings.shared_memory = false;
    Client::connect(server.address.clone(), settings).unwrap()
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i % 977) as f32).collect()
}

#[test]
fn answers_are_the_same_by_either_way() {
    let server = Server::start("");
    let (near, far) = (server.client(), far(&server));
    assert_eq!((near.is_shared(), far.is_shared()), (cfg!(target_os = "linux"), false));
    let any = CallOptions::default();
    let photo = picture(256, 320);
    let (latent, _) = near.vae_encode(&photo, &moonlet(), &any).unwrap();
    assert_eq!(latent, far.vae_encode(&photo, &moonlet(), &any).unwrap().0);
    // More than lies in shared memory at once, and more than one at a time.
    for count in [1, 16_000, 17_000, 3_000_000, 17 << 20] {
        let values = values(count);
        for client in [&near, &far] {
            let pending: Vec<_> = (0..if count > 4_000_000 { 1 } else { 3 })
                .map(|_| client.start(&Echo {}, &[TensorRef::f32("x", &[count], &values)]).unwrap())
                .collect();
            for pending in pending {
                let answer = pending.wait().unwrap();
                assert!(answer.message.tensor("x").unwrap().values().unwrap() == values, "{count}");
            }
        }
    }
    // Answers that are kept are not disturbed by later ones.
    let kept: Vec<_> = (0..5)
        .map(|seed| {
            let tensor = vec![seed as f32; 100_000];
            near.call(&Echo {}, &[TensorRef::f32("x", &[100_000], &tensor)]).unwrap()
        })
        .collect();
    for (seed, answer) in kept.iter().enumerate() {
        assert!(answer.message.tensor("x").unwrap().values().unwrap().iter().all(|&value| value == seed as f32));
    }
}

#[test]
fn the_offer_may_be_asked_for_before_the_handshake_and_replaces_none() {
    let server = Server::start("");
    let mut raw = super::wire::Raw::connect(&server);
    let offer = raw.ask(json!({"id": 5, "cmd": "negotiate_ipc"}));
    assert_eq!(
        (&offer["id"], &offer["ok"], offer["unix"].is_string()),
        (&json!(5), &json!(true), cfg!(target_os = "linux"))
    );
    // Nothing else is before the handshake.
    let refused = raw.ask(json!({"id": 6, "cmd": "ping"}));
    assert!(refused["error"]["message"].as_str().unwrap().contains("hello"), "{refused}");
    assert!(raw.receive().is_none());
    let mut raw = super::wire::Raw::greeted(&server);
    assert_eq!(raw.ask(json!({"id": 7, "cmd": "negotiate_ipc"}))["unix"], offer["unix"]);
}

#[cfg(target_os = "linux")]
mod linux {
    use super::*;
    use std::{fs, process::Stdio};

    /// Shared memory that a process has mapped or holds open.
    fn segments(pid: u32) -> usize {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let open =
            fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        let is = |name: &str| name.contains("memfd:luna");
        maps.lines().filter(|line| is(line)).count() + open.filter(|path| is(&path.to_string_lossy())).count()
    }

    #[test]
    fn nothing_is_left_of_a_client_that_was_killed() {
        let server = Server::start("");
        let pid = server.child.id();
        let watcher = far(&server);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.safetensors");
        let image = picture(1536, 2048);
        {
            use luna_core::picture::{Format, Metadata, Pixels, write_picture};
            let replace = luna_core::files::IfExists::Replace;
            let file = folder.path().join("large.png");
            write_picture(&file, &Pixels::of(&image, 0), Format::PNG, &Metadata::none(), replace).unwrap();
        }
        assert_eq!(segments(pid), 0);
        for _ in 0..3 {
            let mut client = program();
            client.current_dir(folder.path()).args(["encode", "large.png", "-o"]).arg(&path);
            client.args(["--connect", &server.address]).stdout(Stdio::null()).stderr(Stdio::null());
            let mut client = client.spawn().unwrap();
            until("its picture", || segments(pid) > 0 || client.try_wait().unwrap().is_some());
            assert!(segments(pid) > 0, "the picture came by shared memory");
            client.kill().unwrap();
            client.wait().unwrap();
            until("the end of its memory", || segments(pid) == 0);
        }
        watcher.ping().unwrap();
    }

    #[test]
    fn nothing_is_left_of_a_daemon_that_was_killed() {
        let mut server = Server::start("");
        let mut settings = ClientSettings::default();
        settings.reconnect_for = std::time::Duration::ZERO;
        let client = Client::connect(server.address.clone(), settings).unwrap();
        let values = values(1 << 20);
        let answer = client.call(&Echo {}, &[TensorRef::f32("x", &[1 << 20], &values)]).unwrap();
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        // What came stays readable: its memory goes with its last user.
        assert!(answer.message.tensor("x").unwrap().values().unwrap() == values);
        assert!(client.ping().is_err());
        let sockets = fs::read_to_string("/proc/net/unix").unwrap();
        let mine = format!("/proc/{}", server.child.id());
        assert!(!std::path::Path::new(&mine).exists() && !sockets.is_empty());
        drop((client, answer));
    }

    #[test]
    fn a_client_that_lies_about_its_memory_costs_itself_its_connection() {
        use luna_core::protocol::{Role, SharedPlace, shared_frame, write_frame};
        use std::{
            io::{Read, Write},
            os::{
                linux::net::SocketAddrExt,
                unix::net::{SocketAddr, UnixStream},
            },
        };
        let server = Server::start("");
        let watcher = server.client();
        let offer = super::super::wire::Raw::connect(&server).ask(json!({"id": 1, "cmd": "negotiate_ipc"}));
        let name = offer["unix"].as_str().unwrap();
        for bytes in [4096u64, 1 << 40, u64::MAX] {
            let mut stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
            let hello = json!({"id": 0, "cmd": "hello", "protocol": 1}).to_string();
            write_frame(&mut stream, Role::Request, &hello, &[], u64::MAX).unwrap();
            let place = SharedPlace { segment: 3, bytes, new: true, gone: vec![9] };
            let tensor = [0; 4096];
            let tensors = [TensorRef { bytes: &tensor, ..TensorRef::f32("x", &[1024], &[]) }];
            let echo = json!({"id": 1, "cmd": "echo"}).to_string();
            stream.write_all(&shared_frame(Role::Request, &echo, &tensors, &place)).unwrap();
            let mut answers = Vec::new();
            let _ = stream.read_to_end(&mut answers);
            let answers = String::from_utf8_lossy(&answers).into_owned();
            assert!(answers.contains("segment") || answers.contains("limit_exceeded"), "{answers}");
        }
        watcher.ping().unwrap();
    }
}
