//! When a pool starts and ends threads. Enters: the limits and the load of this moment. Leaves: a decision. It
//! holds nothing and starts nothing, so that every case can be tested by itself.

use std::{ops::RangeInclusive, time::Duration};

use crate::{Error, ErrorKind, Result};

/// How many threads a pool may have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scaling {
    /// Fewest and most threads.
    pub threads: RangeInclusive<usize>,
    /// A thread above the fewest ends after this time without work.
    pub idle: Duration,
    /// Bytes of memory that must be available for another thread to start: what its tasks need. 0 asks nothing.
    pub memory: u64,
}

impl Default for Scaling {
    /// 2 to 4 threads, ended after 300 s.
    fn default() -> Self {
        Self { threads: 2..=4, idle: Duration::from_secs(300), memory: 0 }
    }
}

/// What a pool has to do at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Tasks that wait.
    pub waiting: usize,
    /// Threads there are.
    pub threads: usize,
    /// Threads that work.
    pub busy: usize,
}

impl Scaling {
    /// Refuses limits that no pool can keep.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn check(&self) -> Result<()> {
        let (fewest, most) = (*self.threads.start(), *self.threads.end());
        if fewest >= 1 && fewest <= most && most <= 1024 {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "the pool's threads are out of range")
            .expected("1 <= fewest <= most <= 1024")
            .found(format!("{fewest} to {most}")))
    }

    /// Whether another thread should start: all work, and more tasks wait than there are threads.
    pub fn grows(&self, load: Load) -> bool {
        load.threads < *self.threads.end() && load.busy == load.threads && load.waiting > load.threads
    }

    /// Whether the memory there is suffices for another thread. It is asked for only if that matters; where the system
    /// does not tell, it suffices.
    pub fn fits(&self, available: impl FnOnce() -> Option<u64>) -> bool {
        self.memory == 0 || available().is_none_or(|available| available >= self.memory)
    }

    /// Whether a thread that waited for so long should end.
    pub fn shrinks(&self, load: Load, waited: Duration) -> bool {
        load.threads > *self.threads.start() && load.waiting == 0 && waited >= self.idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(waiting: usize, threads: usize, busy: usize) -> Load {
        Load { waiting, threads, busy }
    }

    #[test]
    fn a_pool_grows_only_under_a_backlog_and_up_to_its_most() {
        let scaling = Scaling::default();
        assert!(!scaling.grows(load(2, 2, 2)), "one task each is no backlog");
        assert!(scaling.grows(load(3, 2, 2)));
        assert!(!scaling.grows(load(3, 2, 1)), "a thread is free");
        assert!(!scaling.grows(load(99, 4, 4)), "the most there may be");
    }

    #[test]
    fn a_pool_shrinks_only_when_idle_and_down_to_its_fewest() {
        let scaling = Scaling::default();
        let (short, long) = (Duration::from_secs(299), Duration::from_secs(300));
        assert!(scaling.shrinks(load(0, 3, 0), long));
        assert!(!scaling.shrinks(load(0, 3, 0), short));
        assert!(!scaling.shrinks(load(0, 2, 0), long));
        assert!(!scaling.shrinks(load(1, 3, 0), long));
    }

    #[test]
    fn a_pool_grows_only_where_memory_allows() {
        let scaling = Scaling { memory: 100, ..Scaling::default() };
        assert!(scaling.fits(|| Some(100)) && scaling.fits(|| None));
        assert!(!scaling.fits(|| Some(99)));
        assert!(Scaling::default().fits(|| panic!("asked in vain")));
    }

    #[test]
    fn impossible_limits_are_refused() {
        for (fewest, most) in [(0, 2), (3, 2), (1, 2000)] {
            assert!(Scaling { threads: fewest..=most, ..Scaling::default() }.check().is_err());
        }
    }
}
