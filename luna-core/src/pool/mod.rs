//! Threads that work off a queue, and a bound on what may be in it. Enters: weights (bytes, mostly) that ask for
//! admission, and tasks, each in the lane of who wants it. Leaves: the tasks done, lanes in turn and each lane in order
//! of arrival, and counters. It knows nothing of what they do.

mod lanes;
mod policy;

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result, memory};
use lanes::Lanes;
pub use lanes::Ticket;
pub use policy::{Load, Scaling};

/// What happens to a caller when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum WhenFull {
    /// The call waits for room.
    #[default]
    Wait,
    /// The call fails at once with `Busy`.
    Busy,
}

/// What a pool has done and is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PoolCounters {
    /// Threads now.
    pub threads: usize,
    /// Threads at work now.
    pub busy: usize,
    /// Tasks that wait now.
    pub waiting: usize,
    /// Weight that is admitted now.
    pub weight: u64,
    /// The most weight that was admitted at once.
    pub peak_weight: u64,
    /// Tasks finished.
    pub finished: u64,
    /// Tasks that panicked; they are counted as finished too.
    pub panicked: u64,
    /// Admissions refused because there was no room.
    pub refused: u64,
}

/// A thread was started or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scaled {
    /// Threads before.
    pub from: usize,
    /// Threads after.
    pub to: usize,
    /// Which thread: the least number that no other thread bore when it was started.
    pub worker: usize,
}

/// Something to be done on one of the threads.
pub type Task = Box<dyn FnOnce() + Send>;
type Listener = Box<dyn Fn(Scaled) + Send + Sync>;

/// The pool. Dropping it, like [`Pool::close`], finishes what waits.
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    scaling: Scaling,
    most_weight: u64,
    listener: Listener,
    state: Mutex<State>,
    /// Told when there is work, or an end to it.
    work: Condvar,
    /// Told when there is room in the queue.
    room: Condvar,
}

#[derive(Default)]
struct State {
    queue: Lanes,
    counters: PoolCounters,
    /// The numbers of the threads there are.
    workers: BTreeSet<usize>,
    closing: bool,
    handles: Vec<JoinHandle<()>>,
    /// What the listener has not heard yet.
    untold: VecDeque<Scaled>,
    /// A thread is telling it.
    telling: bool,
}

impl Pool {
    /// Starts the fewest threads, named `name`, and admits at most `most_weight` at once; `listener` hears of
    /// every thread started or ended later, in that order.
    ///
    /// # Errors
    /// `InvalidInput` for impossible limits, `Io` if the system refuses the threads.
    pub fn new(
        name: &str,
        scaling: Scaling,
        most_weight: u64,
        listener: impl Fn(Scaled) + Send + Sync + 'static,
    ) -> Result<Self> {
        scaling.check()?;
        let fewest = *scaling.threads.start();
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            scaling,
            most_weight,
            listener: Box::new(listener),
            state: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
        });
        let pool = Self { shared };
        for _ in 0..fewest {
            let mut state = pool.shared.lock();
            start_thread(&pool.shared, &mut state).map_err(|error| Error::io("start a thread", error))?;
        }
        Ok(pool)
    }

    /// Asks for room; it is given back when the admission is dropped.
    ///
    /// # Errors
    /// `LimitExceeded` for more than there will ever be, `Busy` if there is no room now and the caller will not wait,
    /// `Cancelled` if the pool is closing.
    pub fn admit(&self, weight: u64, when_full: WhenFull) -> Result<Admission> {
        let shared = &self.shared;
        if weight > shared.most_weight {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("the work is too large for the {} queue", shared.name),
            )
            .expected(format!("at most {} bytes", shared.most_weight))
            .found(weight.to_string())
            .remedy("hand it over in parts, or allow a larger queue"));
        }
        let mut state = shared.lock();
        while !state.closing && state.counters.weight.saturating_add(weight) > shared.most_weight {
            if when_full == WhenFull::Busy {
                state.counters.refused += 1;
                return Err(Error::new(ErrorKind::Busy, format!("the {} queue is full", shared.name))
                    .expected(format!("room for {weight} bytes"))
                    .found(format!("{} of {} in use", state.counters.weight, shared.most_weight))
                    .remedy("try again later, or wait for room"));
            }
            state = shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closing {
            return Err(shared.is_closing());
        }
        state.counters.weight += weight;
        state.counters.peak_weight = state.counters.peak_weight.max(state.counters.weight);
        Ok(Admission { shared: Arc::clone(shared), weight })
    }

    /// Puts tasks into the queue, all or none, in one lane that all callers of this share.
    ///
    /// # Errors
    /// `Cancelled` if the pool is closing.
    pub fn push(&self, tasks: impl IntoIterator<Item = Task>) -> Result<()> {
        let mut state = self.open()?;
        for task in tasks {
            state.queue.push(0, task);
        }
        self.pushed(state);
        Ok(())
    }

    /// Puts a task into a lane of the queue. Lanes have their turns one after the other, however long each is.
    ///
    /// # Errors
    /// `Cancelled` if the pool is closing.
    pub fn push_to(&self, lane: u64, task: Task) -> Result<Ticket> {
        let mut state = self.open()?;
        let ticket = state.queue.push(lane, task);
        self.pushed(state);
        Ok(ticket)
    }

    /// Takes a task that still waits out of the queue: it will not be run. `None` if it was begun.
    pub fn withdraw(&self, ticket: Ticket) -> Option<Task> {
        let mut state = self.shared.lock();
        let task = state.queue.withdraw(ticket);
        state.counters.waiting = state.queue.len();
        task
    }

    fn open(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.shared.lock();
        if state.closing { Err(self.shared.is_closing()) } else { Ok(state) }
    }

    fn pushed(&self, mut state: MutexGuard<'_, State>) {
        let shared = &self.shared;
        state.counters.waiting = state.queue.len();
        grow(shared, &mut state);
        shared.work.notify_all();
        shared.tell(state);
    }

    /// The numbers of its threads.
    pub fn workers(&self) -> Vec<usize> {
        self.shared.lock().workers.iter().copied().collect()
    }

    /// The limits that it keeps.
    pub fn scaling(&self) -> &Scaling {
        &self.shared.scaling
    }

    /// What it has done and is doing.
    pub fn counters(&self) -> PoolCounters {
        self.shared.lock().counters
    }

    /// Takes no more tasks, finishes what waits and ends the threads.
    pub fn close(&self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_all();
        self.shared.room.notify_all();
        let this = thread::current().id();
        loop {
            // What waits may have started further threads while the first ones were waited for.
            let handles = std::mem::take(&mut self.shared.lock().handles);
            if handles.is_empty() {
                return;
            }
            for handle in handles {
                // A task may be what drops the pool; its own thread cannot be waited for.
                if handle.thread().id() != this {
                    // The threads catch what their tasks throw.
                    let _ = handle.join();
                }
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({}, {:?})", self.shared.name, self.counters())
    }
}

/// Room in a pool, given back on drop.
pub struct Admission {
    shared: Arc<Shared>,
    weight: u64,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.shared.lock().counters.weight -= self.weight;
        self.shared.room.notify_all();
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Admission({})", self.weight)
    }
}

