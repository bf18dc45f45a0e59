//! A daemon in this process, for what only it can be made to do.

use super::{Daemon, Running, handlers::PANIC};
use crate::{
    args::{Args, Command},
    settings::{DaemonSettings, Environment},
};
use clap::Parser;
use luna_core::{
    ErrorKind,
    client::{CallOptions, Client, ClientSettings},
    protocol::{ClipTokenize, GetStatus, VaeEncode},
};
use serde_json::Value;

fn daemon(options: &[&str]) -> Running {
    let words = ["luna-cli", "serve", "--listen", "127.0.0.1:0"].iter().chain(options);
    let Command::Serve(args) = Args::try_parse_from(words).unwrap().command else { panic!("not serve") };
    let settings = DaemonSettings::new(&args, &Environment::new(None, &|_: &str| None).unwrap()).unwrap();
    Running::start(Daemon::new(settings).unwrap()).unwrap()
}

fn client(running: &Running) -> Client {
    Client::connect(running.address().to_string(), ClientSettings::default()).unwrap()
}

fn tokenize(client: &Client, text: &str) -> luna_core::Result<usize> {
    let (text, encoder) = (text.to_owned(), Some("clip_l".to_owned()));
    let request = ClipTokenize { text, encoder, ..ClipTokenize::default() };
    Ok(client.clip_tokenize(&request, &CallOptions::default())?.reply.tokens.len())
}

#[test]
fn a_panic_in_a_worker_is_that_requests_error_and_nothing_else() {
    let running = daemon(&["--pool", "text=1", "--threads", "1"]);
    let (one, other) = (client(&running), client(&running));
    let image = luna_core::Image::new([1, 64, 64, 3], vec![0.5; 64 * 64 * 3]).unwrap();
    let moonlet = VaeEncode { vae: Some("moonlet".to_owned()), ..VaeEncode::default() };
    let (expected, _) = other.vae_encode(&image, &moonlet, &CallOptions::default()).unwrap();
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            for _ in 0..5 {
                assert_eq!(other.vae_encode(&image, &moonlet, &CallOptions::default()).unwrap().0, expected);
            }
        });
        for _ in 0..3 {
            let error = tokenize(&one, PANIC).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal);
            assert!(error.to_string().contains("`clip_tokenize` panicked; the daemon goes on"), "{error}");
            // The same connection, the same pool.
            assert_eq!(tokenize(&one, "a fox").unwrap(), 1);
        }
        beside.join().unwrap();
    });
    let status = Value::Object(other.call(&GetStatus {}, &[]).unwrap().reply);
    let pool = status["pools"].as_array().unwrap().iter().find(|pool| pool["type"] == "text").unwrap();
    assert_eq!((&pool["panicked"], &pool["active_workers"], &pool["queue_depth"]), (&3.into(), &1.into(), &0.into()));
    assert_eq!(status["commands"]["clip_tokenize"]["errors"], 3, "{}", status["commands"]);
}
