//! A cache-line aligned block of plain memory.
//!
//! Enters: a size in bytes. Leaves: slices of plain numbers over that memory. It must not know what the numbers mean.

use crate::pages::want_large_pages;
use memmap2::MmapMut;
use std::alloc::{Layout, handle_alloc_error};

/// Alignment of every block: one cache line, which is also one 512-bit vector.
const ALIGN: usize = 64;

/// From this size on a block is pages of its own, which go back to the system when it is dropped. An allocator may keep
/// what is freed for itself, and a model would never be gone.
const MAPPED: usize = 1 << 17;

/// Types for which every bit pattern, all zeros included, is a value.
///
/// # Safety
/// Implementors have no padding, no invalid bit pattern, no drop glue and an alignment of at most 64.
pub unsafe trait Plain: Copy + Send + Sync + 'static {}

// SAFETY: primitive numbers and transparent wrappers of `u16` accept every bit pattern.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
// SAFETY: as above; `bf16` is `repr(transparent)` over `u16`.
unsafe impl Plain for half::bf16 {}
// SAFETY: as above; `f16` is `repr(transparent)` over `u16`.
unsafe impl Plain for half::f16 {}

/// Owned, zero-initialised memory aligned to 64 bytes.
pub(crate) struct Block {
    memory: Memory,
    bytes: usize,
}

enum Memory {
    Mapped(MmapMut),
    Allocated(Vec<Line>),
}

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; ALIGN]);

impl Block {
    /// Allocates `bytes` zero bytes, rounded up to whole cache lines.
    pub(crate) fn zeroed(bytes: usize) -> Self {
        let bytes = bytes.max(1).checked_next_multiple_of(ALIGN).expect("block size overflows usize");
        let memory = if bytes >= MAPPED {
            let layout = Layout::from_size_align(bytes, ALIGN).expect("block size fits an allocation");
            Memory::Mapped(MmapMut::map_anon(bytes).unwrap_or_else(|_| handle_alloc_error(layout)))
        } else {
            Memory::Allocated(vec![Line([0; ALIGN]); bytes / ALIGN])
        };
        Self { memory, bytes }
    }

    /// The same for memory that will be written whole and kept: in large pages where the system has them, so that the
    /// first touch of gigabytes is no fault for every 4 KiB.
    pub(crate) fn zeroed_for_weights(bytes: usize) -> Self {
        let mut block = Self::zeroed(bytes);
        want_large_pages(block.as_mut_slice::<u8>(bytes));
        block
    }

    /// Bytes held, a multiple of 64.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first `len` numbers of the block.
    pub(crate) fn as_slice<T: Plain>(&self, len: usize) -> &[T] {
        assert!(len.checked_mul(size_of::<T>()).is_some_and(|need| need <= self.bytes));
        let start = match &self.memory {
            Memory::Mapped(pages) => pages.as_ptr(),
            Memory::Allocated(lines) => lines.as_ptr().cast(),
        };
        // SAFETY: in bounds (checked), aligned to 64 (a line, or a page), initialised, and any bit pattern is a `T`.
        unsafe { std::slice::from_raw_parts(start.cast(), len) }
    }

    /// The first `len` numbers of the block, writable.
    pub(crate) fn as_mut_slice<T: Plain>(&mut self, len: usize) -> &mut [T] {
        assert!(len.checked_mul(size_of::<T>()).is_some_and(|need| need <= self.bytes));
        let start = match &mut self.memory {
            Memory::Mapped(pages) => pages.as_mut_ptr(),
            Memory::Allocated(lines) => lines.as_mut_ptr().cast(),
        };
        // SAFETY: as in `as_slice`, and `&mut self` makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(start.cast(), len) }
    }
}
