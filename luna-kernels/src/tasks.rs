//! Work shared out among threads.
//!
//! Enters: a number of tasks. Leaves: each of them done once. It must not know what they compute.

use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Does tasks `0..count` on the ambient threads, in this order: whoever is done takes the next. `init` makes what a thread keeps from one
/// task to the next.
///
/// Where each thread walked its own half of the range instead, one that came late or was slower cost more than a task; and
/// neighbouring tasks, which read the same memory, run at the same time.
pub(crate) fn in_order<S>(count: usize, init: impl Fn() -> S + Sync, work: impl Fn(&mut S, usize) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = rayon::current_num_threads().min(count);
    (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
        let mut kept = None;
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= count {
                break;
            }
            work(kept.get_or_insert_with(&init), task);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn each_task_is_done_once_and_each_thread_goes_forward() {
        for count in [0, 1, 2, 7, 1000] {
            let done = Mutex::new(Vec::new());
            let work = |before: &mut Option<usize>, task| {
                assert!(*before < Some(task));
                *before = Some(task);
                done.lock().expect("no panic").push(task);
            };
            in_order(count, || None, work);
            let mut done = done.into_inner().expect("no panic");
            done.sort_unstable();
            assert_eq!(done, (0..count).collect::<Vec<_>>());
        }
    }
}
