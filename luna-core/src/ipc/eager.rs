//! When to sleep. Enters: a way to read, with or without waiting. Leaves: what was read. To fall asleep and be waked takes
//! the system several times as long as a short answer does, so that a reader first asks for a moment without sleeping,
//! and lets others run meanwhile; where that was in vain it sleeps at once for some time.

use std::{
    io, thread,
    time::{Duration, Instant},
};

/// The moment.
const MOMENT: Duration = Duration::from_micros(100);
/// After a moment in vain so many reads sleep at once.
const ASLEEP: u32 = 32;

/// Whether the next read expects its bytes within a moment.
#[derive(Default)]
pub(super) struct Eager {
    asleep: u32,
}

impl Eager {
    /// Reads by `read`, which is told whether it may wait; where it may not, and nothing has come, it says
    /// [`io::ErrorKind::WouldBlock`].
    pub(super) fn read(&mut self, mut read: impl FnMut(bool) -> io::Result<usize>) -> io::Result<usize> {
        if self.asleep > 0 {
            self.asleep -= 1;
            return read(true);
        }
        let start = Instant::now();
        loop {
            match read(false) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            if start.elapsed() >= MOMENT {
                self.asleep = ASLEEP;
                return read(true);
            }
            thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_at_once_is_read_without_sleeping() {
        let mut eager = Eager::default();
        let mut asked = 0;
        let second = |waits: bool| {
            asked += 1;
            assert!(!waits);
            if asked < 2 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(7) }
        };
        assert_eq!(eager.read(second).unwrap(), 7);
        let failed = eager.read(|_| Err(io::ErrorKind::ConnectionReset.into())).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn who_waited_in_vain_sleeps_at_once_for_a_while() {
        let mut eager = Eager::default();
        let late = |waits: bool| if waits { Ok(1) } else { Err(io::ErrorKind::WouldBlock.into()) };
        let start = Instant::now();
        assert_eq!(eager.read(late).unwrap(), 1);
        assert!(start.elapsed() >= MOMENT);
        for _ in 0..ASLEEP {
            assert_eq!(eager.read(|waits| Ok(usize::from(waits))).unwrap(), 1);
        }
        assert_eq!(eager.read(|waits| Ok(usize::from(waits))).unwrap(), 0);
    }
}
