//! The commands of the program that have to do with a daemon.

use super::{Server, program, run, until};
use luna_tests::vae;
use serde_json::Value;
use std::{fs, process::Output};

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The outcome but for what differs from run to run.
fn timeless(mut outcome: Value) -> Value {
    outcome["call"]["seconds"] = Value::Null;
    outcome["peak_memory_bytes"] = Value::Null;
    outcome
}

#[test]
fn encode_and_decode_give_the_same_embedded_and_by_a_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&format!("--model-root {}", folder.path().display()));
    let elsewhere = tempfile::tempdir().unwrap();
    let photo = luna_tests::workspace::root().join("examples/photos/chelsea.png");
    fs::copy(photo, folder.path().join("photo.png")).unwrap();
    fs::write(folder.path().join("own.safetensors"), vae::case("ldm_sd").model()).unwrap();
    let uploaded = elsewhere.path().join("uploaded.safetensors");
    fs::write(&uploaded, vae::case("ldm_sd").model()).unwrap();
    let uploaded = format!("--vae {} --latent-format sd15 --scaled", uploaded.display());
    let cases = [
        ("", ""),
        ("--tile 128 --overlap 32 --precision bf16", "--tile 128 --overlap 32 --precision bf16"),
        ("--vae own.safetensors --latent-format sdxl --sample --seed 5 --size-rule pad", "--vae own.safetensors"),
        (&*uploaded, "--vae own.safetensors --latent-format sd15"),
    ];
    for (encode, decode) in cases {
        let mut told = Vec::new();
        for connect in [String::new(), format!("--connect {}", server.address)] {
            let encoded =
                run(folder.path(), &format!("encode photo.png -o latent.safetensors --json {encode} {connect}"));
            let encoded = timeless(json(&encoded));
            let latent = fs::read(folder.path().join("latent.safetensors")).unwrap();
            let decoded =
                run(folder.path(), &format!("decode latent.safetensors -o out.safetensors --json {decode} {connect}"));
            let decoded = timeless(json(&decoded));
            told.push((encoded, latent, decoded, fs::read(folder.path().join("out.safetensors")).unwrap()));
        }
        let [embedded, remote] = told.try_into().unwrap();
        assert_eq!(embedded.0, remote.0, "{encode}");
        assert!(embedded.1 == remote.1, "the latents of `{encode}` differ");
        assert_eq!(embedded.2, remote.2, "{decode}");
        assert!(embedded.3 == remote.3, "the pictures of `{decode}` differ");
    }
    let status = json(&run(folder.path(), &format!("status --json --connect {}", server.address)));
    let models = status["status"]["models"].as_array().unwrap();
    assert!(models.iter().any(|model| model["name"] == "own.safetensors" && !model["path"].is_null()), "{status}");
    assert!(models.iter().any(|model| model["name"] == "uploaded.safetensors" && model["path"].is_null()), "{status}");
}

#[test]
fn what_only_this_process_could_heed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for option in ["--threads 3", "--device cpu"] {
        let output = run(folder.path(), &format!("encode a.png -o b.safetensors --connect 127.0.0.1:1 {option}"));
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    }
    let output = run(folder.path(), "status --connect 127.0.0.1:1");
    assert_eq!(output.status.code(), Some(6), "{}", text(&output));
    assert!(text(&output).contains("luna-cli start"), "{}", text(&output));
}

#[test]
fn a_daemon_is_started_watched_relieved_and_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let started = json(&run(folder.path(), "start --listen 127.0.0.1:0 --threads 1 --json"));
    let address = started["address"].as_str().unwrap();
    assert!(started["watch"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{started}");
    // A second one cannot listen there, and says why.
    let again = run(folder.path(), &format!("start --listen {address} --watch-listen off"));
    assert_eq!(again.status.code(), Some(6), "{}", text(&again));
    assert!(text(&again).contains(address), "{}", text(&again));

    super::picture_file(&folder.path().join("a.png"));
    json(&run(folder.path(), &format!("encode a.png -o b.safetensors --json --connect {address}")));
    let table = text(&run(folder.path(), &format!("status --connect {address}")));
    assert!(table.contains("moonlet") && table.contains("vae") && table.contains("waiting"), "{table}");
    let freed = json(&run(folder.path(), &format!("unload --json --connect {address}")));
    assert_eq!(freed["freed"], serde_json::json!(["moonlet"]));
    assert!(freed["freed_bytes"].as_u64().unwrap() > 1 << 20);

    let mut watch = program();
    watch.args(["status", "--watch", "--connect", address]).stdout(std::process::Stdio::piped());
    let mut watch = watch.spawn().unwrap();
    let mut tables = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    let mut heads = 0;
    while heads < 2 {
        heads += usize::from(tables.next().unwrap().unwrap().starts_with("luna "));
    }
    watch.kill().unwrap();
    watch.wait().unwrap();

    let stopped = run(folder.path(), &format!("stop --connect {address}"));
    assert!(stopped.status.success(), "{}", text(&stopped));
    until("the end", || std::net::TcpStream::connect(address).is_err());
}

#[test]
fn clients_may_be_forbidden_to_stop_and_unload() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start("--deny-shutdown --deny-unload");
    for command in ["stop", "unload"] {
        let output = run(folder.path(), &format!("{command} --connect {}", server.address));
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains("forbid"), "{}", text(&output));
    }
    server.client().ping().unwrap();
}

#[test]
fn a_token_is_asked_for_where_it_is_set_and_needed_beyond_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (folder.path().join("right"), folder.path().join("wrong"));
    fs::write(&right, "0123456789abcdef-right\n").unwrap();
    fs::write(&wrong, "0123456789abcdef-wrong\n").unwrap();
    let server = Server::start(&format!("--token-file {}", right.display()));
    let status = |options: &str| run(folder.path(), &format!("status --connect {} {options}", server.address));
    for options in ["", "--token-file wrong"] {
        let output = status(options);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains("token"), "{}", text(&output));
    }
    assert!(status("--token-file right").status.success());
    let open = run(folder.path(), "serve --listen 0.0.0.0:0");
    assert_eq!(open.status.code(), Some(2), "{}", text(&open));
    assert!(text(&open).contains("--token-file"), "{}", text(&open));
}
