//! What leaves by a connection. Enters: JSON and tensors. Leaves: frames, with large tensors in shared memory where the
//! connection can.

use super::{FREE, HEAD, LEAST, MOST, SEGMENTS, Stream, TAKEN, system::Memory};
use crate::{
    Result,
    limits::check_at_most,
    protocol::{Role, SharedPlace, TensorRef, failed, shared_frame, write_frame},
};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::{
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// The least capacity of a segment.
const SMALLEST: usize = 1 << 20;
/// From so many bytes on a copy is shared by threads.
const SHARED: usize = 4 << 20;
/// So much of it a thread copies at a time.
const PIECE: usize = 256 << 10;
/// More threads than these do not copy faster.
const MOST_COPIERS: usize = 4;

/// Writes frames, one at a time, for any number of threads.
pub struct Sender {
    stream: Stream,
    segments: Mutex<Segments>,
}

#[derive(Default)]
struct Segments {
    own: Vec<Segment>,
    next: u32,
}

struct Segment {
    number: u32,
    memory: Memory,
    /// Whether the other side has it.
    told: bool,
}

impl Segment {
    fn is_free(&self) -> bool {
        self.memory.word().load(Ordering::Acquire) == FREE
    }
}

impl Sender {
    /// Writes to this connection.
    pub fn new(stream: Stream) -> Self {
        Self { stream, segments: Mutex::default() }
    }

    /// The connection.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// `LimitExceeded` for a body above `most` bytes, with nothing written; `Io`.
    ///
    /// # Panics
    /// If the bytes of a tensor are not as many as its shape says.
    pub fn send(&self, role: Role, json: &str, tensors: &[TensorRef], most: u64) -> Result<()> {
        // Whoever writes has the lock, also where there is no shared memory.
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: usize = tensors.iter().map(|tensor| tensor.bytes.len()).sum();
        if self.stream.is_local()
            && bytes >= LEAST
            && let Some((segment, gone)) = segments.take(bytes)
        {
            check_at_most("bytes in a frame", bytes as u64, most)?;
            let place = SharedPlace { segment: segment.number, bytes: bytes as u64, new: !segment.told, gone };
            let mut at = HEAD;
            for tensor in tensors {
                copy(&segment.memory, at, tensor.bytes);
                at += tensor.bytes.len();
            }
            segment.memory.word().store(TAKEN, Ordering::Release);
            let descriptor = place.new.then(|| segment.memory.descriptor());
            segment.told = true;
            return self.stream.send(&shared_frame(role, json, tensors, &place), descriptor).map_err(failed);
        }
        write_frame(&mut &self.stream, role, json, tensors, most)
    }
}

impl Segments {
    /// A free segment for so many bytes, and those that were given up for it; nothing where there is no room for one.
    fn take(&mut self, bytes: usize) -> Option<(&mut Segment, Vec<u32>)> {
        let needed = bytes.checked_add(HEAD)?;
        let fits = |segment: &Segment| segment.memory.len() >= needed && segment.is_free();
        let best = (0..self.own.len()).filter(|&i| fits(&self.own[i])).min_by_key(|&i| self.own[i].memory.len());
        if let Some(best) = best {
            return Some((&mut self.own[best], Vec::new()));
        }
        let capacity = needed.checked_next_power_of_two()?.max(SMALLEST);
        if capacity > MOST {
            return None;
        }
        let mut gone = Vec::new();
        while self.own.len() >= SEGMENTS || self.held() + capacity > MOST {
            let free = self.own.iter().position(Segment::is_free)?;
            let segment = self.own.swap_remove(free);
            gone.extend(segment.told.then_some(segment.number));
        }
        // Where the system has no memory to share, the stream has to do.
        let memory = Memory::create(capacity).ok()?;
        self.own.push(Segment { number: self.next, memory, told: false });
        self.next = self.next.wrapping_add(1);
        self.own.last_mut().map(|segment| (segment, gone))
    }

    fn held(&self) -> usize {
        self.own.iter().map(|segment| segment.memory.len()).sum()
    }
}

/// Threads that do nothing but copy, for all connections: started with the first large tensor, asleep between two.
static COPIERS: LazyLock<Option<ThreadPool>> = LazyLock::new(|| {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST_COPIERS) - 1;
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|_| "luna-copier".to_owned());
    // Where there can be none, the caller copies all.
    (threads > 0).then(|| pool.build().ok()).flatten()
});

/// Copies into a segment. One thread does not use all of the memory's speed.
fn copy(memory: &Memory, at: usize, bytes: &[u8]) {
    let pool = COPIERS.as_ref().filter(|_| bytes.len() >= SHARED);
    let Some(pool) = pool else { return memory.write(at, bytes) };
    // Whoever comes takes the next piece, so that nobody waits for a thread that wakes up late.
    let next = AtomicUsize::new(0);
    let work = || {
        let pieces = std::iter::repeat_with(|| next.fetch_add(PIECE, Ordering::Relaxed));
        for from in pieces.take_while(|&from| from < bytes.len()) {
            memory.write(at + from, &bytes[from..bytes.len().min(from + PIECE)]);
        }
    };
    pool.in_place_scope(|scope| {
        (0..pool.current_num_threads()).for_each(|_| scope.spawn(|_| work()));
        work();
    });
}

#[cfg(all(test, target_os = "linux"))]
impl Sender {
    /// How many segments there are.
    pub(super) fn segments(&self) -> usize {
        self.segments.lock().unwrap().own.len()
    }
}
