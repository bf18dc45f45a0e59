//! What was typed after `serve`, `start`, `stop`, `status` and `unload`, and how other commands find a daemon.

use super::{ComputeArgs, ReportArgs};
use crate::settings::parse_pool;
use clap::Args;
use luna_core::config::{Bytes, LogFormat, LogLevel, Seconds, Setting, WatchAddress, Workers, keys};
use std::{
    net::SocketAddr,
    num::{NonZeroU64, NonZeroUsize},
    path::PathBuf,
};

/// Serve models to other processes until Ctrl-C, SIGTERM or `luna-cli stop`
///
/// Prints the address when it is ready, and where it can be watched. Work that was accepted is finished before it ends.
#[derive(Debug, Default, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub daemon: DaemonArgs,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub report: ReportArgs,
}

/// How to serve. The help of each option is the settings' table.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Serving")]
pub struct DaemonArgs {
    #[arg(long, value_name = keys::LISTEN.entry.form, help = keys::LISTEN.entry.help(), value_parser = read::<SocketAddr>)]
    pub listen: Option<SocketAddr>,
    #[arg(long, value_name = keys::TOKEN_FILE.entry.form, help = keys::TOKEN_FILE.entry.help())]
    pub token_file: Option<PathBuf>,
    #[arg(long = "model-root", value_name = keys::MODEL_ROOTS.entry.form, help = keys::MODEL_ROOTS.entry.help())]
    pub model_roots: Vec<PathBuf>,
    #[arg(long, value_name = keys::EMBEDDINGS.entry.form, help = keys::EMBEDDINGS.entry.help())]
    pub embeddings: Vec<PathBuf>,
    #[arg(long = "lora-folder", value_name = keys::LORAS.entry.form, help = keys::LORAS.entry.help())]
    pub lora_folders: Vec<PathBuf>,
    #[arg(long, value_name = keys::LORA_MEMORY.entry.form, help = keys::LORA_MEMORY.entry.help())]
    #[arg(value_parser = read::<Bytes>)]
    pub lora_memory: Option<Bytes>,
    #[arg(long, value_name = keys::OUTPUT.entry.form, help = keys::OUTPUT.entry.help())]
    pub output: Option<PathBuf>,
    #[arg(long, value_name = keys::SPOOL.entry.form, help = keys::SPOOL.entry.help())]
    pub spool: Option<PathBuf>,
    #[arg(long, value_name = keys::CONDITIONING_MEMORY.entry.form, help = keys::CONDITIONING_MEMORY.entry.help())]
    #[arg(value_parser = read::<Bytes>)]
    pub conditioning_memory: Option<Bytes>,
    #[arg(long = "model", value_name = keys::MODELS.entry.form, help = keys::MODELS.entry.help())]
    #[arg(value_parser = read::<String>)]
    pub models: Vec<String>,
    #[arg(long, value_name = keys::MODEL_MEMORY.entry.form, help = keys::MODEL_MEMORY.entry.help())]
    #[arg(value_parser = read::<Bytes>)]
    pub model_memory: Option<Bytes>,
    #[arg(long = "pool", value_name = "POOL=MIN..MAX", value_parser = parse_pool, help = pools())]
    pub pools: Vec<(String, Workers)>,
    #[arg(long, value_name = keys::QUEUE.entry.form, help = keys::QUEUE.entry.help(), value_parser = read::<NonZeroU64>)]
    pub queue: Option<NonZeroU64>,
    #[arg(long, value_name = keys::IDLE.entry.form, help = keys::IDLE.entry.help(), value_parser = read::<Seconds>)]
    pub idle: Option<Seconds>,
    #[arg(long, value_name = keys::DRAIN.entry.form, help = keys::DRAIN.entry.help(), value_parser = read::<Seconds>)]
    pub drain: Option<Seconds>,
    #[arg(long, value_name = keys::MAX_FRAME.entry.form, help = keys::MAX_FRAME.entry.help(), value_parser = read::<Bytes>)]
    pub max_frame: Option<Bytes>,
    #[arg(long, value_name = keys::MAX_CLIENT.entry.form, help = keys::MAX_CLIENT.entry.help(), value_parser = read::<Bytes>)]
    pub max_client: Option<Bytes>,
    #[arg(long, value_name = keys::MAX_CONNECTIONS.entry.form, help = keys::MAX_CONNECTIONS.entry.help())]
    #[arg(value_parser = read::<NonZeroUsize>)]
    pub max_connections: Option<NonZeroUsize>,
    #[arg(long, value_name = keys::HANDSHAKE.entry.form, help = keys::HANDSHAKE.entry.help(), value_parser = read::<Seconds>)]
    pub handshake: Option<Seconds>,
    #[arg(long, value_name = keys::STALL.entry.form, help = keys::STALL.entry.help(), value_parser = read::<Seconds>)]
    pub stall: Option<Seconds>,
    #[arg(long, help = keys::DENY_SHUTDOWN.entry.help(), num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", hide_possible_values = true)]
    pub deny_shutdown: Option<bool>,
    #[arg(long, help = keys::DENY_UNLOAD.entry.help(), num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", hide_possible_values = true)]
    pub deny_unload: Option<bool>,
    #[command(flatten)]
    pub watch: WatchArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// Where and by whom the daemon can be watched.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Watching")]
pub struct WatchArgs {
    #[arg(long, value_name = keys::WATCH_LISTEN.entry.form, help = keys::WATCH_LISTEN.entry.help())]
    #[arg(value_parser = read::<WatchAddress>)]
    pub watch_listen: Option<WatchAddress>,
    #[arg(long = "watch-host", value_name = keys::WATCH_HOSTS.entry.form, help = keys::WATCH_HOSTS.entry.help())]
    pub watch_hosts: Vec<String>,
    #[arg(long, value_name = keys::WATCH_CONNECTIONS.entry.form, help = keys::WATCH_CONNECTIONS.entry.help())]
    #[arg(value_parser = read::<NonZeroUsize>)]
    pub watch_connections: Option<NonZeroUsize>,
}

/// What is logged, how, and where.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
    #[arg(long, value_name = keys::LOG_LEVEL.entry.form, help = keys::LOG_LEVEL.entry.help())]
    #[arg(value_parser = read::<LogLevel>)]
    pub log_level: Option<LogLevel>,
    #[arg(long, value_name = keys::LOG_FORMAT.entry.form, help = keys::LOG_FORMAT.entry.help())]
    #[arg(value_parser = read::<LogFormat>)]
    pub log_format: Option<LogFormat>,
    #[arg(long, value_name = keys::LOG_FILE.entry.form, help = keys::LOG_FILE.entry.help())]
    pub log_file: Option<PathBuf>,
}

