//! How a caller stops a running kernel.

use std::sync::atomic::{AtomicBool, Ordering};

/// Asked by kernels at least about every 20 ms of work whether to stop.
///
/// After an interruption outputs hold unspecified numbers; the caller, who knows why it interrupted, discards them.
pub trait Interrupt: Sync {
    /// True once the work is no longer wanted.
    fn interrupted(&self) -> bool;
}

/// Never interrupts.
impl Interrupt for () {
    fn interrupted(&self) -> bool {
        false
    }
}

/// Interrupts once the flag is set.
impl Interrupt for AtomicBool {
    fn interrupted(&self) -> bool {
        self.load(Ordering::Relaxed)
    }
}
