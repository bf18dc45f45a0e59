//! One client alone: a ping, and a picture of 1024² there and back, by TCP, by shared memory, and by pickles.

use super::{Options, median, server::Server};
use luna_core::{
    client::Client,
    protocol::{Echo, TensorRef},
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    time::Instant,
};

const PINGS: usize = 5000;
const TRANSFERS: usize = 60;
const SHAPE: [usize; 4] = [1, 1024, 1024, 3];

fn milliseconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e3
}

pub fn run(options: &Options) -> bool {
    let server = Server::start(&options.program, "127.0.0.1:0", &[]);
    let values: Vec<f32> = (0..SHAPE.iter().product::<usize>()).map(|i| (i % 991) as f32).collect();
    let bytes = size_of_val(&*values);
    println!("  {:<24} {:>10} {:>22}", "medians", "ping", "12.6 MB each way");
    let mut sound = true;
    for (name, near) in [("TCP", false), ("shared memory", true)] {
        let client = server.client(near);
        sound &= client.is_shared() == near;
        let pings = (0..PINGS).map(|_| milliseconds(|| client.ping().expect("a pong"))).collect();
        let (transfer, good) = transfers(&client, &values);
        sound &= good;
        println!("  {name:<24} {:>7.1} µs {:>19.2} ms", median(pings) * 1e3, transfer);
    }
    println!("  {:<24} {:>7.1} µs   (between threads that sleep)", "bare TCP", bare_ping().expect("a socket") * 1e3);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../bench/pickle_echo.py");
    match Command::new("python3").args([script, &bytes.to_string()]).output() {
        Ok(output) if output.status.success() => {
            let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let of = |key: &str| told[key].as_f64().unwrap_or(f64::NAN);
            let name = "pickles, new connections";
            println!("  {name:<24} {:>7.1} µs {:>19.2} ms", of("ping_ms") * 1e3, of("both_ways_ms"));
        }
        _ => println!("  (no Python for the pickle server)"),
    }
    sound
}

/// The median time of a few bytes there and back between two threads, with nothing but the system between them: they
/// sleep until something comes, as Luna's do only after a moment.
fn bare_ping() -> std::io::Result<f64> {
    const BYTES: usize = 300;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let echo = std::thread::spawn(move || {
        let mut frame = [0; BYTES];
        while server.read_exact(&mut frame).and_then(|()| server.write_all(&frame)).is_ok() {}
    });
    let mut frame = [7; BYTES];
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let start = Instant::now();
        client.write_all(&frame)?;
        client.read_exact(&mut frame)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    drop(client);
    echo.join().expect("the echo ends with its client");
    Ok(median(times))
}

/// The time of what comes back as it went, and whether it did.
fn transfers(client: &Client, values: &[f32]) -> (f64, bool) {
    let tensors = [TensorRef::f32("pixels", &SHAPE, values)];
    let mut sound = true;
    let mut times = Vec::new();
    for round in 0..TRANSFERS {
        let start = Instant::now();
        let answer = client.call(&Echo {}, &tensors).expect("an echo");
        let time = start.elapsed().as_secs_f64() * 1e3;
        sound &= answer.message.tensor("pixels").is_ok_and(|tensor| tensor.view().bytes == tensors[0].bytes);
        // The first ones warm up.
        if round >= 10 {
            times.push(time);
        }
    }
    (median(times), sound)
}