/// Reads a setting's value.
fn read<T: Setting>(text: &str) -> Result<T, String> {
    T::read(text)
}

fn pools() -> String {
    let usual = keys::WORKERS.map(|(name, key)| format!("{name}={}", key.entry.usual_in_words()));
    format!("Fewest and most workers of a pool; may be given several times [default: {}]", usual.join(" "))
}

/// Start a daemon in the background
///
/// Takes what `serve` takes, waits until the daemon is ready, and prints its address.
#[derive(Debug, Args)]
pub struct StartArgs {
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Which daemon.
#[derive(Debug, Args)]
#[command(next_help_heading = "Daemon")]
pub struct AddressArgs {
    /// Where the daemon listens [default: 127.0.0.1:19283]
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: Option<String>,
    /// The file that holds the daemon's token
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// A daemon that does the work instead of this process.
#[derive(Debug, Args)]
#[command(next_help_heading = "Daemon")]
pub struct ConnectArgs {
    /// Let the daemon at this address do the work
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: Option<String>,
    /// The file that holds the daemon's token
    #[arg(long, value_name = "FILE", requires = "connect")]
    pub token_file: Option<PathBuf>,
}

/// End a daemon: it finishes what it has accepted
#[derive(Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    pub address: AddressArgs,
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Tell a daemon's models, pools, queues, clients and memory
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub address: AddressArgs,
    /// Tell it again every second, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Give the memory of a daemon's models back
///
/// Models from a path stay registered and are read again when they are used next.
#[derive(Debug, Args)]
pub struct UnloadArgs {
    /// Names or ids; all models if there are none
    #[arg(value_name = "MODEL")]
    pub models: Vec<String>,
    #[command(flatten)]
    pub address: AddressArgs,
    #[command(flatten)]
    pub report: ReportArgs,
}
