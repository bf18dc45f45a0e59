//! Conditionings that were computed before. Enters: a key over everything that shapes one. Leaves: the conditioning, if
//! it is still there. It must not know encoders.

use crate::Conditioning;
use lru::LruCache;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A digest over all that shapes a conditioning: models, patches, tokens, weights, options.
pub(super) type Key = blake3::Hash;

/// Conditionings within a number of bytes; the least recently used go first. Any number of threads and conditioners may
/// share it.
///
/// ```
/// let cache = luna_core::text::ConditioningCache::new(64 << 20);
/// assert_eq!(cache.usage().entries, 0);
/// ```
pub struct ConditioningCache {
    most: usize,
    state: Mutex<State>,
}

struct State {
    entries: LruCache<Key, Arc<Conditioning>>,
    bytes: usize,
    hits: u64,
    misses: u64,
}

/// How a cache is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CacheUsage {
    /// Conditionings held.
    pub entries: usize,
    /// Bytes they take.
    pub bytes: usize,
    /// How often a conditioning was there.
    pub hits: u64,
    /// How often it was not.
    pub misses: u64,
}

/// What an entry takes besides the conditioning itself.
const ENTRY_BYTES: usize = 128;

impl ConditioningCache {
    /// A cache of at most `most` bytes.
    pub fn new(most: usize) -> Self {
        let state = State { entries: LruCache::unbounded(), bytes: 0, hits: 0, misses: 0 };
        Self { most, state: Mutex::new(state) }
    }

    /// How it is used.
    pub fn usage(&self) -> CacheUsage {
        let state = self.lock();
        let State { bytes, hits, misses, .. } = *state;
        CacheUsage { entries: state.entries.len(), bytes, hits, misses }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.entries.clear();
        state.bytes = 0;
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Conditioning>> {
        let mut state = self.lock();
        let found = state.entries.get(key).cloned();
        match found {
            Some(_) => state.hits += 1,
            None => state.misses += 1,
        }
        found
    }

    pub(super) fn put(&self, key: Key, conditioning: Arc<Conditioning>) {
        let bytes = size(&conditioning);
        if bytes > self.most {
            return;
        }
        let mut state = self.lock();
        state.bytes += bytes;
        if let Some(old) = state.entries.put(key, conditioning) {
            state.bytes -= size(&old);
        }
        while state.bytes > self.most {
            let Some((_, oldest)) = state.entries.pop_lru() else { break };
            state.bytes -= size(&oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in between would leave at worst a wrong count of bytes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(conditioning: &Conditioning) -> usize {
    conditioning.bytes() + ENTRY_BYTES
}

impl std::fmt::Debug for ConditioningCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConditioningCache").field("most", &self.most).field("usage", &self.usage()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Key {
        blake3::hash(&[n])
    }

    fn conditioning(values: usize) -> Arc<Conditioning> {
        Arc::new(Conditioning::new([1, 1, values], vec![0.0; values]).unwrap())
    }

    #[test]
    fn the_least_recently_used_go_when_bytes_run_out() {
        let one = size(&conditioning(1000));
        let cache = ConditioningCache::new(2 * one);
        cache.put(key(1), conditioning(1000));
        cache.put(key(2), conditioning(1000));
        assert!(cache.get(&key(1)).is_some());
        cache.put(key(3), conditioning(1000));
        assert!(cache.get(&key(2)).is_none());
        assert!(cache.get(&key(1)).is_some() && cache.get(&key(3)).is_some());
        cache.put(key(3), conditioning(10));
        assert_eq!(cache.usage(), CacheUsage { entries: 2, bytes: one + size(&conditioning(10)), hits: 3, misses: 1 });
        // One that never fits does not empty the cache.
        cache.put(key(4), conditioning(60_000));
        assert_eq!(cache.usage().entries, 2);
        cache.clear();
        assert_eq!((cache.usage().entries, cache.usage().bytes), (0, 0));
    }
}