impl Shared {
    fn is_closing(&self) -> Error {
        Error::new(ErrorKind::Cancelled, format!("the {} pool is closing", self.name))
    }

    /// No task runs under the lock, so that a poisoned one is whole all the same.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the listener what it has not heard, in the order in which it happened, without the lock.
    fn tell<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        if state.telling {
            // Whoever does tells this as well.
            return;
        }
        while let Some(scaled) = state.untold.pop_front() {
            state.telling = true;
            drop(state);
            // A listener's panic is its own affair.
            let _ = catch_unwind(AssertUnwindSafe(|| (self.listener)(scaled)));
            state = self.lock();
            state.telling = false;
        }
    }
}

fn load(state: &State) -> Load {
    Load { waiting: state.queue.len(), threads: state.counters.threads, busy: state.counters.busy }
}

/// Starts a thread if the load asks for one. Where the system refuses it, the others do the work.
fn grow(shared: &Arc<Shared>, state: &mut State) {
    let from = state.counters.threads;
    if !shared.scaling.grows(load(state)) || !shared.scaling.fits(memory::available) {
        return;
    }
    if let Ok(worker) = start_thread(shared, state) {
        state.untold.push_back(Scaled { from, to: from + 1, worker });
    }
}

fn start_thread(shared: &Arc<Shared>, state: &mut State) -> std::io::Result<usize> {
    let theirs = Arc::clone(shared);
    let worker = (0..).find(|worker| !state.workers.contains(worker)).unwrap_or_default();
    let handle = thread::Builder::new().name(format!("luna-{}", shared.name)).spawn(move || work(&theirs, worker))?;
    state.handles.retain(|handle| !handle.is_finished());
    state.handles.push(handle);
    state.workers.insert(worker);
    state.counters.threads += 1;
    Ok(worker)
}

fn work(shared: &Arc<Shared>, worker: usize) {
    while let Some(task) = next_task(shared, worker) {
        let panicked = catch_unwind(AssertUnwindSafe(task)).is_err();
        let mut state = shared.lock();
        state.counters.busy -= 1;
        state.counters.finished += 1;
        state.counters.panicked += u64::from(panicked);
    }
}

/// Waits for a task; `None` when this thread is to end.
fn next_task(shared: &Arc<Shared>, worker: usize) -> Option<Task> {
    let since = Instant::now();
    let mut state = shared.lock();
    loop {
        if let Some(task) = state.queue.pop() {
            state.counters.busy += 1;
            state.counters.waiting = state.queue.len();
            grow(shared, &mut state);
            shared.tell(state);
            return Some(task);
        }
        let shrinks = shared.scaling.shrinks(load(&state), since.elapsed());
        if state.closing || shrinks {
            let from = state.counters.threads;
            state.counters.threads -= 1;
            state.workers.remove(&worker);
            if shrinks {
                state.untold.push_back(Scaled { from, to: from - 1, worker });
            }
            shared.tell(state);
            return None;
        }
        // The fewest threads wait for ever; others look again when their time is over.
        let left = shared.scaling.idle.saturating_sub(since.elapsed());
        state = if state.counters.threads > *shared.scaling.threads.start() && !left.is_zero() {
            shared.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
        } else {
            shared.work.wait(state).unwrap_or_else(PoisonError::into_inner)
        };
    }
}

#[cfg(test)]
mod tests;
