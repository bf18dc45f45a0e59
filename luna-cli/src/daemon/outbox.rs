//! What goes back to a client. Enters: frames from workers and from the connection's reader. Leaves: bytes, a frame at a
//! time. A client that does not read keeps no worker waiting.

use super::reply::Outgoing;
use luna_core::ipc::{Sender, Stream};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub struct Outbox {
    /// Written to by whoever has set `writing`.
    sender: Sender,
    queue: Mutex<Queue>,
    changed: Condvar,
    ended: AtomicBool,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Outgoing>,
    /// A frame was taken and is not yet written.
    writing: bool,
}

impl Outbox {
    /// Starts the thread that writes.
    pub fn start(stream: Stream) -> std::io::Result<Arc<Self>> {
        let sender = Sender::new(stream);
        let outbox =
            Arc::new(Self { sender, queue: Mutex::default(), changed: Condvar::new(), ended: AtomicBool::new(false) });
        let theirs = outbox.clone();
        thread::Builder::new().name("luna-outbox".to_owned()).spawn(move || theirs.work())?;
        Ok(outbox)
    }

    /// Writes a frame soon.
    pub fn send(&self, frame: Outgoing) {
        if !self.has_ended() {
            self.lock().frames.push_back(frame);
            self.changed.notify_all();
        }
    }

    /// Writes a frame now if nothing waits before it. For the connection's own reader, which may wait for its client.
    pub fn send_now(&self, frame: Outgoing) {
        let mut queue = self.lock();
        if queue.writing || !queue.frames.is_empty() {
            drop(queue);
            return self.send(frame);
        }
        queue.writing = true;
        drop(queue);
        self.write(&frame);
        self.written();
    }

    /// Ends both directions: the reader sees the end of the stream.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        // It may have ended by itself.
        let _ = self.sender.stream().shutdown();
        self.lock().frames.clear();
        self.changed.notify_all();
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// A flag that becomes true with the end.
    pub fn ended(&self) -> &AtomicBool {
        &self.ended
    }

    /// Waits until all is written, or so long.
    pub fn flush(&self, most: Duration) {
        let until = Instant::now() + most;
        let mut queue = self.lock();
        while (queue.writing || !queue.frames.is_empty()) && Instant::now() < until && !self.has_ended() {
            queue =
                self.changed.wait_timeout(queue, Duration::from_millis(50)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn work(&self) {
        while let Some(frame) = self.next() {
            self.write(&frame);
            drop(frame);
            self.written();
        }
    }

    fn next(&self) -> Option<Outgoing> {
        let mut queue = self.lock();
        loop {
            if self.has_ended() {
                return None;
            }
            if !queue.writing
                && let Some(frame) = queue.frames.pop_front()
            {
                queue.writing = true;
                return Some(frame);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn write(&self, frame: &Outgoing) {
        // A client that is gone, or does not read for too long, has no use for what follows.
        if frame.write(&self.sender).is_err() {
            self.end();
        }
    }

    fn written(&self) {
        let mut queue = self.lock();
        queue.writing = false;
        // Only `send` and `flush` need to be told, and only if somebody waits.
        let waits = !queue.frames.is_empty() || self.has_ended();
        drop(queue);
        if waits {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
