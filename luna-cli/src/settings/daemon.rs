//! How a daemon serves, and how commands find one.

use super::{Compute, Environment, compute};
use crate::args::{AddressArgs, ComputeArgs, ConnectArgs, LogArgs, ServeArgs, WatchArgs};
use luna_core::{
    Error, ErrorKind, Result,
    config::{Key, LogFormat, LogLevel, Setting, WatchAddress, Workers, keys},
    memory,
    protocol::DEFAULT_PORT,
    save::Target,
};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

/// The longest token that is read.
const TOKEN_BYTES: u64 = 4096;
/// The shortest that is no invitation to guess.
const SHORTEST_TOKEN: usize = 16;
/// Where the system does not tell how much memory there is.
const MODEL_BYTES: u64 = 8 << 30;
/// In no time nobody could say anything.
const SHORTEST_TIME: Duration = Duration::from_secs(1);

/// Settings of a daemon.
#[derive(Debug, Clone)]
pub struct DaemonSettings {
    /// Where it listens for requests.
    pub listen: SocketAddr,
    /// Where it can be watched, if anywhere.
    pub watch: Option<WatchSettings>,
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
    /// What it logs and where.
    pub log: LogSettings,
    /// Whether clients may end it.
    pub allow_shutdown: bool,
    /// Whether clients may unload models.
    pub allow_unload: bool,
}

/// Where and by whom a daemon can be watched.
#[derive(Debug, Clone)]
pub struct WatchSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Further names that browsers may know it by.
    pub hosts: Vec<String>,
    /// Connections at once.
    pub connections: usize,
}

/// What is logged, how, and where.
#[derive(Debug, Clone)]
pub struct LogSettings {
    pub level: LogLevel,
    pub format: LogFormat,
    /// Standard error if there is none.
    pub file: Option<PathBuf>,
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
    fn new(typed: &[(String, Workers)], queue: u64, environment: &Environment) -> Result<Self> {
        let bounds = |(name, key): (&'static str, &Key<Workers>)| {
            let typed = typed.iter().rev().find(|(pool, _)| pool == name).map(|(_, workers)| workers.clone());
            Ok((name, PoolBounds { workers: environment.get(typed, key)?.0, queue }))
        };
        keys::WORKERS.into_iter().map(bounds).collect::<Result<_>>().map(Self)
    }

    /// The bounds of a pool.
    ///
    /// # Panics
    /// For a name that is no pool's.
    pub fn get(&self, name: &str) -> &PoolBounds {
        &self.0[name]
    }
}

/// Reads `vae=1..4` or `vae=2`.
pub fn parse_pool(text: &str) -> Result<(String, Workers), String> {
    let names = keys::WORKERS.map(|(name, _)| name);
    match text.split_once('=') {
        Some((name, workers)) if names.contains(&name) => Ok((name.to_owned(), Workers::read(workers)?)),
        _ => Err(format!("expected bounds of a pool such as vae=1..4; pools are {}", names.join(", "))),
    }
}

/// A model to register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSource {
    pub name: Option<String>,
    pub path: PathBuf,
}

impl From<&str> for ModelSource {
    /// Reads `NAME=PATH` or `PATH`. A path with `=` in it is meant where it exists.
    fn from(text: &str) -> Self {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() && !Path::new(text).exists() => {
                Self { name: Some(name.to_owned()), path: path.into() }
            }
            _ => Self { name: None, path: text.into() },
        }
    }
}

