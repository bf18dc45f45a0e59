//! Load on a daemon: what the wire costs, many clients at once, clients that are killed, a daemon that restarts, the
//! memory of many processes. Prints a figure and its bar for each, and fails if one does not hold.
//!
//!     cargo build --release && target/release/daemon_load --seconds 600

use luna_core::{
    ErrorKind, Image, Runtime,
    client::{CallOptions, Client, ClientSettings},
    protocol::{ClipTokenize, Echo, GetStatus, ListModels, Ping, TensorRef, VaeDecode, VaeEncode},
    vae::Vae,
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// A picture of 1024×1024 in f32.
const PICTURE: [usize; 4] = [1, 1024, 1024, 3];
const CLIENTS: usize = 64;
const KILLS: usize = 1_000;
const PROCESSES: usize = 8;

/// What `--half-frame` and `--hold` make of this program.
fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--half-frame", address] => return half_frame(address),
        ["--hold", address, model] => return hold(address, model),
        ["--hold-own", model] => return hold_own(model),
        _ => {}
    }
    let option = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1)).cloned();
    let seconds = option("--seconds").map_or(20, |text| text.parse().expect("a number of seconds"));
    let kills = option("--kills").map_or(KILLS, |text| text.parse().expect("a number"));
    let only = option("--only");
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let mut bars = Bars(Vec::new());
    if wanted("wire") {
        wire(&mut bars);
    }
    if wanted("clients") {
        clients(&mut bars, Duration::from_secs(seconds));
    }
    if wanted("kill") {
        killed(&mut bars, kills);
    }
    if wanted("restart") {
        restarted(&mut bars);
    }
    if wanted("memory") {
        processes(&mut bars, option("--checkpoint").map(PathBuf::from));
    }
    let missed: Vec<_> = bars.0.iter().filter(|(_, holds)| !holds).map(|(name, _)| name.as_str()).collect();
    if !missed.is_empty() {
        println!("\nmissed: {}", missed.join(", "));
        std::process::exit(1);
    }
}

/// What was measured, and whether it holds.
struct Bars(Vec<(String, bool)>);

impl Bars {
    fn tell(&mut self, name: &str, figure: String, bar: &str, holds: bool) {
        println!("{:<52} {figure:>14}   {bar:<28} {}", name, if holds { "holds" } else { "MISSED" });
        self.0.push((name.to_owned(), holds));
    }
}

