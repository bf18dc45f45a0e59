use super::{HEAD, LEAST, Receiver, Sender, Stream, system::Local};
use crate::{
    ErrorKind, Result,
    protocol::{FrameLimits, Message, Role, SharedPlace, TensorRef, read_body, shared_frame},
};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::os::fd::OwnedFd;

fn pair() -> (Sender, Receiver) {
    let (one, other) = Local::pair().unwrap();
    (Sender::new(one.into()), Receiver::new(other.into()))
}

fn receive(receiver: &mut Receiver) -> Result<Message> {
    let limits = FrameLimits::default();
    let body = read_body(receiver, &limits)?.expect("a frame");
    receiver.parse(body, &limits)
}

fn values(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 31 + seed) % 1000) as f32).collect()
}

#[test]
fn large_tensors_lie_in_shared_memory_which_is_used_again() {
    let (sender, mut receiver) = pair();
    let count = 3 * LEAST;
    for round in 0..8 {
        let (first, second) = (values(count, round), values(count / 2, round + 1));
        let shapes = ([count], [1, count / 2]);
        let tensors = [TensorRef::f32("a", &shapes.0, &first), TensorRef::f32("b", &shapes.1, &second)];
        sender.send(Role::Reply, "{\"id\":1}", &tensors, u64::MAX).unwrap();
        let message = receive(&mut receiver).unwrap();
        assert_eq!(message.json(), "{\"id\":1}");
        assert_eq!(message.tensor("a").unwrap().values().unwrap(), first);
        assert_eq!(message.tensor("b").unwrap().values().unwrap(), second);
        assert!(message.bytes() > 4 * (count + count / 2) as u64);
    }
    assert_eq!(sender.segments(), 1);
    // Who keeps what came is not disturbed by what follows.
    let send = |seed| {
        let values = values(count, seed);
        sender.send(Role::Reply, "{}", &[TensorRef::f32("a", &[count], &values)], u64::MAX).unwrap();
    };
    let kept: Vec<_> = (0..3).map(|seed| (send(seed), receive(&mut receiver).unwrap()).1).collect();
    assert_eq!(sender.segments(), 3);
    for (seed, message) in kept.iter().enumerate() {
        assert_eq!(message.tensor("a").unwrap().values().unwrap(), values(count, seed));
    }
    drop(kept);
    // Copied by several threads, where it is large enough.
    let large = values((5 << 20) + 3, 7);
    sender.send(Role::Reply, "{}", &[TensorRef::f32("a", &[large.len()], &large)], u64::MAX).unwrap();
    assert_eq!(receive(&mut receiver).unwrap().tensor("a").unwrap().values().unwrap(), large);
    assert!(sender.send(Role::Reply, "{}", &[TensorRef::f32("a", &[large.len()], &large)], 1 << 20).is_err());
}

#[test]
fn memory_is_bounded_and_the_stream_takes_what_is_beyond() {
    let (sender, receiver) = pair();
    let mut receiver = receiver;
    let count = 10 << 20;
    let values = values(count, 0);
    let reader = std::thread::spawn(move || {
        let kept: Vec<_> = (0..6).map(|_| receive(&mut receiver).unwrap()).collect();
        let counts = kept.iter().map(|message| message.tensor("a").unwrap().values().unwrap().len());
        (counts.sum::<usize>(), receiver)
    });
    for _ in 0..6 {
        sender.send(Role::Reply, "{}", &[TensorRef::f32("a", &[count], &values)], u64::MAX).unwrap();
    }
    let (got, _receiver) = reader.join().unwrap();
    assert_eq!(got, 6 * count);
    assert_eq!(sender.segments(), 4, "64 MiB each, 256 MiB at most");
    // Smaller ones give way to a larger one as soon as they are free.
    let larger = vec![0.5; 20 << 20];
    sender.send(Role::Reply, "{}", &[TensorRef::f32("a", &[larger.len()], &larger)], u64::MAX).unwrap();
    assert_eq!(sender.segments(), 3);
}

fn memory(bytes: u64, seals: SealFlags) -> OwnedFd {
    let made = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&made, bytes).unwrap();
    fcntl_add_seals(&made, seals).unwrap();
    made
}

#[test]
fn what_is_no_memory_to_be_shared_is_refused() {
    let limits = FrameLimits::default();
    let place = |segment, bytes, new| SharedPlace { segment, bytes, new, gone: Vec::new() };
    let file = || OwnedFd::from(tempfile::tempfile().unwrap());
    let sealed = SealFlags::SHRINK;
    let cases: [(Option<OwnedFd>, SharedPlace, &str); 8] = [
        (Some(memory(1 << 20, SealFlags::GROW)), place(0, 4096, true), "may shrink"),
        (Some(file()), place(0, 4096, true), "cannot be sealed"),
        (Some(memory(0, sealed)), place(0, 4096, true), "an empty one"),
        (Some(memory(4096, sealed)), place(0, 4096, true), "larger than their segment"),
        (Some(memory(1 << 30, sealed)), place(0, 4096, true), "too many bytes"),
        (None, place(0, 4096, true), "without a descriptor"),
        (None, place(3, 4096, false), "no segment of this number"),
        (Some(memory(1 << 20, sealed)), place(0, u64::MAX, true), "too many bytes"),
    ];
    for (descriptor, place, says) in cases {
        let (one, other) = Local::pair().unwrap();
        let (stream, mut receiver) = (Stream::from(one), Receiver::new(other.into()));
        let bytes = [0; 4096];
        let tensors = [TensorRef { bytes: &bytes, ..TensorRef::f32("a", &[1024], &[]) }];
        stream.send(&shared_frame(Role::Request, "{\"id\":1}", &tensors, &place), descriptor.as_ref()).unwrap();
        let body = read_body(&mut receiver, &limits).unwrap().unwrap();
        let error = receiver.parse(body, &limits).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::LimitExceeded | ErrorKind::Io), "{error}");
        assert!(error.to_string().contains(says), "{error}, not {says}");
    }
    // Numbers are given once, and a frame may not have its tensors in both places.
    let (one, other) = Local::pair().unwrap();
    let (stream, mut receiver) = (Stream::from(one), Receiver::new(other.into()));
    let bytes = [0; 4096];
    let tensors = [TensorRef { bytes: &bytes, ..TensorRef::f32("a", &[1024], &[]) }];
    for expected in [true, false] {
        let frame = shared_frame(Role::Request, "{}", &tensors, &place(0, 4096, true));
        stream.send(&frame, Some(&memory(HEAD as u64 + 4096, sealed))).unwrap();
        assert_eq!(receive(&mut receiver).is_ok(), expected);
    }
    let mut frame = shared_frame(Role::Request, "{}", &tensors, &place(0, 4096, false));
    let length = (frame.len() - 4 + 4096) as u32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&bytes);
    stream.send(&frame, None).unwrap();
    assert!(receive(&mut receiver).unwrap_err().to_string().contains("as well"));
}

#[test]
fn a_stream_without_shared_memory_refuses_it() {
    let place = SharedPlace { segment: 0, bytes: 4, new: false, gone: Vec::new() };
    let frame = shared_frame(Role::Request, "{}", &[TensorRef::f32("a", &[1], &[0.0])], &place);
    let error = Message::parse(frame[4..].to_vec(), &FrameLimits::default()).unwrap_err();
    assert!(error.to_string().contains("no shared memory"), "{error}");
}
