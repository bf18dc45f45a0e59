//! What all who watch share. Enters: the daemon's state every second, and its workers' comings and goings. Leaves: messages
//! for every listener. One that does not keep up is dropped; nobody holds another up.

use super::{
    history::{History, Sample},
    messages::{self, Scaling, Wanted},
};
use crate::daemon::{Daemon, events::Scaled};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How often everybody is told the state.
const PERIOD: Duration = Duration::from_secs(1);
/// How often the end is looked for.
const LOOK: Duration = Duration::from_millis(100);
/// Messages that a listener may have waiting.
const BACKLOG: usize = 64;
/// So long an answer may serve whoever else asks the same: asking fast costs the daemon nothing.
const FRESH: Duration = Duration::from_millis(10);

/// Messages for a listener.
pub type Messages = Receiver<Arc<str>>;

pub struct Board {
    pub daemon: Arc<Daemon>,
    /// Whether the daemon takes work.
    pub ready: AtomicBool,
    pub closing: AtomicBool,
    /// WebSockets now.
    pub listeners: AtomicUsize,
    answers: Mutex<BTreeMap<u16, u64>>,
    /// Listeners that were too slow.
    pub dropped: AtomicU64,
    senders: Mutex<Vec<SyncSender<Arc<str>>>>,
    history: Mutex<History>,
    made: Mutex<BTreeMap<Wanted, (Instant, Arc<str>)>>,
}

impl Board {
    pub fn new(daemon: &Arc<Daemon>) -> Self {
        Self {
            daemon: daemon.clone(),
            ready: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            listeners: AtomicUsize::new(0),
            answers: Mutex::default(),
            dropped: AtomicU64::new(0),
            senders: Mutex::default(),
            history: Mutex::default(),
            made: Mutex::default(),
        }
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Whether the daemon takes work now.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst) && !self.daemon.is_draining()
    }

    /// Everything that is told to all from now on.
    pub fn listen(&self) -> Messages {
        let (sender, receiver) = sync_channel(BACKLOG);
        lock(&self.senders).push(sender);
        receiver
    }

    /// What is asked for, as it is now.
    pub fn message(&self, wanted: Wanted) -> Arc<str> {
        let mut made = lock(&self.made);
        if let Some((moment, text)) = made.get(&wanted)
            && moment.elapsed() < FRESH
        {
            return text.clone();
        }
        let text: Arc<str> = match wanted {
            Wanted::Status => messages::status(&self.daemon.snapshot()),
            Wanted::Details => messages::details(&self.daemon.snapshot(), lock(&self.history).last()),
            Wanted::History => messages::history(&lock(&self.history)),
        }
        .into();
        made.insert(wanted, (Instant::now(), text.clone()));
        text
    }

    /// Counts workers' comings and goings by pool and direction.
    pub fn scalings(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        lock(&self.history).scaled.clone()
    }

    /// Answers over HTTP by status.
    pub fn answers(&self) -> BTreeMap<u16, u64> {
        lock(&self.answers).clone()
    }

    pub fn count_answer(&self, status: u16) {
        *lock(&self.answers).entry(status).or_default() += 1;
    }

    fn tell(&self, text: &str) {
        let text: Arc<str> = text.into();
        // A listener whose end of the channel is gone sees its own end.
        lock(&self.senders).retain(|sender| sender.try_send(text.clone()).is_ok());
    }

    fn scaled(&self, scaled: Scaled) {
        let scaling = Scaling::new(scaled, self.daemon.memory_available(), now());
        lock(&self.history).add_scaling(scaling);
        self.tell(&messages::scaling(&scaling));
    }

    fn sample(&self) {
        let snapshot = self.daemon.snapshot();
        let totals = self.daemon.counters.totals();
        let mut history = lock(&self.history);
        let sample = Sample::new(now(), &snapshot, &totals, history.totals());
        history.add(sample, totals);
        drop(history);
        self.tell(&messages::status(&snapshot));
    }
}

/// Tells all who listen, until the end.
pub fn keep(board: &Board, scalings: &Receiver<Scaled>) {
    let mut next = Instant::now();
    while !board.is_closing() {
        match scalings.recv_timeout(next.saturating_duration_since(Instant::now()).min(LOOK)) {
            Ok(scaled) => board.scaled(scaled),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = Instant::now();
        if now >= next {
            board.sample();
            // After a long pause it goes on from now, and makes up for nothing.
            next = (next + PERIOD).max(now);
        }
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
