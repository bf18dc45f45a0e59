//! The bytes of one model file, wherever they lie.

use std::borrow::Cow;

/// Mapped from a file, or in memory.
pub(super) enum FileBytes {
    Mapped(memmap2::Mmap),
    Memory(Cow<'static, [u8]>),
}

impl FileBytes {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Memory(bytes) => bytes,
        }
    }

    /// Says that a range will not be read again soon.
    pub(super) fn release(&self, range: std::ops::Range<usize>) {
        if let Self::Mapped(map) = self {
            super::mmap::release(map, range);
        }
    }
}
