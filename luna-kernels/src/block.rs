//! A cache-line aligned block of plain memory.
//!
//! Enters: a size in bytes. Leaves: slices of plain numbers over that memory. It must not know what the numbers mean.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Alignment of every block: one cache line, which is also one 512-bit vector.
const ALIGN: usize = 64;

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
    ptr: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the block owns its memory and hands it out only under the usual borrow rules.
unsafe impl Send for Block {}
// SAFETY: as above, `&Block` gives shared slices only.
unsafe impl Sync for Block {}

impl Block {
    /// Allocates `bytes` zero bytes, rounded up to whole cache lines.
    pub(crate) fn zeroed(bytes: usize) -> Self {
        let layout = Self::layout(bytes);
        // SAFETY: `layout` has a non-zero size.
        let ptr = unsafe { alloc_zeroed(layout) };
        let ptr = NonNull::new(ptr).unwrap_or_else(|| handle_alloc_error(layout));
        Self { ptr, bytes: layout.size() }
    }

    /// The same for memory that will be written whole and kept: in large pages where the system has them, so that the
    /// first touch of gigabytes is no fault for every 4 KiB.
    pub(crate) fn zeroed_for_weights(bytes: usize) -> Self {
        let block = Self::zeroed(bytes);
        crate::large_pages::advise(block.ptr.as_ptr(), block.bytes);
        block
    }

    fn layout(bytes: usize) -> Layout {
        let size = bytes.max(1).checked_next_multiple_of(ALIGN).expect("block size overflows usize");
        Layout::from_size_align(size, ALIGN).expect("block size fits an allocation")
    }

    /// Bytes held, a multiple of 64.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first `len` numbers of the block.
    pub(crate) fn as_slice<T: Plain>(&self, len: usize) -> &[T] {
        assert!(len.checked_mul(size_of::<T>()).is_some_and(|need| need <= self.bytes));
        // SAFETY: in bounds (checked), aligned to 64, initialised, and any bit pattern is a `T`.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr().cast(), len) }
    }

    /// The first `len` numbers of the block, writable.
    pub(crate) fn as_mut_slice<T: Plain>(&mut self, len: usize) -> &mut [T] {
        assert!(len.checked_mul(size_of::<T>()).is_some_and(|need| need <= self.bytes));
        // SAFETY: as in `as_slice`, and `&mut self` makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr().cast(), len) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout.
        unsafe { dealloc(self.ptr.as_ptr(), Self::layout(self.bytes)) }
    }
}