/// The program beside this one.
fn luna_cli() -> PathBuf {
    let path = std::env::current_exe().expect("a program").with_file_name("luna-cli");
    assert!(path.exists(), "build luna-cli first: {} is missing", path.display());
    path
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(address: &str, options: &[&str]) -> Self {
        let mut command = Command::new(luna_cli());
        command.args(["serve", "--listen", address]).args(options);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("luna-cli");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on ").expect("an address").to_owned();
        Self { child, address }
    }

    fn client(&self) -> Client {
        let mut settings = ClientSettings::default();
        settings.wait_when_busy = true;
        settings.reconnect_for = Duration::from_secs(120);
        Client::connect(self.address.clone(), settings).expect("a daemon")
    }

    /// Resident bytes.
    fn resident(&self) -> u64 {
        status_kib(self.child.id(), "VmRSS:") << 10
    }

    fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn status_kib(pid: u32, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").trim().parse().unwrap_or(0)
}

/// Bytes of a process, those that it shares divided among their sharers.
fn proportional(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) << 10
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn timed(count: usize, mut work: impl FnMut()) -> Duration {
    median(
        (0..count)
            .map(|_| {
                let start = Instant::now();
                work();
                start.elapsed()
            })
            .collect(),
    )
}

fn ms(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

/// What the way there and back costs.
fn wire(bars: &mut Bars) {
    let server = Server::start("127.0.0.1:0", &[]);
    let client = server.client();
    timed(200, || client.ping().expect("a pong"));
    let ping = timed(2000, || client.ping().expect("a pong"));
    bars.tell(
        "ping, kept connection, median",
        format!("{:.1} us", ping.as_secs_f64() * 1e6),
        "under 60 us",
        ping < Duration::from_micros(60),
    );
    let values: Vec<f32> = (0..PICTURE.iter().product()).map(|i| (i % 1021) as f32 / 1021.0).collect();
    let pixels = [TensorRef::f32("pixels", &PICTURE, &values)];
    let echo = || {
        let answer = client.call(&Echo {}, &pixels).expect("an echo");
        assert_eq!(answer.message.tensor("pixels").expect("pixels").view().bytes.len(), 4 * values.len());
    };
    timed(5, echo);
    let tcp = timed(40, echo).saturating_sub(ping);
    let answer = client.call(&Echo {}, &pixels).expect("an echo");
    assert_eq!(answer.message.tensor("pixels").expect("pixels").values().expect("f32"), values);
    bars.tell(
        "12.6 MB each way over TCP, median, beside a ping",
        ms(tcp),
        "under 12 ms",
        tcp < Duration::from_millis(12),
    );
}

fn picture(height: usize, width: usize) -> Image {
    let values = (0..height * width * 3).map(|i| 0.5 + 0.5 * (i as f32 * 0.017).sin()).collect();
    Image::new([1, height, width, 3], values).expect("a picture")
}

fn moonlet() -> VaeEncode {
    VaeEncode { vae: Some("moonlet".to_owned()), ..VaeEncode::default() }
}

/// Mixed commands, each answer compared with the embedded one.
fn clients(bars: &mut Bars, duration: Duration) {
    let server = Server::start("127.0.0.1:0", &["--queue", "32"]);
    let vae = Vae::moonlet(&Runtime::cpu().expect("threads")).expect("moonlet");
    let images: Vec<Image> = [(16, 24), (32, 16), (40, 64)].map(|(height, width)| picture(height, width)).into();
    let latents: Vec<_> =
        images.iter().map(|image| vae.encode(image, &Default::default()).expect("a latent").latent).collect();
    let pictures: Vec<_> =
        latents.iter().map(|latent| vae.decode(latent, &Default::default()).expect("a picture").image).collect();
    let (stop, asked, busy) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let wrong = Mutex::new(Vec::<String>::new());
    let warm = Mutex::new(None);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (server, stop, asked, busy, wrong) = (&server, &stop, &asked, &busy, &wrong);
            let (images, latents, pictures) = (&images, &latents, &pictures);
            scope.spawn(move || {
                let client = Client::connect(server.address.clone(), ClientSettings::default()).expect("a daemon");
                let mut step = number;
                while !stop.load(Ordering::Relaxed) {
                    let item = step % images.len();
                    let options = CallOptions::default();
                    let outcome = match step % 7 {
                        0 | 1 => client
                            .vae_encode(&images[item], &moonlet(), &options)
                            .map(|(latent, _)| latent == latents[item]),
                        2 | 3 => {
                            let request = VaeDecode { vae: Some("moonlet".to_owned()), ..VaeDecode::default() };
                            client
                                .vae_decode(&latents[item], &request, &options)
                                .map(|(image, _)| image == pictures[item])
                        }
                        4 => client.call(&GetStatus {}, &[]).map(|answer| answer.reply["status"] == "ok"),
                        5 => client.call(&ListModels {}, &[]).map(|answer| answer.reply.models.len() <= 1),
                        _ => client.call(&Ping {}, &[]).map(|answer| answer.reply.pong),
                    };
                    asked.fetch_add(1, Ordering::Relaxed);
                    step += 1;
                    match outcome {
                        Ok(true) => {}
                        Ok(false) => wrong.lock().expect("a lock").push("another answer".to_owned()),
                        Err(error) if error.kind() == ErrorKind::Busy => {
                            busy.fetch_add(1, Ordering::Relaxed);
                            thread::sleep(Duration::from_millis(20));
                        }
                        Err(error) => wrong.lock().expect("a lock").push(error.to_string()),
                    }
                }
            });
        }
        thread::sleep(duration / 4);
        *warm.lock().expect("a lock") = Some(server.resident());
        thread::sleep(duration - duration / 4);
        stop.store(true, Ordering::Relaxed);
    });
    let (warm, last) = (warm.into_inner().expect("a lock").unwrap_or(0), server.resident());
    let wrong = wrong.into_inner().expect("a lock");
    let figure = format!("{} wrong", wrong.len());
    let name = format!(
        "{CLIENTS} clients, {} s, {} requests, {} busy",
        duration.as_secs(),
        asked.into_inner(),
        busy.into_inner()
    );
    bars.tell(&name, figure, "none but busy", wrong.is_empty());
    wrong.iter().take(3).for_each(|text| println!("  {text}"));
    let growth = last as f64 / warm.max(1) as f64;
    bars.tell("memory at the end over memory when warm", format!("{growth:.3}"), "at most 1.10", growth <= 1.10);
}

