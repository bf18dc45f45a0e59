//! What was typed after `serve`, `start`, `stop`, `status` and `unload`, and how other commands find a daemon.

use super::{ComputeArgs, ReportArgs};
use crate::settings::{ModelSource, parse_bytes};
use clap::Args;
use std::{net::SocketAddr, num::NonZeroU64, path::PathBuf};

/// Serve models to other processes until Ctrl-C, SIGTERM or `luna-cli stop`
///
/// Prints the address when it is ready. Work that was accepted is finished before it ends.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub daemon: DaemonArgs,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub report: ReportArgs,
}

/// How to serve.
#[derive(Debug, Args)]
#[command(next_help_heading = "Serving")]
pub struct DaemonArgs {
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:19283]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<SocketAddr>,
    /// Ask clients for the token in this file; needed for an address that is not loopback
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A folder whose models clients may name by path; may be given several times
    #[arg(long = "model-root", value_name = "FOLDER")]
    pub model_roots: Vec<PathBuf>,
    /// A folder with textual inversions; may be given several times
    #[arg(long, value_name = "FOLDER")]
    pub embeddings: Vec<PathBuf>,
    /// A folder that clients' LoRAs are looked up in by name, with all below it; may be given several times
    #[arg(long = "lora-folder", value_name = "FOLDER")]
    pub lora_folders: Vec<PathBuf>,
    /// The most bytes of LoRAs in memory; half as much again for compressed ones that clients sent
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "2GiB")]
    pub lora_memory: u64,
    /// The folder, or object store's URL, below which clients' pictures are saved; without it they may save none
    #[arg(long, value_name = "FOLDER|URL")]
    pub output: Option<PathBuf>,
    /// Keep clients' durable save jobs in this folder until they are done, also beyond the daemon's end
    #[arg(long, value_name = "FOLDER", requires = "output")]
    pub spool: Option<PathBuf>,
    /// The most bytes of conditionings that are remembered
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "256MiB")]
    pub conditioning_memory: u64,
    /// A model to register at the start, under a name or its file's; may be given several times
    #[arg(long = "model", value_name = "[NAME=]PATH")]
    pub models: Vec<ModelSource>,
    /// The most that weights may take in memory; idle models go first [default: 3/4 of the memory available]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub model_memory: Option<u64>,
    /// Workers of a pool, such as vae=1..4; pools are load, text, vae, vision, diffusion, save
    #[arg(long = "pool", value_name = "POOL=MIN..MAX")]
    pub pools: Vec<String>,
    /// Requests that may wait or run in each pool; past them a client is told `busy`
    #[arg(long, value_name = "N", default_value = "256")]
    pub queue: NonZeroU64,
    /// Seconds without work after which a worker above the fewest ends
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub idle: u64,
    /// Seconds for accepted work to finish when the daemon ends
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub drain: u64,
    /// The most bytes of one frame
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "512MiB")]
    pub max_frame: u64,
    /// The most bytes that one client may have under way
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "1GiB")]
    pub max_client: u64,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub max_connections: usize,
    /// Seconds that a client may take to say who it is
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub handshake: u64,
    /// Seconds that a client may be slow in mid-frame, beside a second for each MiB
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub stall: u64,
    /// Tell on standard error what happens, one JSON object a line
    #[arg(long)]
    pub log: bool,
    /// Do not let clients end the daemon
    #[arg(long)]
    pub deny_shutdown: bool,
    /// Do not let clients unload models
    #[arg(long)]
    pub deny_unload: bool,
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
