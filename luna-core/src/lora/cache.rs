//! LoRAs in memory. Enters: paths, or bytes that a client sent. Leaves: parsed files that are shared. Two tiers, each
//! within a number of bytes: parsed files, and behind them their compressed bytes. It must not know models.

use super::LoraFile;
use crate::{Error, ErrorKind, Limits, Result, files::Stamp, limits::check_at_most};
use lru::LruCache;
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Of zstd: about 500 MB/s, and factors in f16 hardly get smaller at more.
const LEVEL: i32 = 1;

/// LoRA files by content: two paths with the same bytes share one. Any number of threads share a cache. What is in use
/// is never dropped.
///
/// ```no_run
/// use luna_core::{Limits, lora::LoraCache};
/// let cache = LoraCache::new(2 << 30, 1 << 30, Limits::default());
/// let ink = cache.open("ink.safetensors")?.lora;
/// let again = cache.open("copy of ink.safetensors")?.lora;
/// assert!(std::sync::Arc::ptr_eq(&ink, &again));
/// # Ok::<(), luna_core::Error>(())
/// ```
pub struct LoraCache {
    most_parsed: u64,
    most_packed: u64,
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was at a path when it was last read.
    paths: HashMap<PathBuf, (Vec<Stamp>, blake3::Hash)>,
    parsed: Tier<Parsed>,
    packed: Tier<Arc<Packed>>,
    usage: LoraCacheUsage,
}

struct Parsed {
    lora: Arc<LoraFile>,
    /// Where it can be read again; none for bytes that were sent.
    path: Option<PathBuf>,
}

/// A file's bytes, compressed.
struct Packed {
    name: String,
    bytes: Vec<u8>,
    length: usize,
}

/// Entries with their sizes, least recently used first.
struct Tier<T> {
    entries: LruCache<blake3::Hash, (T, u64)>,
    bytes: u64,
}

/// A LoRA and where it came from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CachedLora {
    /// The file.
    pub lora: Arc<LoraFile>,
    /// Where it was.
    pub source: LoraSource,
}

/// Where a LoRA was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoraSource {
    /// In memory, parsed.
    Parsed,
    /// In memory, compressed.
    Packed,
    /// In its file, or nowhere yet.
    Read,
}

/// How a cache is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LoraCacheUsage {
    /// LoRAs held parsed.
    pub parsed: usize,
    /// Bytes they take.
    pub parsed_bytes: u64,
    /// LoRAs held compressed.
    pub packed: usize,
    /// Bytes they take.
    pub packed_bytes: u64,
    /// How often a LoRA was there, parsed.
    pub hits: u64,
    /// How often it was there, compressed.
    pub unpacked: u64,
    /// How often it was not there.
    pub misses: u64,
    /// How many parsed LoRAs made room for others.
    pub evicted: u64,
}

impl<T> Default for Tier<T> {
    fn default() -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0 }
    }
}

impl<T> Tier<T> {
    fn put(&mut self, key: blake3::Hash, value: T, bytes: u64) {
        self.remove(&key);
        self.bytes += bytes;
        self.entries.put(key, (value, bytes));
    }

    fn remove(&mut self, key: &blake3::Hash) -> Option<T> {
        let (value, bytes) = self.entries.pop(key)?;
        self.bytes -= bytes;
        Some(value)
    }

    /// Takes out least recently used entries that `idle` allows until `more` bytes fit into `most`.
    fn make_room(&mut self, more: u64, most: u64, idle: impl Fn(&T) -> bool) -> Vec<(blake3::Hash, T)> {
        let mut out = Vec::new();
        while self.bytes + more > most {
            let oldest = self.entries.iter().rev().find(|(_, (value, _))| idle(value)).map(|(key, _)| *key);
            let Some(key) = oldest else { break };
            out.extend(self.remove(&key).map(|value| (key, value)));
        }
        out
    }
}

impl LoraCache {
    /// A cache of at most `parsed` bytes of parsed files and `packed` bytes of compressed ones.
    pub fn new(parsed: u64, packed: u64, limits: Limits) -> Self {
        Self { most_parsed: parsed, most_packed: packed, limits, state: Mutex::default() }
    }

