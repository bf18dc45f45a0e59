//! Large pages. Enters: memory that is about to be written. Leaves: nothing but a wish to the system, which may ignore it.

/// Size of a large page on most systems.
#[cfg(target_os = "linux")]
const PAGE: usize = 2 << 20;

/// Asks for large pages where whole ones fit.
#[cfg(target_os = "linux")]
pub(crate) fn advise(start: *mut u8, bytes: usize) {
    let (first, end) = (start.addr().next_multiple_of(PAGE), (start.addr() + bytes) / PAGE * PAGE);
    if first < end {
        let from = start.wrapping_add(first - start.addr());
        // SAFETY: the pages lie within the caller's memory, and the advice changes no byte of it.
        unsafe { libc::madvise(from.cast(), end - first, libc::MADV_HUGEPAGE) };
    }
}

/// Other systems decide by themselves.
#[cfg(not(target_os = "linux"))]
pub(crate) fn advise(_start: *mut u8, _bytes: usize) {}
