//! Recycled scratch memory.
//!
//! Enters: a length. Leaves: a [`Buffer`] that returns to its [`Workspace`] when dropped, so that repeated calls do not ask the system for
//! fresh pages each time. It must not know what is computed in the buffers.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::block::{Block, Plain};

/// Thread-safe recycler of large buffers; clones share one store.
///
/// Memory held never exceeds the most that was ever lent at one time by more than 64 MiB, which lets layers of different shapes each find
/// their scratch again; [`Workspace::trim`] gives all idle memory back.
///
/// ```
/// let workspace = luna_kernels::Workspace::default();
/// let mut scratch = workspace.take::<f32>(1000);
/// scratch[999] = 1.0;
/// drop(scratch);
/// assert!(workspace.bytes() >= 4000);
/// workspace.trim();
/// assert_eq!(workspace.bytes(), 0);
/// ```
#[derive(Clone, Default)]
pub struct Workspace {
    store: Arc<Mutex<Store>>,
}

/// Bytes held beyond the most that was ever lent.
const SLACK: usize = 64 << 20;

#[derive(Default)]
struct Store {
    idle: Vec<Block>,
    idle_bytes: usize,
    lent_bytes: usize,
    peak_lent: usize,
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer of `len` elements, aligned to 64 bytes; its contents are unspecified (old data or zeros).
    pub fn take<T: Plain>(&self, len: usize) -> Buffer<T> {
        let bytes = len.checked_mul(size_of::<T>()).expect("buffer size overflows usize").max(64);
        let recycled = self.lock().lend(bytes);
        let block = recycled.unwrap_or_else(|| {
            let block = Block::zeroed(bytes);
            self.lock().record_lent(block.bytes());
            block
        });
        Buffer { block: Some(block), len, home: self.clone(), element: PhantomData }
    }

    /// Frees all idle memory; lent buffers are not touched.
    pub fn trim(&self) {
        let mut store = self.lock();
        store.idle_bytes = 0;
        store.peak_lent = store.lent_bytes;
        let idle = std::mem::take(&mut store.idle);
        drop(store);
        drop(idle);
    }

    /// Bytes held: idle and lent.
    pub fn bytes(&self) -> usize {
        let store = self.lock();
        store.idle_bytes + store.lent_bytes
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        // A panic elsewhere leaves the store consistent: every update is done under one lock without calls out.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let store = self.lock();
        f.debug_struct("Workspace")
            .field("idle_bytes", &store.idle_bytes)
            .field("lent_bytes", &store.lent_bytes)
            .finish()
    }
}

impl Store {
    /// The smallest idle block that fits without wasting more than half of itself.
    fn lend(&mut self, bytes: usize) -> Option<Block> {
        let roomy = bytes.saturating_mul(2).max(1 << 16);
        let fits = |block: &Block| block.bytes() >= bytes && block.bytes() <= roomy;
        let best = (0..self.idle.len()).filter(|&i| fits(&self.idle[i])).min_by_key(|&i| self.idle[i].bytes())?;
        let block = self.idle.remove(best);
        self.idle_bytes -= block.bytes();
        self.record_lent(block.bytes());
        Some(block)
    }

    fn record_lent(&mut self, bytes: usize) {
        self.lent_bytes += bytes;
        self.peak_lent = self.peak_lent.max(self.lent_bytes);
    }

    /// Takes a block back; returns the oldest blocks that no longer fit the bound, to be freed outside the lock.
    fn give_back(&mut self, block: Block) -> Vec<Block> {
        self.lent_bytes -= block.bytes();
        self.idle_bytes += block.bytes();
        self.idle.push(block);
        let mut surplus = Vec::new();
        while self.idle_bytes + self.lent_bytes > self.peak_lent + SLACK && self.idle.len() > 1 {
            let old = self.idle.remove(0);
            self.idle_bytes -= old.bytes();
            surplus.push(old);
        }
        surplus
    }
}

/// Scratch memory on loan from a [`Workspace`]; reads and writes like a slice.
pub struct Buffer<T: Plain> {
    block: Option<Block>,
    len: usize,
    home: Workspace,
    element: PhantomData<T>,
}

impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.block.as_ref().map_or(&[], |block| block.as_slice(self.len))
    }
}

impl<T: Plain> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.block.as_mut().map_or(&mut [], |block| block.as_mut_slice(self.len))
    }
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            let surplus = self.home.lock().give_back(block);
            drop(surplus);
        }
    }
}

impl<T: Plain> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_buffer_is_lent_again() {
        let workspace = Workspace::new();
        let first = workspace.take::<f32>(100_000);
        let address = first.as_ptr() as usize;
        drop(first);
        let again = workspace.take::<u16>(150_000);
        assert_eq!(again.as_ptr() as usize, address);
        assert_eq!(address % 64, 0);
    }

    #[test]
    fn idle_memory_stays_near_the_peak() {
        let workspace = Workspace::new();
        for size in [40 << 20, 90 << 20, 190 << 20, 390 << 20] {
            drop(workspace.take::<u8>(size));
        }
        assert!(workspace.bytes() <= (390 << 20) + SLACK);
        workspace.trim();
        assert_eq!(workspace.bytes(), 0);
    }
}