/// In a process of its own: a frame that does not end.
fn half_frame(address: &str) {
    let mut stream = TcpStream::connect(address).expect("a daemon");
    let hello = r#"{"__metadata__":{"request":"{\"id\":0,\"cmd\":\"hello\",\"protocol\":1}"}}"#;
    let mut body = (hello.len() as u64).to_le_bytes().to_vec();
    body.extend_from_slice(hello.as_bytes());
    stream.write_all(&(body.len() as u32).to_be_bytes()).expect("sent");
    stream.write_all(&body).expect("sent");
    stream.write_all(&(8u32 << 20).to_be_bytes()).expect("sent");
    stream.write_all(&vec![1; 1 << 20]).expect("sent");
    println!("half");
    thread::sleep(Duration::from_secs(60));
}

fn killed(bars: &mut Bars, kills: usize) {
    let server = Server::start("127.0.0.1:0", &[]);
    let client = server.client();
    let this = std::env::current_exe().expect("a program");
    let mut before = (0, 0);
    for number in 0..kills {
        let mut child = Command::new(&this)
            .args(["--half-frame", &server.address])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut word = [0; 4];
        child.stdout.take().expect("piped").read_exact(&mut word).expect("half a frame");
        // On Unix this is SIGKILL.
        child.kill().expect("killed");
        child.wait().expect("ended");
        client.ping().expect("a pong");
        if number == kills / 10 {
            before = (server.files(), server.resident());
        }
    }
    let gone = || client.call(&GetStatus {}, &[]).expect("a status").reply["connections"] == 1;
    let start = Instant::now();
    while !gone() && start.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(10));
    }
    let name = format!("{kills} clients killed in mid-frame: connections left");
    bars.tell(&name, if gone() { "none" } else { "some" }.to_owned(), "none", gone());
    let files = server.files();
    bars.tell(
        "  file handles after 10 % and at the end",
        format!("{} and {files}", before.0),
        "no more",
        files <= before.0,
    );
    let growth = server.resident() as f64 / before.1.max(1) as f64;
    bars.tell("  memory at the end over memory after 10 %", format!("{growth:.3}"), "at most 1.10", growth <= 1.10);
}

