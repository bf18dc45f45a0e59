//! The bytes of one model file, wherever they lie.

use std::{
    borrow::Cow,
    ops::Range,
    sync::{Mutex, PoisonError},
};

/// Mapped from a file, or in memory.
pub(super) enum FileBytes {
    /// With what the system was asked to read last.
    Mapped(memmap2::Mmap, Mutex<Range<usize>>),
    Memory(Cow<'static, [u8]>),
}

impl FileBytes {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map, _) => map,
            Self::Memory(bytes) => bytes,
        }
    }

    /// Says that a range is read next, and probably what follows it.
    pub(super) fn read_ahead(&self, range: Range<usize>) {
        if let Self::Mapped(map, asked) = self {
            super::mmap::read_ahead(map, &mut asked.lock().unwrap_or_else(PoisonError::into_inner), range);
        }
    }

    /// Says that a range will not be read again soon.
    pub(super) fn release(&self, range: Range<usize>) {
        if let Self::Mapped(map, _) = self {
            super::mmap::release(map, range);
        }
    }
}
