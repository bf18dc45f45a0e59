//! Recycled memory of activations. A big buffer that goes back to the system costs a page fault for every 4 KiB when it
//! is asked for again, which at picture sizes is as dear as the arithmetic of a cheap layer.

use half::{bf16, f16};
use luna_kernels::Plain;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers that no tensor uses at the moment, by element type.
#[derive(Default)]
pub(crate) struct Buffers {
    f32: Mutex<Vec<Vec<f32>>>,
    bf16: Mutex<Vec<Vec<bf16>>>,
    f16: Mutex<Vec<Vec<f16>>>,
}

/// An element type that buffers are kept for.
pub(super) trait Recycled: Plain + Default {
    fn shelf(buffers: &Buffers) -> &Mutex<Vec<Vec<Self>>>;
}

macro_rules! recycled {
    ($($type:ident),*) => {$(
        impl Recycled for $type {
            fn shelf(buffers: &Buffers) -> &Mutex<Vec<Vec<Self>>> {
                &buffers.$type
            }
        }
    )*};
}
recycled!(f32, bf16, f16);

/// Smaller buffers are the allocator's business: for larger ones it goes to the system each time.
const WORTH_KEEPING: usize = 1 << 14;
/// For smaller ones no memory is freed that may serve again.
const WORTH_FREEING: usize = 1 << 16;

impl Buffers {
    /// A buffer of `len` elements with unspecified contents.
    ///
    /// One that is kept serves if it wastes no more than half. If none does, all are freed before a large new one
    /// is asked for, so that a pass never holds more than what is alive plus what fits again.
    pub(super) fn take<T: Recycled>(&self, len: usize) -> Vec<T> {
        let mut shelf = lock(T::shelf(self));
        // By capacity: a buffer that served a smaller image still takes all its memory.
        let fitting = (0..shelf.len()).filter(|&i| shelf[i].capacity() >= len && shelf[i].capacity() / 2 <= len);
        if let Some(index) = fitting.min_by_key(|&i| shelf[i].capacity()) {
            let mut buffer = shelf.swap_remove(index);
            buffer.resize(len, T::default());
            return buffer;
        }
        if len >= WORTH_FREEING {
            shelf.clear();
        }
        drop(shelf);
        let mut buffer = vec![T::default(); len];
        luna_kernels::want_large_pages(&mut buffer);
        buffer
    }

    /// Keeps a buffer for the next [`Buffers::take`].
    pub(super) fn give<T: Recycled>(&self, buffer: Vec<T>) {
        if buffer.capacity() >= WORTH_KEEPING {
            lock(T::shelf(self)).push(buffer);
        }
    }

    /// Gives everything back to the system.
    pub(crate) fn clear(&self) {
        lock(&self.f32).clear();
        lock(&self.bf16).clear();
        lock(&self.f16).clear();
    }
}

/// A panic while the lock was held leaves a list of sound buffers.
fn lock<T>(shelf: &Mutex<T>) -> MutexGuard<'_, T> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_when_they_fit_and_are_freed_when_not() {
        let buffers = Buffers::default();
        let first: Vec<f32> = buffers.take(100_000);
        let place = first.as_ptr();
        buffers.give(first);
        let second: Vec<f32> = buffers.take(90_000);
        assert_eq!((second.as_ptr(), second.len()), (place, 90_000));
        buffers.give(second);
        let smaller: Vec<f32> = buffers.take(40_000);
        assert_ne!(smaller.as_ptr(), place, "it would waste more than half");
        let again: Vec<f32> = buffers.take(100_000);
        assert_eq!((again.as_ptr(), again.len(), again[95_000]), (place, 100_000, 0.0));
        buffers.give(again);
        let third: Vec<f32> = buffers.take(200_000);
        assert_eq!(third.len(), 200_000);
        assert!(lock(&buffers.f32).is_empty());
    }
}
