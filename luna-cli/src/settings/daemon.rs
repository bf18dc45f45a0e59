//! How a daemon serves, and how commands find one.

use super::{Compute, Environment, compute};
use crate::args::{AddressArgs, ComputeArgs, ConnectArgs, ServeArgs};
use luna_core::{Error, ErrorKind, Result, memory, protocol::DEFAULT_PORT, save::Target};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// The longest token that is read.
const TOKEN_BYTES: u64 = 4096;
/// The shortest that is no invitation to guess.
const SHORTEST_TOKEN: usize = 16;
/// Where the system does not tell how much memory there is.
const MODEL_BYTES: u64 = 8 << 30;

/// Settings of a daemon.
#[derive(Debug, Clone)]
pub struct DaemonSettings {
    /// Where it listens for requests.
    pub listen: SocketAddr,
    /// The digest of the token that clients must give.
    pub token: Option<blake3::Hash>,
    /// Folders whose models clients may name.
    pub model_roots: Vec<PathBuf>,
    /// Folders with textual inversions.
    pub embeddings: Vec<PathBuf>,
    /// Folders that LoRAs are looked up in by name.
    pub lora_folders: Vec<PathBuf>,
    /// The most bytes of parsed LoRAs; compressed ones may take half as much again.
    pub lora_bytes: u64,
    /// Where clients' pictures are saved; nowhere if not given.
    pub output: Option<Target>,
    /// Where durable save jobs are kept.
    pub spool: Option<PathBuf>,
    /// The most bytes of conditionings that are remembered.
    pub conditioning_bytes: usize,
    /// Models that are registered at the start.
    pub models: Vec<ModelSource>,
    /// The most bytes of weights in memory.
    pub model_bytes: u64,
    /// Precision, threads and device.
    pub compute: Compute,
    /// Workers and queues.
    pub pools: PoolSettings,
    /// After so long without work a worker above the fewest ends.
    pub idle: Duration,
    /// So long may accepted work take to finish at the end.
    pub drain: Duration,
    /// The most bytes of one frame.
    pub frame_bytes: u64,
    /// The most bytes that one client may have under way.
    pub client_bytes: u64,
    /// Connections at once.
    pub connections: usize,
    /// So long may a client take to say who it is.
    pub handshake: Duration,
    /// So long may a client be slow in mid-frame, beside a second for each MiB.
    pub stall: Duration,
    /// Whether it tells what happens.
    pub log: bool,
    /// Whether clients may end it.
    pub allow_shutdown: bool,
    /// Whether clients may unload models.
    pub allow_unload: bool,
}

/// Workers and queues of all pools.
#[derive(Debug, Clone)]
pub struct PoolSettings(BTreeMap<&'static str, PoolBounds>);

/// Workers and queue of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolBounds {
    /// Fewest and most workers.
    pub workers: RangeInclusive<usize>,
    /// Requests that may wait or run.
    pub queue: u64,
}

impl PoolSettings {
    const USUAL: [(&'static str, RangeInclusive<usize>); 6] =
        [("load", 1..=2), ("text", 1..=2), ("vae", 1..=4), ("vision", 1..=2), ("diffusion", 1..=2), ("save", 1..=4)];

    /// The usual workers, with this bound for each queue.
    pub fn usual(queue: u64) -> Self {
        Self(Self::USUAL.into_iter().map(|(name, workers)| (name, PoolBounds { workers, queue })).collect())
    }

    /// The bounds of a pool.
    ///
    /// # Panics
    /// For a name that is no pool's.
    pub fn get(&self, name: &str) -> &PoolBounds {
        &self.0[name]
    }

    /// Reads `vae=1..4` or `vae=2`.
    fn set(&mut self, text: &str) -> Result<()> {
        let wrong = || {
            let names: Vec<_> = Self::USUAL.iter().map(|(name, _)| *name).collect();
            Error::new(ErrorKind::InvalidInput, "no bounds of a pool")
                .expected(format!("such as vae=1..4; pools are {}", names.join(", ")))
                .found(format!("`{text}`"))
        };
        let (name, range) = text.split_once('=').ok_or_else(wrong)?;
        let (fewest, most) = range.split_once("..").unwrap_or((range, range));
        let (Ok(fewest), Ok(most)) = (fewest.parse(), most.trim_start_matches('=').parse()) else {
            return Err(wrong());
        };
        self.0.get_mut(name).ok_or_else(wrong)?.workers = fewest..=most;
        Ok(())
    }
}

/// A model to register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSource {
    pub name: Option<String>,
    pub path: PathBuf,
}

impl FromStr for ModelSource {
    type Err = String;

    /// Reads `NAME=PATH` or `PATH`. A path with `=` in it is meant where it exists.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() && !Path::new(text).exists() => {
                Ok(Self { name: Some(name.to_owned()), path: path.into() })
            }
            _ if text.is_empty() => Err("expected a path".to_owned()),
            _ => Ok(Self { name: None, path: text.into() }),
        }
    }
}

