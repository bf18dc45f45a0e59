//! Recycled memory of activations. A big buffer that goes back to the system costs a page fault for every 4 KiB when it
//! is asked for again, which at picture sizes is as dear as the arithmetic of a cheap layer.

use super::Tensor;
use crate::Result;
use candle_core::{Device, Shape, WithDType};
use half::{bf16, f16};
use luna_kernels::Plain;
use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
};

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

/// Bytes that a buffer's elements are aligned to: a cache line, so that the channels that a kernel reads together lie in as few of them as
/// can be.
const ALIGNED: usize = 64;

/// Memory of a tensor: some neighbouring elements of a vector, which begins where the allocator wants it to.
#[derive(Default)]
pub(super) struct Buffer<T> {
    data: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Plain> Buffer<T> {
    /// Elements that a vector may hold before the aligned ones.
    const MARGIN: usize = ALIGNED / size_of::<T>();

    /// The first aligned elements of a vector that has so many and a margin.
    fn aligned(data: Vec<T>, len: usize) -> Self {
        let start = (data.as_ptr().addr().next_multiple_of(ALIGNED) - data.as_ptr().addr()) / size_of::<T>();
        debug_assert!(start + len <= data.len());
        Self { data, start, len }
    }
}

impl<T> Buffer<T> {
    /// What a tensor's storage holds, of which the tensor is `len` elements from `start` on.
    pub(super) fn of(data: Vec<T>, start: usize, len: usize) -> Self {
        Self { data, start, len }
    }

    /// Gives up all elements but the first, and the memory behind them.
    pub(super) fn shorten(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.data.truncate(self.start + self.len);
        self.data.shrink_to_fit();
    }
}

impl<T: WithDType> Buffer<T> {
    /// A tensor of all elements, in this memory.
    pub(super) fn into_tensor(self, shape: impl Into<Shape>) -> Result<Tensor> {
        let whole = self.data.len();
        Ok(Tensor::from_vec(self.data, whole, &Device::Cpu)?.narrow(0, self.start, self.len)?.reshape(shape.into())?)
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.data[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.data[self.start..self.start + self.len]
    }
}

impl Buffers {
    /// A buffer of `len` elements with unspecified contents.
    ///
    /// One that is kept serves if it wastes no more than half. If none does, all are freed before a large new one
    /// is asked for, so that a pass never holds more than what is alive plus what fits again.
    pub(super) fn take<T: Recycled>(&self, len: usize) -> Buffer<T> {
        let needed = len + Buffer::<T>::MARGIN;
        let mut shelf = lock(T::shelf(self));
        // By capacity: a buffer that served a smaller image still takes all its memory.
        let fits = |data: &Vec<T>| data.capacity() >= needed && data.capacity() / 2 <= needed;
        let fitting = (0..shelf.len()).filter(|&i| fits(&shelf[i]));
        if let Some(index) = fitting.min_by_key(|&i| shelf[i].capacity()) {
            let mut data = shelf.swap_remove(index);
            if data.len() < needed {
                data.resize(needed, T::default());
            }
            return Buffer::aligned(data, len);
        }
        if len >= WORTH_FREEING {
            shelf.clear();
        }
        drop(shelf);
        let mut data = vec![T::default(); needed];
        luna_kernels::want_large_pages(&mut data);
        Buffer::aligned(data, len)
    }

    /// Keeps a buffer for the next [`Buffers::take`].
    pub(super) fn give<T: Recycled>(&self, buffer: Buffer<T>) {
        if buffer.data.capacity() >= WORTH_KEEPING {
            lock(T::shelf(self)).push(buffer.data);
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
        let first = buffers.take::<f32>(100_000);
        let place = first.as_ptr();
        buffers.give(first);
        let second = buffers.take::<f32>(90_000);
        assert_eq!((second.as_ptr(), second.len()), (place, 90_000));
        buffers.give(second);
        let smaller = buffers.take::<f32>(40_000);
        assert_ne!(smaller.as_ptr(), place, "it would waste more than half");
        let again = buffers.take::<f32>(100_000);
        assert_eq!((again.as_ptr(), again.len()), (place, 100_000));
        buffers.give(again);
        let third = buffers.take::<f32>(200_000);
        assert_eq!(third.len(), 200_000);
        assert!(lock(&buffers.f32).is_empty());
    }

    #[test]
    fn elements_are_aligned_and_become_a_tensor_where_they_are() {
        let buffers = Buffers::default();
        for len in [1, 5, 30_000] {
            let mut buffer = buffers.take::<bf16>(2 * len);
            let place = buffer.as_ptr().addr();
            assert!(place.is_multiple_of(ALIGNED), "{len} pairs of bf16");
            buffer.fill(bf16::ONE);
            buffer[2 * len - 1] = bf16::from_f32(3.0);
            let tensor = buffer.into_tensor((len, 2)).unwrap();
            let values = tensor.to_vec2::<bf16>().unwrap();
            assert_eq!(values.len(), len);
            assert_eq!(values[len - 1], [1.0, 3.0].map(bf16::from_f32));
            let mut back = crate::nn::cpu::into_buffer::<bf16>(&tensor).unwrap();
            assert_eq!((back.as_ptr().addr(), back.len()), (place, 2 * len));
            back.shorten(1);
            assert_eq!(*back, [bf16::ONE]);
            buffers.give(back);
        }
    }
}
