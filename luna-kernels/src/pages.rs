//! Large pages for large memory.
//!
//! Enters: memory that is about to be written. Leaves: a wish to the system. It must not know what the memory is for.

/// Smaller memory is not worth the call: two of the large pages of x86-64.
const WORTH_ASKING: usize = 4 << 20;

/// Asks the system to back `memory`, which has not been touched yet, by large pages, so that the first write is no fault for every 4 KiB.
/// Where there are none, or the memory is small, nothing happens.
pub fn want_large_pages<T: crate::Plain>(memory: &mut [T]) {
    if size_of_val(memory) >= WORTH_ASKING {
        ask(memory.as_mut_ptr().cast(), size_of_val(memory));
    }
}

#[cfg(target_os = "linux")]
fn ask(start: *mut u8, bytes: usize) {
    // Whole pages of the usual size only; the system picks the large ones among them.
    const PAGE: usize = 1 << 16;
    let skipped = start.addr().next_multiple_of(PAGE) - start.addr();
    let bytes = (bytes - skipped) / PAGE * PAGE;
    // SAFETY: the range lies within memory that the caller borrows uniquely, and the advice changes no contents. A refusal is no error.
    unsafe { libc::madvise(start.add(skipped).cast(), bytes, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn ask(_: *mut u8, _: usize) {}

#[cfg(test)]
mod tests {
    #[test]
    fn contents_stay() {
        let mut memory = vec![7.0f32; 3 << 20];
        super::want_large_pages(&mut memory[1..]);
        super::want_large_pages(&mut memory[..0]);
        assert!(memory.iter().all(|v| *v == 7.0));
    }
}
