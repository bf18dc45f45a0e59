//! A prefix in an object store (S3 and its kin), through the crate `object_store`. Enters: names and bytes. Leaves:
//! objects, each put in one request that the store takes whole or not at all, and only where none of its name is.
//!
//! Each object carries the mark of its picture. So a put whose answer got lost, in this process or in one that died, is
//! known again and not done twice.

use std::{
    collections::HashMap,
    io,
    path::{Path as FilePath, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use object_store::{
    Attribute, Attributes, ClientConfigKey, Error as StoreError, GetOptions, ObjectStore, PutMode, PutOptions,
    PutPayload, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    path::Path,
};
use tokio::runtime::{Builder, Runtime};

use super::{Content, Traces, Way};
use crate::{
    Error, ErrorKind, Result,
    files::{IfExists, first_free},
    save::{
        spool::Step,
        target::{Scheme, StoreTarget},
        template::Name,
    },
};

/// The name of the mark among an object's metadata; letters only, as Azure wants it.
const MARK: &str = "lunajob";
/// For a whole request: a large picture over a slow line takes its time.
const TIMEOUT: &str = "300s";
/// Folders and names whose last number is remembered.
const MOST_NUMBERS: usize = 1024;

pub(in crate::save) struct Store {
    store: Arc<dyn ObjectStore>,
    /// Scheme and bucket, as a user writes them.
    bucket: String,
    prefix: Vec<String>,
    /// Drives the connections; taken when the store goes.
    runtime: Option<Runtime>,
    known: Mutex<Known>,
}

/// What spares questions, and what must not be forgotten while the process lives.
#[derive(Default)]
struct Known {
    /// Keys that were put without an answer, by mark.
    unanswered: HashMap<String, String>,
    /// The last number that was given, by folder and name.
    numbers: HashMap<String, u64>,
}

impl Store {
    pub(super) fn open(target: &StoreTarget) -> Result<Self> {
        let store = build(target).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, format!("the store {target} cannot be used: {error}")).source(error)
        })?;
        // The HTTP client needs one; a thread of its own lets it mind idle connections.
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("luna-store").enable_all().build();
        let runtime = runtime.map_err(|error| Error::io("start a thread", error))?;
        let bucket = StoreTarget { prefix: Vec::new(), ..target.clone() }.to_string();
        let prefix = target.prefix.clone();
        Ok(Self { store, bucket, prefix, runtime: Some(runtime), known: Mutex::default() })
    }

    /// Nothing that can panic runs under the lock.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        match &self.runtime {
            Some(runtime) => runtime.block_on(future),
            None => unreachable!("the runtime goes with the store"),
        }
    }

    /// Puts a picture under its name.
    pub(super) fn place(&self, way: &Way<'_>, content: &Content<'_>) -> Result<PathBuf> {
        let unanswered = self.known().unanswered.get(way.mark).cloned();
        if let Some(key) = unanswered
            && self.settle(way, &key)?
        {
            return self.written(way, &key);
        }
        way.note(Step::Begin)?;
        way.note(Step::Ready(content.ready.clone()))?;
        let single = self.key(way.folders, &way.name.file(1));
        match way.if_exists {
            IfExists::Replace if way.name.counter.is_none() => {
                self.put(way, &single, content.bytes, PutMode::Overwrite)?;
                self.written(way, &single)
            }
            IfExists::Refuse if way.name.counter.is_none() => {
                // Asked for first, for stores that ignore the condition of a put.
                if !self.exists(&single)? && self.put(way, &single, content.bytes, PutMode::Create)? {
                    return self.written(way, &single);
                }
                Err(Error::new(ErrorKind::InvalidInput, format!("{} exists already", self.url(&single)))
                    .remedy("choose another name, or allow a number to be added"))
            }
            _ => self.place_numbered(way, content),
        }
    }

    fn place_numbered(&self, way: &Way<'_>, content: &Content<'_>) -> Result<PathBuf> {
        let mut number = self.first_number(way)?;
        loop {
            let key = self.key(way.folders, &way.name.file(number));
            if self.put(way, &key, content.bytes, PutMode::Create)? {
                let mut known = self.known();
                if known.numbers.len() >= MOST_NUMBERS {
                    known.numbers.clear();
                }
                known.numbers.insert(self.series(way), number);
                drop(known);
                return self.written(way, &key);
            }
            number += 1;
        }
    }

    /// Puts an object; `false` if another one has its name. The name is noted before.
    fn put(&self, way: &Way<'_>, key: &str, bytes: &[u8], mode: PutMode) -> Result<bool> {
        way.note(Step::Try(key.into()))?;
        self.known().unanswered.insert(way.mark.to_owned(), key.to_owned());
        let attributes = Attributes::from_iter([
            (Attribute::ContentType, media_type(way.name).to_owned()),
            (Attribute::Metadata(MARK.into()), way.mark.to_owned()),
        ]);
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        let payload = PutPayload::from(bytes.to_vec());
        let error = match self.wait(self.store.put_opts(&path(key)?, payload, options)) {
            Ok(_) => {
                self.known().unanswered.remove(way.mark);
                return Ok(true);
            }
            Err(error) => error,
        };
        let refusal = matches!(
            error,
            StoreError::NotFound { .. }
                | StoreError::PermissionDenied { .. }
                | StoreError::Unauthenticated { .. }
                | StoreError::NotImplemented { .. }
                | StoreError::NotSupported { .. }
        );
        if refusal {
            self.known().unanswered.remove(way.mark);
            return Err(self.refused("put", key, error));
        }
        // Its name is taken, maybe by itself; or nobody knows.
        let taken = matches!(error, StoreError::AlreadyExists { .. });
        match self.settle(way, key) {
            Ok(true) => Ok(true),
            Ok(false) if taken => Ok(false),
            Ok(false) => Err(self.refused("put", key, error)),
            Err(_) => Err(self
                .refused("put", key, error)
                .remedy(format!("the store may have taken it all the same: look for {}", self.url(key)))),
        }
    }

    /// Whether an unanswered put was taken after all.
    fn settle(&self, way: &Way<'_>, key: &str) -> Result<bool> {
        let taken = self.mark_of(key)?.is_some_and(|mark| mark == way.mark);
        self.known().unanswered.remove(way.mark);
        Ok(taken)
    }

    fn written(&self, way: &Way<'_>, key: &str) -> Result<PathBuf> {
        // Not to be lost, but the object's mark says the same to those who look for it.
        let _ = way.note(Step::Written);
        Ok(self.url(key).into())
    }

    /// What an earlier process had put stays; anything else is made again.
    pub(super) fn resume(&self, way: &Way<'_>, traces: &Traces<'_>) -> Result<Option<PathBuf>> {
        let Some(key) = traces.tried.and_then(FilePath::to_str) else { return Ok(None) };
        if traces.written || self.mark_of(key)?.is_some_and(|mark| mark == way.mark) {
            return self.written(way, key).map(Some);
        }
        Ok(None)
    }

    /// Takes away what an unanswered put may have left.
    pub(super) fn clear(&self, way: &Way<'_>) {
        let unanswered = self.known().unanswered.remove(way.mark);
        if let Some(key) = unanswered
            && let Ok(true) = self.settle(way, &key)
            && let Ok(path) = path(&key)
        {
            let _ = self.wait(object_store::ObjectStoreExt::delete(&*self.store, &path));
        }
    }

    /// The mark of the object under a key, empty where it has none; `None` where there is no object.
    fn mark_of(&self, key: &str) -> Result<Option<String>> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        match self.wait(self.store.get_opts(&path(key)?, options)) {
            Ok(found) => {
                let mark = found.attributes.get(&Attribute::Metadata(MARK.into()));
                Ok(Some(mark.map_or(String::new(), |mark| mark.as_ref().to_owned())))
            }
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.refused("look at", key, error)),
        }
    }

    fn exists(&self, key: &str) -> Result<bool> {
        self.mark_of(key).map(|mark| mark.is_some())
    }

    /// Where numbering begins: after the last one given here, else after what the store has.
    fn first_number(&self, way: &Way<'_>) -> Result<u64> {
        if let Some(last) = self.known().numbers.get(&self.series(way)) {
            return Ok(last.saturating_add(1));
        }
        let name = way.name;
        if name.counter.is_none() {
            let failure = std::cell::Cell::new(None);
            let first = first_free(|number| {
                let found = self.exists(&self.key(way.folders, &name.file(number)));
                found.unwrap_or_else(|error| {
                    failure.set(Some(error));
                    false
                })
            });
            return failure.take().map_or(Ok(first), Err);
        }
        let folder = self.key(way.folders, "");
        let listed = self.wait(self.store.list_with_delimiter(Some(&path(&folder)?)));
        let listed = listed.map_err(|error| self.refused("list", &folder, error))?;
        let numbers = listed.objects.iter().filter_map(|object| name.number_of(object.location.filename()?));
        Ok(numbers.max().unwrap_or(0).saturating_add(1))
    }

    /// Names that share their numbers.
    fn series(&self, way: &Way<'_>) -> String {
        let name = match &way.name.counter {
            Some(_) => format!("{}*", way.name.before),
            None => way.name.file(1),
        };
        self.key(way.folders, &name)
    }

    /// A key below the bucket.
    fn key(&self, folders: &[String], file: &str) -> String {
        let parts: Vec<&str> = self.prefix.iter().chain(folders).map(String::as_str).chain([file]).collect();
        parts.join("/")
    }

    fn url(&self, key: &str) -> String {
        format!("{}/{key}", self.bucket)
    }

    fn refused(&self, action: &str, key: &str, error: StoreError) -> Error {
        use io::ErrorKind as Io;
        let (kind, remedy) = match &error {
            StoreError::NotFound { .. } => (Io::NotFound, Some("create the bucket first")),
            StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
                (Io::PermissionDenied, Some("check the credentials and what they may do"))
            }
            StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => {
                (Io::Unsupported, Some("the store must take conditional puts"))
            }
            StoreError::InvalidPath { .. } => (Io::InvalidInput, None),
            _ => (Io::Other, None),
        };
        let refused = Error::io(format!("{action} {}", self.url(key)), io::Error::new(kind, error));
        match remedy {
            Some(remedy) => refused.remedy(remedy),
            None => refused,
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Waiting for it would panic where the caller has a runtime of its own.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn path(key: &str) -> Result<Path> {
    Path::parse(key).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, format!("{key:?} cannot be a name in a store: {error}")).source(error)
    })
}