impl DaemonSettings {
    pub fn new(args: &ServeArgs, environment: &Environment) -> Result<Self> {
        let ComputeArgs { precision, threads, device } = args.compute;
        let args = &args.daemon;
        let listen = environment.get(args.listen, &keys::LISTEN)?;
        let queue = environment.get(args.queue, &keys::QUEUE)?;
        let token_file = environment.or(args.token_file.clone(), &keys::TOKEN_FILE)?;
        let models = environment.list(args.models.clone(), &keys::MODELS)?;
        let output = environment.or(args.output.clone(), &keys::OUTPUT)?;
        let spool = environment.or(args.spool.clone(), &keys::SPOOL)?;
        if spool.is_some() && output.is_none() {
            return Err(Error::new(ErrorKind::InvalidInput, "--spool has no meaning without --output")
                .remedy("give `--output FOLDER`, or leave the spool out"));
        }
        let available = || memory::available().map_or(MODEL_BYTES, |bytes| bytes / 4 * 3);
        Ok(Self {
            listen,
            watch: WatchSettings::new(&args.watch, listen, environment)?,
            token: token_file.as_deref().map(read_token).transpose()?.map(|token| blake3::hash(token.as_bytes())),
            model_roots: environment.list(args.model_roots.clone(), &keys::MODEL_ROOTS)?,
            embeddings: environment.list(args.embeddings.clone(), &keys::EMBEDDINGS)?,
            lora_folders: super::lora::folders(args.lora_folders.clone(), environment)?,
            lora_bytes: environment.get(args.lora_memory, &keys::LORA_MEMORY)?.0,
            output: output.map(|path| super::save::target(path, environment)).transpose()?,
            spool,
            conditioning_bytes: environment.get(args.conditioning_memory, &keys::CONDITIONING_MEMORY)?.0 as usize,
            models: models.iter().map(|text| ModelSource::from(text.as_str())).collect(),
            model_bytes: environment
                .or(args.model_memory, &keys::MODEL_MEMORY)?
                .map_or_else(available, |bytes| bytes.0),
            compute: compute(ComputeArgs { precision, threads, device }, environment)?,
            pools: PoolSettings::new(&args.pools, queue.get(), environment)?,
            idle: environment.get(args.idle, &keys::IDLE)?.duration(),
            drain: environment.get(args.drain, &keys::DRAIN)?.duration(),
            frame_bytes: environment.get(args.max_frame, &keys::MAX_FRAME)?.0.min(u64::from(u32::MAX)),
            client_bytes: environment.get(args.max_client, &keys::MAX_CLIENT)?.0,
            connections: environment.get(args.max_connections, &keys::MAX_CONNECTIONS)?.get(),
            handshake: environment.get(args.handshake, &keys::HANDSHAKE)?.duration().max(SHORTEST_TIME),
            stall: environment.get(args.stall, &keys::STALL)?.duration().max(SHORTEST_TIME),
            log: LogSettings::new(&args.log, environment)?,
            allow_shutdown: !environment.get(args.deny_shutdown, &keys::DENY_SHUTDOWN)?,
            allow_unload: !environment.get(args.deny_unload, &keys::DENY_UNLOAD)?,
        })
    }

    /// Looks for what must be there when the daemon starts.
    ///
    /// # Errors
    /// `NotFound` for a folder or model that is missing.
    pub fn check(&self) -> Result<()> {
        let models = self.models.iter().map(|model| &model.path);
        for path in self.model_roots.iter().chain(&self.embeddings).chain(&self.lora_folders).chain(models) {
            std::fs::metadata(path).map_err(|error| Error::io(format!("find {}", path.display()), error))?;
        }
        Ok(())
    }
}

impl WatchSettings {
    fn new(args: &WatchArgs, listen: SocketAddr, environment: &Environment) -> Result<Option<Self>> {
        let beside = || {
            // Where any port does, any other does.
            let port = if listen.port() == 0 { 0 } else { listen.port().checked_add(1).unwrap_or_default() };
            WatchAddress::At(SocketAddr::new(listen.ip(), port))
        };
        match environment.or(args.watch_listen, &keys::WATCH_LISTEN)?.unwrap_or_else(beside) {
            WatchAddress::Off => Ok(None),
            WatchAddress::At(listen) => Ok(Some(Self {
                listen,
                hosts: environment.list(args.watch_hosts.clone(), &keys::WATCH_HOSTS)?,
                connections: environment.get(args.watch_connections, &keys::WATCH_CONNECTIONS)?.get(),
            })),
        }
    }
}

