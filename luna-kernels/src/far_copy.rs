//! Copies for another reader. Enters: bytes. Leaves: the same bytes elsewhere, past the caches of the core that copied
//! them: a usual copy reads every line that it is about to overwrite, and drives out what the core needs.
#![allow(unsafe_code)]

/// Bytes of a cache line.
const LINE: usize = 64;

/// Copies `from` to `to`, whose bytes this core does not read soon. Another thread sees them after the usual means, such
/// as an atomic store with [`Release`](std::sync::atomic::Ordering::Release).
///
/// # Safety
/// `to` is valid for writes of as many bytes as `from` has, and the two do not overlap.
pub unsafe fn copy_far(from: &[u8], to: *mut u8) {
    let whole = to.align_offset(LINE).min(from.len());
    let (head, rest) = from.split_at(whole);
    let (lines, tail) = rest.as_chunks::<LINE>();
    // SAFETY: the three parts of `from` lie one after the other, and so do their places in `to`; the second begins at
    // the start of a line.
    unsafe {
        std::ptr::copy_nonoverlapping(head.as_ptr(), to, head.len());
        let at = to.add(whole);
        copy_lines(lines, at);
        std::ptr::copy_nonoverlapping(tail.as_ptr(), at.add(lines.len() * LINE), tail.len());
    }
}

/// # Safety
/// `to` is the start of a line and valid for writes of as many lines.
#[cfg(target_arch = "x86_64")]
unsafe fn copy_lines(lines: &[[u8; LINE]], to: *mut u8) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    for (index, line) in lines.iter().enumerate() {
        let (from, to) = (line.as_ptr(), to.wrapping_add(index * LINE));
        // SAFETY: SSE2 is part of x86-64; the four quarters lie within the line and its place, which is aligned.
        unsafe {
            let quarter = |i: usize| _mm_loadu_si128(from.add(16 * i).cast());
            let quarters = [quarter(0), quarter(1), quarter(2), quarter(3)];
            for (i, value) in quarters.into_iter().enumerate() {
                _mm_stream_si128(to.add(16 * i).cast(), value);
            }
        }
    }
    // SAFETY: SSE is part of x86-64. Such stores are not ordered with others, a release store among them, without this.
    unsafe { _mm_sfence() }
}

/// # Safety
/// As the other one.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_lines(lines: &[[u8; LINE]], to: *mut u8) {
    // SAFETY: as the caller says.
    unsafe { std::ptr::copy_nonoverlapping(lines.as_ptr().cast(), to, size_of_val(lines)) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_bytes_arrive_wherever_they_begin_and_no_others() {
        let from: Vec<u8> = (0..400).map(|i| (i * 7 % 251) as u8).collect();
        for start in [0, 1, 15, 63, 64] {
            for length in [0, 1, 16, 63, 64, 65, 128, 300] {
                let mut to = vec![255; 500];
                let part = &from[start / 2..][..length];
                // SAFETY: the place has room for them, and is another vector's.
                unsafe { super::copy_far(part, to[start..start + length].as_mut_ptr()) };
                assert_eq!(to[start..start + length], *part, "{start} {length}");
                assert!(to[..start].iter().chain(&to[start + length..]).all(|&byte| byte == 255), "{start} {length}");
            }
        }
    }
}
