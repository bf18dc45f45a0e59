//! First-block cache: while a sampler's steps differ little, the blocks after the first add nearly the same each time.
//! The first block is always computed; if what it adds is close to what it added at the last full step, what the rest
//! added then is added again instead of computed.
//!
//! What is kept belongs to the caller, who holds the [`FirstBlockCache`] and names its sequences; models stay frozen.

use super::{Facts, ForwardInput, input::wrong};
use crate::{Result, nn::Tensor};
use candle_core::DType;
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// When the cache may answer.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct CacheOptions {
    /// The most that the first block's addition may differ from the last full step's: mean absolute difference over
    /// mean absolute value. 0 never answers; 0.1 to 0.2 is usual.
    pub threshold: f32,
    /// How far the sampling must have come, 0 to 1, before the cache answers. Progress is `1 − timestep / last timestep`.
    pub start_percent: f32,
    /// How far the sampling may have come, 0 to 1, for the cache to answer.
    pub end_percent: f32,
    /// How many steps in a row may be answered; any number if not given.
    pub max_consecutive_hits: Option<u32>,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self { threshold: 0.12, start_percent: 0.0, end_percent: 1.0, max_consecutive_hits: None }
    }
}

/// A store of sequences under a byte budget. Clones share it.
///
/// ```
/// use luna_core::diffusion::{CacheOptions, FirstBlockCache};
/// let cache = FirstBlockCache::new(256 << 20);
/// let sequence = cache.sequence("request 17, positive prompt", CacheOptions::default());
/// assert_eq!(cache.sequences(), 0); // nothing is kept before the first step
/// # drop(sequence);
/// ```
#[derive(Clone)]
pub struct FirstBlockCache(Arc<Shared>);

struct Shared {
    budget: usize,
    store: Mutex<Store>,
}

#[derive(Default)]
struct Store {
    kept: HashMap<String, Kept>,
    clock: u64,
}

/// What the last full step of a sequence left.
#[derive(Clone)]
struct Kept {
    /// What the first block added.
    first: Tensor,
    /// What all later blocks added.
    rest: Tensor,
    hits: u32,
    used: u64,
}

impl Kept {
    fn bytes(&self) -> usize {
        [&self.first, &self.rest].map(|tensor| tensor.elem_count() * tensor.dtype().size_in_bytes()).iter().sum()
    }
}

impl FirstBlockCache {
    /// A store that keeps at most `budget` bytes; the sequence that was used longest ago goes first. A sequence of SD1.5
    /// at 64×64 takes 10 MiB for each item of the batch in f32.
    pub fn new(budget: usize) -> Self {
        Self(Arc::new(Shared { budget, store: Mutex::default() }))
    }

    /// A sequence to hand to the calls of one sampling. Positive and negative prompt need a name each if they are called
    /// one after the other, and so does every model.
    pub fn sequence(&self, name: impl Into<String>, options: CacheOptions) -> CachedSequence {
        CachedSequence { cache: self.clone(), name: name.into(), options }
    }

    /// Drops what is kept of a sequence. Says whether there was anything.
    pub fn forget(&self, name: &str) -> bool {
        self.lock().kept.remove(name).is_some()
    }

    /// Drops what is kept of all sequences whose names start so. Says how many there were.
    pub fn forget_all(&self, prefix: &str) -> usize {
        let mut store = self.lock();
        let before = store.kept.len();
        store.kept.retain(|name, _| !name.starts_with(prefix));
        before - store.kept.len()
    }

    /// How many sequences are kept.
    pub fn sequences(&self) -> usize {
        self.lock().kept.len()
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.lock().kept.values().map(Kept::bytes).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        // Every change of the store is complete when the lock is released, so a panic leaves it sound.
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, name: &str) -> Option<Kept> {
        let mut store = self.lock();
        store.clock += 1;
        let clock = store.clock;
        let kept = store.kept.get_mut(name)?;
        kept.used = clock;
        Some(kept.clone())
    }

