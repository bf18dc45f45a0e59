//! Clients and daemons that end in the midst of things.

use super::{
    Options,
    server::{Server, client, signal, until},
};
use luna_core::{
    Image,
    protocol::{Echo, GetStatus, Hello, Role, TensorRef, VERSION, VaeEncode, write_frame},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The client that is killed: sends half a frame (and, by shared memory, whole ones before) and waits for its end.
pub fn half_a_frame(words: &[String]) -> ExitCode {
    let [address, kind] = words else { return ExitCode::FAILURE };
    let values = vec![0.5; 300_000];
    let tensors = [TensorRef::f32("x", &[300_000], &values)];
    let near = (kind == "near").then(|| client(address, true));
    if let Some(near) = &near {
        // Its memory is mapped on both sides when it dies, and an answer is on its way.
        let _kept = near.call(&Echo {}, &tensors).expect("an echo");
        let _pending = near.start(&Echo {}, &tensors).expect("a request");
    }
    let mut stream = TcpStream::connect(address).expect("a daemon");
    let hello = Hello { protocol: VERSION, ..Hello::default() };
    let head = luna_core::protocol::RequestHead::default();
    let text = head.json("hello", &hello).expect("JSON");
    write_frame(&mut stream, Role::Request, &text, &[], u64::MAX).expect("a handshake");
    let mut frame = Vec::new();
    let text = head.json("echo", &Echo {}).expect("JSON");
    write_frame(&mut frame, Role::Request, &text, &tensors, u64::MAX).expect("a frame");
    stream.write_all(&frame[..frame.len() / 2]).expect("half of it");
    println!("here");
    thread::sleep(Duration::from_secs(600));
    ExitCode::SUCCESS
}

pub fn kills(options: &Options) -> bool {
    let server = Server::start(&options.program, "127.0.0.1:0", &[]);
    let watcher = server.client(false);
    let own = std::env::current_exe().expect("this program has a path");
    let connections = || watcher.call(&GetStatus {}, &[]).map(|answer| answer.reply["connections"].clone());
    let mut at_rest = None;
    let start = Instant::now();
    for kill in 0..options.kills {
        let kind = if kill % 2 == 0 { "far" } else { "near" };
        let mut child = Command::new(&own);
        child.args(["half-a-frame", &server.address, kind]).stdout(Stdio::piped());
        let mut child = child.spawn().expect("this program");
        let mut told = [0; 5];
        child.stdout.take().expect("piped").read_exact(&mut told).expect("its word");
        signal(child.id(), "KILL");
        child.wait().expect("its end");
        if kill == options.kills / 10 {
            until(|| connections().is_ok_and(|count| count == 1));
            at_rest = Some((server.resident(), server.descriptors()));
        }
    }
    let alone = until(|| connections().is_ok_and(|count| count == 1));
    let (before, descriptors) = at_rest.unwrap_or((server.resident(), server.descriptors()));
    let (after, open) = (server.resident(), server.descriptors());
    println!(
        "  {} clients killed in mid-frame in {:.0} s, half of them with shared memory mapped",
        options.kills,
        start.elapsed().as_secs_f64()
    );
    println!(
        "  resident {before:.0} MiB after a tenth of them, {after:.0} MiB at the end; descriptors {descriptors} and {open}"
    );
    watcher.ping().is_ok() && alone && open <= descriptors && after < before * 1.05 + 16.0
}

pub fn restarts(options: &Options) -> bool {
    let mut server = Server::start(&options.program, "127.0.0.1:0", &[]);
    let address = server.address.clone();
    let image = Image::new([1, 64, 96, 3], vec![0.5; 64 * 96 * 3]).expect("a picture");
    let request = VaeEncode { vae: Some("moonlet".to_owned()), ..VaeEncode::default() };
    let (expected, _) = server.client(true).vae_encode(&image, &request, &Default::default()).expect("a latent");
    let (ended, done, failed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let mut codes = Vec::new();
    thread::scope(|scope| {
        for number in 0..8 {
            let (address, image, request, expected) = (&address, &image, &request, &expected);
            let (ended, done, failed) = (&ended, &done, &failed);
            scope.spawn(move || {
                let client = client(address, number % 2 == 0);
                while !ended.load(Ordering::Relaxed) {
                    match client.vae_encode(image, request, &Default::default()) {
                        Ok((latent, _)) if latent == *expected => done.fetch_add(1, Ordering::Relaxed),
                        Ok(_) => failed.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            println!("    {error}");
                            failed.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            });
        }
        for round in 0..options.restarts {
            thread::sleep(Duration::from_secs(2));
            let old = std::mem::replace(&mut server, Server::start(&options.program, "127.0.0.1:0", &[]));
            if round % 2 == 0 {
                codes.push(old.terminate());
            } else {
                signal(old.pid(), "KILL");
                drop(old);
            }
            server = Server::start(&options.program, &address, &[]);
        }
        thread::sleep(Duration::from_secs(2));
        ended.store(true, Ordering::Relaxed);
    });
    let (done, failed) = (done.into_inner(), failed.into_inner());
    println!(
        "  {} ends under the load of 8 clients, SIGTERM and SIGKILL in turn: {done} right answers, {failed} failed; SIGTERM ends with {codes:?}",
        options.restarts
    );
    failed == 0 && done > 0 && codes.iter().all(|code| *code == Some(0))
}