fn media_type(name: &Name) -> &'static str {
    match name.extension {
        "jpg" => "image/jpeg",
        "webp" => "image/webp",
        "avif" => "image/avif",
        _ => "image/png",
    }
}

/// Refuses options that the store does not have.
pub(in crate::save) fn check_options(target: &StoreTarget) -> Result<()> {
    for (key, _) in &target.options {
        let known = match target.scheme {
            Scheme::S3 => key.parse::<AmazonS3ConfigKey>().is_ok(),
            Scheme::Google => key.parse::<GoogleConfigKey>().is_ok(),
            Scheme::Azure => key.parse::<AzureConfigKey>().is_ok(),
            #[cfg(test)]
            Scheme::Memory => false,
        };
        if !known {
            return Err(Error::new(ErrorKind::InvalidInput, format!("the store {target} has no option {key:?}"))
                .expected("an option of the crate object_store for this kind of store"));
        }
    }
    Ok(())
}

/// Each request is made once: the saver retries, tells of it and can be cancelled meanwhile.
fn build(target: &StoreTarget) -> object_store::Result<Arc<dyn ObjectStore>> {
    let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    macro_rules! build {
        ($builder:expr, $key:ty) => {{
            let timeout = <$key>::Client(ClientConfigKey::Timeout);
            let mut builder = $builder.with_retry(once).with_config(timeout, TIMEOUT);
            for (key, value) in &target.options {
                builder = builder.with_config(key.parse::<$key>()?, value);
            }
            Ok(Arc::new(builder.build()?))
        }};
    }
    match target.scheme {
        Scheme::S3 => build!(AmazonS3Builder::new().with_bucket_name(&target.bucket), AmazonS3ConfigKey),
        Scheme::Google => build!(GoogleCloudStorageBuilder::new().with_bucket_name(&target.bucket), GoogleConfigKey),
        Scheme::Azure => build!(MicrosoftAzureBuilder::new().with_container_name(&target.bucket), AzureConfigKey),
        #[cfg(test)]
        Scheme::Memory => Ok(tests::memory(&target.bucket)),
    }
}

#[cfg(test)]
mod tests;
