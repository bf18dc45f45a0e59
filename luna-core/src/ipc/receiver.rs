//! What comes by a connection. Enters: bytes and descriptors. Leaves: bytes of frames, and the tensors' bytes in shared
//! memory, which is checked before it is mapped: its other side may be hostile.

use super::{
    FREE, HEAD, MOST, SEGMENTS, Stream,
    eager::Eager,
    system::{Descriptor, Memory},
};
use crate::{
    Error, ErrorKind, Result,
    limits::check_at_most,
    protocol::{FrameLimits, Message, SharedBytes, SharedPlace},
};
use std::{
    collections::{HashMap, VecDeque},
    io::{self, Read},
    sync::{Arc, atomic::Ordering},
};

/// Descriptors that may have come before the frames that name them.
const AHEAD: usize = 16;

/// Reads bytes; keeps the other side's segments.
pub struct Receiver {
    stream: Stream,
    descriptors: VecDeque<Descriptor>,
    known: HashMap<u32, Arc<Memory>>,
    eager: Eager,
}

/// Tensors' bytes in a segment, which is its maker's again when this is dropped.
struct Borrowed {
    memory: Arc<Memory>,
    end: usize,
}

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        self.memory.read(HEAD..self.end)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.memory.word().store(FREE, Ordering::Release);
    }
}

impl Receiver {
    /// Reads from this connection.
    pub fn new(stream: Stream) -> Self {
        Self { stream, descriptors: VecDeque::new(), known: HashMap::new(), eager: Eager::default() }
    }

    /// Checks a body that was read from here.
    ///
    /// # Errors
    /// As [`Message::parse`]; `InvalidInput` for shared memory that is none, `LimitExceeded` for too much of it.
    pub fn parse(&mut self, body: Vec<u8>, limits: &FrameLimits) -> Result<Message> {
        Message::parse_with(body, limits, |place| self.open(place))
    }

    fn open(&mut self, place: &SharedPlace) -> Result<SharedBytes> {
        let wrong = |message: &str| Error::new(ErrorKind::InvalidInput, message).found(place.segment.to_string());
        for gone in &place.gone {
            self.known.remove(gone);
        }
        if place.new {
            let descriptor = self.descriptors.pop_front().ok_or_else(|| wrong("a new segment without a descriptor"))?;
            if self.known.contains_key(&place.segment) {
                return Err(wrong("a segment of this number is known already"));
            }
            check_at_most("segments of shared memory", self.known.len() as u64 + 1, SEGMENTS as u64)?;
            let held: usize = self.known.values().map(|memory| memory.len()).sum();
            let memory = Memory::open(descriptor, MOST - held.min(MOST))?;
            self.known.insert(place.segment, Arc::new(memory));
        }
        let memory = self.known.get(&place.segment).ok_or_else(|| wrong("no segment of this number is known"))?;
        let end = usize::try_from(place.bytes).ok().and_then(|bytes| bytes.checked_add(HEAD));
        match end.filter(|&end| end <= memory.len()) {
            Some(end) => Ok(Box::new(Borrowed { memory: memory.clone(), end })),
            None => Err(wrong("the tensors are larger than their segment")),
        }
    }
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { stream, descriptors, eager, .. } = self;
        let read = eager.read(|waits| stream.receive(buffer, descriptors, waits));
        if self.descriptors.len() > AHEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors"));
        }
        read
    }
}
