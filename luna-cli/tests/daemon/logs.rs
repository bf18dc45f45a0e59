//! What a daemon logs: lines for a person, or objects, each with the request that it belongs to.

use super::{Server, program, run, until};
use serde_json::Value;
use std::{fs, process::Stdio};

/// Starts a daemon whose log is a file, has something done and something refused, and gives the log back.
fn log_of(options: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("luna.log");
    let mut server = Server::start(&format!("{options} --log-file {}", path.display()));
    let address = server.address.clone();
    super::picture_file(&folder.path().join("a.png"));
    assert!(run(folder.path(), &format!("encode a.png -o b.safetensors --connect {address}")).status.success());
    assert!(!run(folder.path(), &format!("unload nothing --connect {address}")).status.success());
    assert!(run(folder.path(), &format!("stop --connect {address}")).status.success());
    assert_eq!(server.ended(), Some(0));
    // Where nothing is logged there is no file.
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn json_lines_tell_requests_by_their_ids() {
    let log = log_of("--log-level debug --log-format json");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |key: &'static str, value: &'static str| lines.iter().filter(move |line| line[key] == value);
    assert_eq!(of("message", "connected").count(), 3, "{log}");
    assert_eq!(of("message", "draining").count(), 1, "{log}");
    let encoded = of("command", "vae_encode").find(|line| line["message"] == "answered").unwrap();
    assert!(encoded["request"].as_u64().unwrap() > 0 && encoded["compute_ms"].as_f64().unwrap() > 0.0, "{encoded}");
    assert!(encoded["connection"].is_u64() && encoded["client"].is_string() && encoded["timestamp"].is_string());
    let refused = of("command", "unload_models").next().unwrap();
    assert_eq!((&refused["level"], &refused["fault"]), (&"WARN".into(), &"not_found".into()), "{refused}");
    // What the library tells of its own accord bears the request that it was done for.
    let built = of("target", "luna_core::registry").next().unwrap();
    assert_eq!(built["span"]["command"], "vae_encode", "{built}");
    assert_eq!(built["span"]["request"], encoded["request"], "{built}");
}

#[test]
fn lines_for_people_are_lines_and_levels_hold() {
    let log = log_of("--log-level info");
    assert!(log.lines().any(|line| line.contains("INFO") && line.contains("command=\"vae_encode\"")), "{log}");
    assert!(!log.contains("DEBUG") && !log.contains('\u{1b}'), "{log}");
    let quiet = log_of("");
    assert!(quiet.lines().count() == 1 && quiet.contains("WARN"), "{quiet}");
    assert_eq!(log_of("--log-level off"), "");
}

#[test]
fn without_a_file_it_is_standard_error() {
    let mut command = program();
    command.args(["serve", "--listen", "127.0.0.1:0", "--log-level", "info"]).stderr(Stdio::piped());
    let mut server = Server::spawn(command);
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &format!("stop --connect {}", server.address));
    until("the end", || server.child.try_wait().unwrap().is_some());
    let told = std::io::read_to_string(server.child.stderr.take().unwrap()).unwrap();
    assert!(told.contains("connected") && told.contains("command=\"shutdown\""), "{told}");
}