    /// The LoRA at a path, a file or a PEFT folder. A file that changed since it was read is another LoRA.
    ///
    /// # Errors
    /// Those of [`LoraFile::open`]; `LimitExceeded` for a LoRA larger than the cache, `Busy` if everything in it is in
    /// use and leaves too little room.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<CachedLora> {
        let path = path.as_ref();
        let stamps = stamps(path)?;
        let known = {
            let state = self.lock();
            state.paths.get(path).filter(|(known, _)| *known == stamps).map(|(_, digest)| *digest)
        };
        if let Some(found) = known.and_then(|digest| self.find(digest)) {
            return Ok(found);
        }
        let lora = Arc::new(LoraFile::open(path, &self.limits)?);
        self.lock().usage.misses += 1;
        let digest = lora.digest();
        let lora = self.keep(Parsed { lora, path: Some(path.to_owned()) })?;
        self.lock().paths.insert(path.to_owned(), (stamps, digest));
        Ok(CachedLora { lora, source: LoraSource::Read })
    }

    /// Takes in a file that a client sent, and keeps it compressed as well.
    ///
    /// # Errors
    /// As [`LoraCache::open`].
    pub fn put(&self, name: &str, bytes: Vec<u8>) -> Result<Arc<LoraFile>> {
        check_at_most("bytes of a LoRA file", bytes.len() as u64, self.limits.lora_bytes)?;
        let packed = Packed::new(name, &bytes)?;
        let lora = Arc::new(LoraFile::from_bytes(name, bytes, &self.limits)?);
        let digest = lora.digest();
        let lora = self.keep(Parsed { lora, path: None })?;
        self.pack(digest, packed);
        Ok(lora)
    }

    /// The LoRA with this [`LoraFile::digest`], if it is still there.
    pub fn get(&self, digest: blake3::Hash) -> Option<CachedLora> {
        let found = self.find(digest);
        if found.is_none() {
            self.lock().usage.misses += 1;
        }
        found
    }

    /// Where the LoRA with this digest is, without touching it; `None` if it is not there.
    pub fn check(&self, digest: blake3::Hash) -> Option<LoraSource> {
        let state = self.lock();
        if state.parsed.entries.contains(&digest) {
            return Some(LoraSource::Parsed);
        }
        state.packed.entries.contains(&digest).then_some(LoraSource::Packed)
    }

    /// The file that was sent for the LoRA with this digest, if it is still there.
    pub fn sent(&self, digest: blake3::Hash) -> Option<Vec<u8>> {
        let packed = self.lock().packed.entries.peek(&digest)?.0.clone();
        zstd::bulk::decompress(&packed.bytes, packed.length).ok()
    }

    /// How it is used.
    pub fn usage(&self) -> LoraCacheUsage {
        let state = self.lock();
        LoraCacheUsage {
            parsed: state.parsed.entries.len(),
            parsed_bytes: state.parsed.bytes,
            packed: state.packed.entries.len(),
            packed_bytes: state.packed.bytes,
            ..state.usage
        }
    }

    /// Forgets everything that is not in use.
    pub fn clear(&self) {
        let mut state = self.lock();
        let idle = state.parsed.make_room(u64::MAX / 2, 0, is_idle);
        let packed = std::mem::take(&mut state.packed);
        state.paths.clear();
        drop(state);
        drop((idle, packed));
    }

    fn find(&self, digest: blake3::Hash) -> Option<CachedLora> {
        let packed = {
            let mut state = self.lock();
            if let Some((parsed, _)) = state.parsed.entries.get(&digest) {
                let lora = parsed.lora.clone();
                state.usage.hits += 1;
                return Some(CachedLora { lora, source: LoraSource::Parsed });
            }
            state.packed.entries.get(&digest)?.0.clone()
        };
        // Whatever cannot be unpacked is as good as not there.
        let lora = Arc::new(packed.unpack(&self.limits).ok()?);
        let lora = self.keep(Parsed { lora, path: None }).ok()?;
        self.lock().usage.unpacked += 1;
        Some(CachedLora { lora, source: LoraSource::Packed })
    }

    /// Puts a LoRA into the first tier, or finds that another thread was faster. What falls out goes into the second.
    fn keep(&self, parsed: Parsed) -> Result<Arc<LoraFile>> {
        let (digest, bytes) = (parsed.lora.digest(), parsed.lora.bytes());
        if bytes > self.most_parsed {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("{} is larger than the LoRA cache", parsed.lora.name()),
            )
            .expected(format!("at most {} bytes", self.most_parsed))
            .found(format!("{bytes} bytes"))
            .remedy("raise the cache's size"));
        }
        let mut state = self.lock();
        if let Some((there, _)) = state.parsed.entries.get(&digest) {
            return Ok(there.lora.clone());
        }
        let fallen = state.parsed.make_room(bytes, self.most_parsed, is_idle);
        state.usage.evicted += fallen.len() as u64;
        let fits = state.parsed.bytes + bytes <= self.most_parsed;
        let (lora, used) = (parsed.lora.clone(), state.parsed.bytes);
        if fits {
            state.parsed.put(digest, parsed, bytes);
        }
        drop(state);
        for (digest, fallen) in fallen {
            if let Some(packed) = fallen.path.as_deref().and_then(|path| Packed::read(path, digest, &self.limits)) {
                self.pack(digest, packed);
            }
        }
        if fits {
            return Ok(lora);
        }
        Err(Error::new(ErrorKind::Busy, format!("no room for {} in the LoRA cache", lora.name()))
            .expected(format!("{bytes} bytes free of {}", self.most_parsed))
            .found(format!("{used} bytes of LoRAs in use"))
            .remedy("raise the cache's size, or wait until requests have finished"))
    }

    /// Puts a file into the second tier if it fits there at all.
    fn pack(&self, digest: blake3::Hash, packed: Packed) {
        let bytes = packed.bytes.len() as u64;
        if bytes <= self.most_packed {
            let mut state = self.lock();
            let fallen = state.packed.make_room(bytes, self.most_packed, |_| true);
            state.packed.put(digest, Arc::new(packed), bytes);
            drop(state);
            drop(fallen);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete when the lock is released, so a panic leaves it sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Packed {
    fn new(name: &str, bytes: &[u8]) -> Result<Self> {
        let packed = zstd::bulk::compress(bytes, LEVEL).map_err(|error| Error::io("compress a LoRA", error))?;
        Ok(Self { name: name.to_owned(), bytes: packed, length: bytes.len() })
    }

    /// The file at a path, if it still is what it was. Folders have a configuration beside them and are read again.
    fn read(path: &Path, digest: blake3::Hash, limits: &Limits) -> Option<Self> {
        if fs::metadata(path).ok()?.len() > limits.lora_bytes || path.is_dir() {
            return None;
        }
        let name = path.file_stem()?.to_string_lossy().into_owned();
        let bytes = fs::read(path).ok()?;
        let packed = Self::new(&name, &bytes).ok()?;
        (LoraFile::from_bytes(&name, bytes, limits).ok()?.digest() == digest).then_some(packed)
    }

    fn unpack(&self, limits: &Limits) -> Result<LoraFile> {
        let bytes =
            zstd::bulk::decompress(&self.bytes, self.length).map_err(|error| Error::io("decompress a LoRA", error))?;
        LoraFile::from_bytes(&self.name, bytes, limits)
    }
}

fn is_idle(parsed: &Parsed) -> bool {
    Arc::strong_count(&parsed.lora) == 1
}

/// The stamps of a file, or of the files in a PEFT folder.
fn stamps(path: &Path) -> Result<Vec<Stamp>> {
    let failed = |error| Error::io(format!("open {}", path.display()), error);
    let metadata = fs::metadata(path).map_err(failed)?;
    let mut stamps = vec![Stamp::of(&metadata)];
    if metadata.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            stamps.push(Stamp::of(&entry.metadata().map_err(failed)?));
        }
    }
    Ok(stamps)
}

impl std::fmt::Debug for LoraCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoraCache").field("usage", &self.usage()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
