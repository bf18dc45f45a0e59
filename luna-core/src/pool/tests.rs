use super::*;
use std::{
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

fn scaling(threads: std::ops::RangeInclusive<usize>, idle: Duration) -> Scaling {
    Scaling { threads, idle, ..Scaling::default() }
}

/// Waits until `test` holds; fails after ten seconds.
fn until(what: &str, test: impl Fn() -> bool) {
    let start = Instant::now();
    while !test() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what} did not happen");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A task that runs until told, and the sender that tells it.
fn held() -> (mpsc::Sender<()>, Task) {
    let (release, wait) = mpsc::channel::<()>();
    (release, Box::new(move || _ = wait.recv()))
}

#[test]
fn it_grows_under_a_backlog_and_shrinks_when_idle() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let pool = Pool::new("test", scaling(1..=3, Duration::from_millis(30)), 100, move |scaled| {
        told.lock().unwrap().push((scaled.from, scaled.to));
    })
    .unwrap();
    let (releases, tasks): (Vec<_>, Vec<_>) = (0..8).map(|_| held()).unzip();
    pool.push(tasks).unwrap();
    until("growth", || pool.counters().busy == 3);
    drop(releases);
    until("shrinking", || pool.counters().threads == 1 && pool.counters().finished == 8);
    until("telling", || seen.lock().unwrap().len() == 4);
    assert_eq!(*seen.lock().unwrap(), [(1, 2), (2, 3), (3, 2), (2, 1)]);
}

#[test]
fn changes_are_told_in_their_order_even_if_the_listener_is_slow() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let pool = Pool::new("test", scaling(1..=5, Duration::from_millis(5)), 100, move |scaled| {
        // The first ones take the longest.
        thread::sleep(Duration::from_millis(8 >> scaled.from.min(4)));
        told.lock().unwrap().push((scaled.from, scaled.to));
    })
    .unwrap();
    for _ in 0..5 {
        let (releases, tasks): (Vec<_>, Vec<_>) = (0..9).map(|_| held()).unzip();
        thread::scope(|scope| tasks.into_iter().for_each(|task| drop(scope.spawn(|| pool.push([task]).unwrap()))));
        until("growth", || pool.counters().busy == 5);
        drop(releases);
        until("shrinking", || pool.counters().threads == 1 && pool.counters().busy == 0);
    }
    until("telling", || seen.lock().unwrap().len() == 5 * 8);
    let seen = seen.lock().unwrap();
    assert!(seen.windows(2).all(|pair| pair[0].1 == pair[1].0), "{seen:?}");
}

#[test]
fn a_full_queue_is_busy_or_makes_the_caller_wait() {
    let pool = Pool::new("test", scaling(1..=1, Duration::from_secs(9)), 10, |_| {}).unwrap();
    let first = pool.admit(8, WhenFull::Busy).unwrap();
    assert_eq!(pool.admit(3, WhenFull::Busy).unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(pool.counters().refused, 1);
    assert_eq!(pool.admit(11, WhenFull::Wait).unwrap_err().kind(), ErrorKind::LimitExceeded);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| pool.admit(3, WhenFull::Wait));
        thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        drop(first);
        assert_eq!(waiting.join().unwrap().unwrap().weight, 3);
    });
    assert_eq!(pool.counters().weight, 0);
    assert!(pool.counters().peak_weight <= 10);
}

#[test]
fn a_panic_costs_neither_thread_nor_room() {
    let pool = Pool::new("test", scaling(1..=1, Duration::from_secs(9)), 10, |_| {}).unwrap();
    let room = pool.admit(10, WhenFull::Busy).unwrap();
    let panics = move || {
        let held = room;
        if held.weight > 0 {
            std::panic::resume_unwind(Box::new("task"));
        }
    };
    pool.push([Box::new(panics) as Task]).unwrap();
    let (send, receive) = mpsc::channel();
    let room = pool.admit(10, WhenFull::Wait).unwrap();
    pool.push([Box::new(move || send.send(room.weight).unwrap()) as Task]).unwrap();
    assert_eq!(receive.recv().unwrap(), 10);
    assert_eq!(pool.counters().panicked, 1);
}

#[test]
fn closing_finishes_what_waits() {
    let done = Arc::new(AtomicUsize::new(0));
    let pool = Pool::new("test", Scaling::default(), 1000, |_| {}).unwrap();
    let tasks = (0..100).map(|_| {
        let done = Arc::clone(&done);
        Box::new(move || _ = done.fetch_add(1, Ordering::Relaxed)) as Task
    });
    pool.push(tasks).unwrap();
    pool.close();
    assert_eq!(done.load(Ordering::Relaxed), 100);
    assert_eq!(pool.push([Box::new(|| {}) as Task]).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(pool.admit(1, WhenFull::Wait).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(pool.counters().threads, 0);
}
