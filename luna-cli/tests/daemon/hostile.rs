//! Frames that are damaged, thrown at a live daemon while another client is served.

use super::{Server, picture, wire::moonlet};
use luna_core::client::CallOptions;
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use std::{
    io::Write,
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

const FRAMES: usize = 100_000;
const THROWERS: usize = 4;
/// Frames thrown at one connection, if it bears them.
const A_CONNECTION: usize = 200;

fn golden() -> Vec<Vec<u8>> {
    let folder = luna_tests::workspace::root().join("tests/fixtures/protocol");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "frame"));
    paths.sort();
    assert!(paths.len() >= 6);
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// A frame with something wrong: bits, lengths, pieces left out, doubled or cut.
fn mutated(random: &mut impl Rng, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = frames.choose(random).unwrap().clone();
    for _ in 0..random.random_range(1..=4) {
        let length = frame.len();
        if length < 2 {
            break;
        }
        let (a, b) = (random.random_range(0..length), random.random_range(0..length));
        let (from, to) = (a.min(b), a.max(b));
        match random.random_range(0..7) {
            0 => frame[a] ^= 1 << random.random_range(0..8),
            1 => frame[a] = random.random(),
            2 => drop(frame.drain(from..to)),
            3 => frame.extend_from_within(from..to),
            4 => frame.truncate(to),
            5 => frame[from..to].fill(random.random()),
            // The length of the header, which lies behind the frame's.
            _ => frame[(4 + a % 8).min(length - 1)] = random.random(),
        }
    }
    // Mostly with the right length, so that what is inside is read at all.
    if random.random_bool(0.9) && frame.len() > 4 {
        let length = (frame.len() - 4) as u32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
    }
    frame
}

fn throw(address: &str, seed: u64, count: usize, thrown: &AtomicUsize) {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let frames = golden();
    let hello = frames.iter().find(|frame| String::from_utf8_lossy(frame).contains("hello")).unwrap().clone();
    let mut left = count;
    while left > 0 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        // Now and then the first frame is a damaged one already.
        if random.random_bool(0.9) && stream.write_all(&hello).is_err() {
            continue;
        }
        let mut reader = stream.try_clone().unwrap();
        let drained = thread::spawn(move || _ = std::io::copy(&mut reader, &mut std::io::sink()));
        for _ in 0..A_CONNECTION.min(left) {
            let frame = mutated(&mut random, &frames);
            left -= 1;
            thrown.fetch_add(1, Ordering::Relaxed);
            if stream.write_all(&frame).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
        drained.join().unwrap();
    }
}

#[test]
fn a_hundred_thousand_mutated_frames_disturb_nobody() {
    let mut server = Server::start("--stall 2 --handshake 2");
    let client = server.client();
    let image = picture(32, 48);
    let (expected, _) = client.vae_encode(&image, &moonlet(), &CallOptions::default()).unwrap();
    let (thrown, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let served = thread::scope(|scope| {
        let (address, thrown, done) = (&server.address, &thrown, &done);
        let throwers: Vec<_> = (0..THROWERS)
            .map(|seed| scope.spawn(move || throw(address, seed as u64, FRAMES / THROWERS, thrown)))
            .collect();
        let served = scope.spawn(|| {
            let mut served = 0;
            while !done.load(Ordering::Relaxed) {
                let (latent, _) = client.vae_encode(&image, &moonlet(), &CallOptions::default()).unwrap();
                assert_eq!(latent, expected);
                client.ping().unwrap();
                served += 1;
            }
            served
        });
        let outcomes: Vec<_> = throwers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(outcomes.iter().all(Result::is_ok));
        served.join().unwrap()
    });
    assert_eq!(thrown.into_inner(), FRAMES);
    assert!(served >= 5, "the other client was served {served} times only");
    assert!(server.child.try_wait().unwrap().is_none(), "the daemon has ended");
    let (latent, _) = client.vae_encode(&image, &moonlet(), &CallOptions::default()).unwrap();
    assert_eq!(latent, expected);
}