impl DaemonSettings {
    pub fn new(args: &ServeArgs, environment: &Environment) -> Result<Self> {
        let args_daemon = &args.daemon;
        let ComputeArgs { precision, threads, device } = args.compute;
        let token_file = environment.or(args_daemon.token_file.clone(), "LUNA_TOKEN_FILE")?;
        let mut pools = PoolSettings::usual(args_daemon.queue.get());
        args_daemon.pools.iter().try_for_each(|text| pools.set(text))?;
        let available = || memory::available().map_or(MODEL_BYTES, |bytes| bytes / 4 * 3);
        Ok(Self {
            listen: args_daemon.listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT))),
            token: token_file.as_deref().map(read_token).transpose()?.map(|token| blake3::hash(token.as_bytes())),
            model_roots: args_daemon.model_roots.clone(),
            embeddings: args_daemon.embeddings.clone(),
            lora_folders: super::lora::folders(args_daemon.lora_folders.clone(), environment)?.unwrap_or_default(),
            lora_bytes: args_daemon.lora_memory,
            output: args_daemon.output.clone().map(|path| super::save::target(path, environment)).transpose()?,
            spool: args_daemon.spool.clone(),
            conditioning_bytes: args_daemon.conditioning_memory as usize,
            models: args_daemon.models.clone(),
            model_bytes: args_daemon.model_memory.unwrap_or_else(available),
            compute: compute(ComputeArgs { precision, threads, device }, environment)?,
            pools,
            idle: Duration::from_secs(args_daemon.idle),
            drain: Duration::from_secs(args_daemon.drain),
            frame_bytes: args_daemon.max_frame.min(u64::from(u32::MAX)),
            client_bytes: args_daemon.max_client,
            connections: args_daemon.max_connections,
            handshake: Duration::from_secs(args_daemon.handshake),
            stall: Duration::from_secs(args_daemon.stall.max(1)),
            log: args_daemon.log,
            allow_shutdown: !args_daemon.deny_shutdown,
            allow_unload: !args_daemon.deny_unload,
        })
    }
}

/// Where a daemon is and what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonAddress {
    pub address: String,
    pub token: Option<String>,
}

impl DaemonAddress {
    pub fn new(args: AddressArgs, environment: &Environment) -> Result<Self> {
        let usual = || format!("{}:{DEFAULT_PORT}", Ipv4Addr::LOCALHOST);
        let address = environment.or(args.connect, "LUNA_CONNECT")?.unwrap_or_else(usual);
        Self::with_token(address, args.token_file, environment)
    }

    /// The daemon that shall do the work of a one-shot command, if one shall.
    pub fn of_command(args: ConnectArgs, environment: &Environment) -> Result<Option<Self>> {
        let ConnectArgs { connect, token_file } = args;
        environment
            .or(connect, "LUNA_CONNECT")?
            .map(|address| Self::with_token(address, token_file, environment))
            .transpose()
    }

    fn with_token(address: String, file: Option<PathBuf>, environment: &Environment) -> Result<Self> {
        let file = environment.or(file, "LUNA_TOKEN_FILE")?;
        Ok(Self { address, token: file.as_deref().map(read_token).transpose()? })
    }
}

/// The first line of a file.
fn read_token(file: &Path) -> Result<String> {
    let failed = |error| Error::io(format!("read the token in {}", file.display()), error);
    let length = std::fs::metadata(file).map_err(failed)?.len();
    luna_core::limits::check_at_most("bytes in the token's file", length, TOKEN_BYTES)?;
    let text = std::fs::read_to_string(file).map_err(failed)?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.len() >= SHORTEST_TOKEN {
        return Ok(token.to_owned());
    }
    Err(Error::new(ErrorKind::InvalidInput, "the token is too short")
        .at(file.display())
        .expected(format!("at least {SHORTEST_TOKEN} characters in the first line")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_pools_are_read() {
        let mut pools = PoolSettings::usual(7);
        pools.set("vae=2..8").unwrap();
        pools.set("text=3").unwrap();
        assert_eq!(*pools.get("vae"), PoolBounds { workers: 2..=8, queue: 7 });
        assert_eq!(pools.get("text").workers, 3..=3);
        for wrong in ["vae", "vea=1..2", "vae=a..b", "vae=1..", "=1..2"] {
            assert_eq!(pools.set(wrong).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong}");
        }
    }

    #[test]
    fn models_have_a_name_or_a_path_only() {
        let source: ModelSource = "sdxl=/models/a.safetensors".parse().unwrap();
        assert_eq!((source.name.as_deref(), source.path), (Some("sdxl"), "/models/a.safetensors".into()));
        assert_eq!("a.safetensors".parse::<ModelSource>().unwrap().name, None);
        assert!("".parse::<ModelSource>().is_err());
    }

    #[test]
    fn short_and_long_tokens_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, fits) in
            [("", false), ("short\n", false), ("0123456789abcdef\nmore", true), (&"x".repeat(5000), false)]
        {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(read_token(file.path()).is_ok(), fits, "{text:.20}");
        }
    }
}