    fn put(&self, name: &str, kept: Kept) {
        let mut store = self.lock();
        store.clock += 1;
        let used = store.clock;
        store.kept.insert(name.to_owned(), Kept { used, ..kept });
        while store.kept.values().map(Kept::bytes).sum::<usize>() > self.0.budget {
            let oldest = store.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(name, _)| name.clone());
            oldest.and_then(|name| store.kept.remove(&name));
        }
    }

    fn count_hit(&self, name: &str) {
        if let Some(kept) = self.lock().kept.get_mut(name) {
            kept.hits += 1;
        }
    }
}

impl fmt::Debug for FirstBlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FirstBlockCache({} sequences, {} bytes)", self.sequences(), self.bytes())
    }
}

/// One sampling's place in a [`FirstBlockCache`].
#[derive(Debug, Clone)]
pub struct CachedSequence {
    cache: FirstBlockCache,
    name: String,
    options: CacheOptions,
}

/// What the cache did in a call.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct CacheReport {
    /// Whether it answered for all blocks but the first.
    pub hit: bool,
    /// Hits in a row, this one included.
    pub consecutive_hits: u32,
    /// By how much the first block's addition differed from the last full step's, where there was one of this shape.
    pub difference: Option<f32>,
}

impl CachedSequence {
    /// Checks the options and asks whether this step may be answered.
    pub(super) fn start(&self, input: &ForwardInput, facts: &Facts) -> Result<FirstBlock<'_>> {
        let CacheOptions { threshold, start_percent, end_percent, .. } = self.options;
        if !(threshold >= 0.0 && (0.0..=1.0).contains(&start_percent) && (0.0..=1.0).contains(&end_percent)) {
            return Err(wrong("the first-block cache's options are out of range")
                .expected("a threshold of at least 0, start and end percent within 0 and 1")
                .found(format!("threshold {threshold}, from {start_percent} to {end_percent}")));
        }
        let latest = input.timesteps.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        let percent = 1.0 - latest / facts.last_timestep;
        let report = CacheReport { hit: false, consecutive_hits: 0, difference: None };
        Ok(FirstBlock {
            sequence: self,
            allowed: (start_percent..=end_percent).contains(&percent),
            report: Mutex::new(report),
        })
    }
}

/// The cache's part in one pass.
pub(super) struct FirstBlock<'a> {
    sequence: &'a CachedSequence,
    allowed: bool,
    report: Mutex<CacheReport>,
}

impl FirstBlock<'_> {
    /// See [`super::network::Step::after_first_block`].
    pub(super) fn run(&self, before: &Tensor, after: &Tensor, rest: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        let CachedSequence { cache, name, options } = self.sequence;
        let first = (after - before)?;
        let kept = cache.get(name).filter(|kept| kept.first.shape() == first.shape());
        let kept = kept.filter(|kept| kept.first.dtype() == first.dtype());
        let difference = kept.as_ref().map(|kept| difference(&kept.first, &first)).transpose()?;
        let few_enough = |kept: &&Kept| options.max_consecutive_hits.is_none_or(|most| kept.hits < most);
        let close = difference.is_some_and(|difference| difference < options.threshold);
        if let Some(kept) = kept.as_ref().filter(few_enough).filter(|_| self.allowed && close) {
            cache.count_hit(name);
            self.set(CacheReport { hit: true, consecutive_hits: kept.hits + 1, difference });
            return Ok((after + &kept.rest)?);
        }
        let after = after.copy()?;
        let last = rest()?;
        cache.put(name, Kept { first, rest: (&last - after)?, hits: 0, used: 0 });
        self.set(CacheReport { hit: false, consecutive_hits: 0, difference });
        Ok(last)
    }

    pub(super) fn forget(&self) {
        self.sequence.cache.forget(&self.sequence.name);
    }

    fn set(&self, report: CacheReport) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }

    pub(super) fn report(self) -> CacheReport {
        self.report.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Mean absolute difference over mean absolute value.
fn difference(before: &Tensor, now: &Tensor) -> Result<f32> {
    let mean = |tensor: Tensor| tensor.to_dtype(DType::F32)?.abs()?.mean_all()?.to_scalar::<f32>();
    let (apart, size) = (mean((before - now)?)?, mean(before.clone())?);
    Ok(if size > 0.0 { apart / size } else { f32::INFINITY })
}