/// Clients that go on while the daemon is stopped and started anew.
fn restarted(bars: &mut Bars) {
    let mut server = Server::start("127.0.0.1:0", &[]);
    let address = server.address.clone();
    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let wrong = Mutex::new(Vec::<String>::new());
    thread::scope(|scope| {
        for number in 0..8usize {
            let (address, stop, asked, wrong) = (&address, &stop, &asked, &wrong);
            scope.spawn(move || {
                let mut settings = ClientSettings::default();
                settings.wait_when_busy = true;
                settings.reconnect_for = Duration::from_secs(60);
                let client = Client::connect(address.clone(), settings).expect("a daemon");
                let image = picture(16, 16 + 8 * number);
                while !stop.load(Ordering::Relaxed) {
                    if let Err(error) = client.vae_encode(&image, &moonlet(), &CallOptions::default()) {
                        wrong.lock().expect("a lock").push(error.to_string());
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for graceful in [true, false, true] {
            thread::sleep(Duration::from_secs(1));
            if graceful {
                let status =
                    Command::new(luna_cli()).args(["stop", "--connect", &address]).stdout(Stdio::null()).status();
                assert!(status.expect("luna-cli").success());
            }
            drop(server);
            thread::sleep(Duration::from_millis(200));
            server = Server::start(&address, &[]);
        }
        thread::sleep(Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
    });
    let wrong = wrong.into_inner().expect("a lock");
    let name = format!("3 restarts under load of 8 clients, {} requests", asked.into_inner());
    bars.tell(&name, format!("{} failed", wrong.len()), "none", wrong.is_empty());
    wrong.iter().take(3).for_each(|text| println!("  {text}"));
}

/// In a process of its own: a client that has used the daemon's model.
fn hold(address: &str, model: &str) {
    let client = Client::connect(address, ClientSettings::default()).expect("a daemon");
    let request = VaeEncode { vae: Some(model.to_owned()), ..VaeEncode::default() };
    client.vae_encode(&picture(64, 64), &request, &CallOptions::default()).expect("a latent");
    // Text encoders, where the model has them.
    let _ = client.call(&ClipTokenize { text: "a lighthouse".to_owned(), ..ClipTokenize::default() }, &[]);
    wait_for_the_end();
}

/// In a process of its own: the model itself.
fn hold_own(model: &str) {
    let vae = Vae::open(Path::new(model), &Runtime::cpu().expect("threads")).expect("a VAE");
    vae.encode(&picture(64, 64), &Default::default()).expect("a latent");
    wait_for_the_end();
}

fn wait_for_the_end() {
    println!("done");
    // The other side closes it.
    let _ = std::io::stdin().read(&mut [0]);
}

fn spawn(words: &[&str]) -> Child {
    let this = std::env::current_exe().expect("a program");
    let mut child =
        Command::new(this).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a process");
    let mut word = [0; 4];
    child.stdout.as_mut().expect("piped").read_exact(&mut word).expect("a client that is done");
    child
}

/// One copy for many processes.
fn processes(bars: &mut Bars, checkpoint: Option<PathBuf>) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = checkpoint.unwrap_or_else(|| {
        let path = folder.path().join("sd15-vae.safetensors");
        let words =
            ["bench", "--shape", "sd15", "--size", "64", "--runs", "1", "--only", "encode", "--quiet", "--keep-model"];
        let status = Command::new(luna_cli()).args(words).arg(&path).status().expect("luna-cli");
        assert!(status.success());
        path
    });
    let text = path.to_str().expect("a path in UTF-8");
    let mut own = spawn(&["--hold-own", text]);
    let one = proportional(own.id());
    own.kill().and_then(|()| own.wait()).expect("ended");
    let server = Server::start("127.0.0.1:0", &["--model", &format!("shared={text}")]);
    let mut clients: Vec<Child> = (0..PROCESSES).map(|_| spawn(&["--hold", &server.address, "shared"])).collect();
    let shared = proportional(server.child.id()) + clients.iter().map(|client| proportional(client.id())).sum::<u64>();
    for client in &mut clients {
        client.kill().and_then(|()| client.wait()).expect("ended");
    }
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    println!("one process with its own copy: {}; {PROCESSES} of them: {}", mib(one), mib(one * PROCESSES as u64));
    let name = format!("daemon and {PROCESSES} client processes");
    let bar = format!("under {}", mib(one * 3 / 2));
    bars.tell(&name, mib(shared), &bar, shared < one * 3 / 2);
}