impl LogSettings {
    fn new(args: &LogArgs, environment: &Environment) -> Result<Self> {
        Ok(Self {
            level: environment.get(args.log_level, &keys::LOG_LEVEL)?,
            format: environment.get(args.log_format, &keys::LOG_FORMAT)?,
            file: environment.or(args.log_file.clone(), &keys::LOG_FILE)?,
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
        let address = environment.or(args.connect, &keys::CONNECT)?.unwrap_or_else(usual);
        Self::with_token(address, args.token_file, environment)
    }

    /// The daemon that shall do the work of a one-shot command, if one shall.
    pub fn of_command(args: ConnectArgs, environment: &Environment) -> Result<Option<Self>> {
        let ConnectArgs { connect, token_file } = args;
        environment
            .or(connect, &keys::CONNECT)?
            .map(|address| Self::with_token(address, token_file, environment))
            .transpose()
    }

    fn with_token(address: String, file: Option<PathBuf>, environment: &Environment) -> Result<Self> {
        let file = environment.or(file, &keys::TOKEN_FILE)?;
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
    use crate::args::{Args, Command};
    use clap::Parser;

    fn serve(options: &[&str], variables: &[(&str, &str)]) -> Result<DaemonSettings> {
        let words = ["luna-cli", "serve"].iter().chain(options);
        let Command::Serve(args) = Args::try_parse_from(words).unwrap().command else { panic!("not serve") };
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        DaemonSettings::new(&args, &Environment::new(None, &find)?)
    }

    #[test]
    fn bounds_of_pools_are_read() {
        let settings =
            serve(&["--pool", "vae=2..8", "--pool", "text=3", "--queue", "7"], &[("LUNA_POOL_LOAD", "2")]).unwrap();
        assert_eq!(*settings.pools.get("vae"), PoolBounds { workers: 2..=8, queue: 7 });
        assert_eq!(settings.pools.get("text").workers, 3..=3);
        assert_eq!(settings.pools.get("load").workers, 2..=2);
        assert_eq!(settings.pools.get("vision").workers, 1..=2);
        for wrong in ["vae", "vea=1..2", "vae=a..b", "vae=1..", "=1..2", "vae=0..2"] {
            assert!(parse_pool(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn it_is_watched_beside_where_it_listens() {
        let at = |options: &[&str]| serve(options, &[]).unwrap().watch.map(|watch| watch.listen.to_string());
        assert_eq!(at(&[]).as_deref(), Some("127.0.0.1:19284"));
        assert_eq!(at(&["--listen", "[::1]:7"]).as_deref(), Some("[::1]:8"));
        assert_eq!(at(&["--listen", "127.0.0.1:0"]).as_deref(), Some("127.0.0.1:0"));
        assert_eq!(at(&["--listen", "127.0.0.1:65535"]).as_deref(), Some("127.0.0.1:0"));
        assert_eq!(at(&["--watch-listen", "127.0.0.1:9"]).as_deref(), Some("127.0.0.1:9"));
        assert_eq!(at(&["--watch-listen", "off"]), None);
    }

    #[test]
    fn clients_are_denied_by_option_and_by_variable() {
        let allowed = |options: &[&str], variables: &[(&str, &str)]| serve(options, variables).unwrap().allow_shutdown;
        assert!(allowed(&[], &[]) && !allowed(&["--deny-shutdown"], &[]));
        assert!(!allowed(&[], &[("LUNA_DENY_SHUTDOWN", "1")]));
        assert!(allowed(&["--deny-shutdown=false"], &[("LUNA_DENY_SHUTDOWN", "1")]));
    }

    #[test]
    fn models_have_a_name_or_a_path_only() {
        let source = ModelSource::from("sdxl=/models/a.safetensors");
        assert_eq!((source.name.as_deref(), source.path), (Some("sdxl"), "/models/a.safetensors".into()));
        assert_eq!(ModelSource::from("a.safetensors").name, None);
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
