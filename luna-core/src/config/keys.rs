//! The table of settings. Their documentation is what help and manual say.

use super::{Bytes, Entry, Key, LogFormat, LogLevel, Seconds, Setting, Usual, WatchAddress, Workers};
use crate::{Device, Precision};
use std::{
    marker::PhantomData,
    net::SocketAddr,
    num::{NonZeroU64, NonZeroUsize},
    path::PathBuf,
};

/// Reads `name: type = "section.key", "VARIABLE", "--option FORM", default, trait…;` with the meaning as documentation.
macro_rules! keys {
    ($($(#[doc = $meaning:literal])+ $key:ident: $type:ty = $name:literal, $variable:literal, $option:literal $form:literal,
        $usual:ident($words:literal) $(, $kind:ident)*;)+) => {
        $($(#[doc = $meaning])+
        pub static $key: Key<$type> = Key {
            entry: Entry {
                name: $name,
                variable: $variable,
                option: $option,
                form: $form,
                usual: Usual::$usual($words),
                list: false $(|| is_list(stringify!($kind)))*,
                path: false $(|| is_path(stringify!($kind)))*,
                meaning: concat!($($meaning),+),
                check: |text| <$type as Setting>::read(text).map(drop),
            },
            of: PhantomData,
        };)+
        /// All settings, section by section.
        pub static ENTRIES: &[&Entry] = &[$(&$key.entry),+];
    };
}

const fn is_list(kind: &str) -> bool {
    matches!(kind.as_bytes(), b"list")
}

const fn is_path(kind: &str) -> bool {
    matches!(kind.as_bytes(), b"path")
}

keys! {
    /// Where models are held and computed: cpu, cuda, cuda:N, metal or metal:N
    DEVICE: Device = "compute.device", "LUNA_DEVICE", "--device" "DEVICE", Is("cpu");
    /// Precision of activations: f32, bf16 or f16
    PRECISION: Precision = "compute.precision", "LUNA_PRECISION", "--precision" "PRECISION", Is("f32");
    /// CPU threads
    THREADS: NonZeroUsize = "compute.threads", "LUNA_THREADS", "--threads" "N",
        Told("one for each core this process may use");
    /// What a command that computes by itself may hold in all, model included; tiles are chosen to fit
    MAX_MEMORY: Bytes = "compute.max_memory", "LUNA_MAX_MEMORY", "--max-memory" "BYTES", Told("what the system has free");

    /// The VAE of commands that are not given one: a bundled one by name, a file, a checkpoint or a diffusers folder
    VAE: String = "models.vae", "LUNA_VAE", "--vae" "NAME|FILE", Is("moonlet");
    /// A folder with textual inversions
    EMBEDDINGS: PathBuf = "models.embeddings", "LUNA_EMBEDDINGS", "--embeddings" "FOLDER", Is(""), list, path;
    /// A folder that LoRAs are looked up in by name, with all below it
    LORAS: PathBuf = "models.loras", "LUNA_LORAS", "--lora-folder" "FOLDER", Is(""), list, path;
    /// The most bytes of LoRAs that a daemon holds; half as much again for compressed ones that clients sent
    LORA_MEMORY: Bytes = "models.lora_memory", "LUNA_LORA_MEMORY", "--lora-memory" "BYTES", Is("2GiB");
    /// A folder whose models clients of a daemon may name by path
    MODEL_ROOTS: PathBuf = "models.roots", "LUNA_MODEL_ROOTS", "--model-root" "FOLDER", Is(""), list, path;
    /// A model that a daemon registers at the start, under a name or its file's
    MODELS: String = "models.register", "LUNA_MODELS", "--model" "[NAME=]PATH", Is(""), list;
    /// The most that a daemon's weights may take in memory; idle models go first
    MODEL_MEMORY: Bytes = "models.memory", "LUNA_MODEL_MEMORY", "--model-memory" "BYTES",
        Told("3/4 of the memory available");
    /// The most bytes of conditionings that a daemon remembers
    CONDITIONING_MEMORY: Bytes = "models.conditioning_memory", "LUNA_CONDITIONING_MEMORY", "--conditioning-memory" "BYTES",
        Is("256MiB");

    /// The folder, or object store's URL, below which a daemon's clients save pictures
    OUTPUT: PathBuf = "output.folder", "LUNA_OUTPUT", "--output" "FOLDER|URL", Told("none: clients may save nothing"), path;
    /// The folder that keeps clients' durable save jobs until they are done, also beyond the daemon's end
    SPOOL: PathBuf = "output.spool", "LUNA_SPOOL", "--spool" "FOLDER", Told("no job is kept"), path;

    /// Where the daemon listens for requests; port 0 takes a free one
    LISTEN: SocketAddr = "daemon.listen", "LUNA_LISTEN", "--listen" "HOST:PORT", Is("127.0.0.1:19283");
    /// The daemon that shall do a command's work
    CONNECT: String = "daemon.connect", "LUNA_CONNECT", "--connect" "HOST:PORT",
        Told("none; 127.0.0.1:19283 for `stop`, `status` and `unload`");
    /// The file whose first line is the token that clients give; needed for an address that is not loopback
    TOKEN_FILE: PathBuf = "daemon.token_file", "LUNA_TOKEN_FILE", "--token-file" "FILE", Told("no token"), path;
    /// Requests that may wait or run in each pool; past them a client is told `busy`
    QUEUE: NonZeroU64 = "daemon.queue", "LUNA_QUEUE", "--queue" "N", Is("256");
    /// Seconds without work after which a worker above the fewest ends
    IDLE: Seconds = "daemon.idle", "LUNA_IDLE", "--idle" "SECONDS", Is("60");
    /// Seconds for accepted work to finish when the daemon ends
    DRAIN: Seconds = "daemon.drain", "LUNA_DRAIN", "--drain" "SECONDS", Is("30");
    /// The most bytes of one frame
    MAX_FRAME: Bytes = "daemon.max_frame", "LUNA_MAX_FRAME", "--max-frame" "BYTES", Is("512MiB");
    /// The most bytes that one client may have under way
    MAX_CLIENT: Bytes = "daemon.max_client", "LUNA_MAX_CLIENT", "--max-client" "BYTES", Is("1GiB");
    /// Connections at once
    MAX_CONNECTIONS: NonZeroUsize = "daemon.max_connections", "LUNA_MAX_CONNECTIONS", "--max-connections" "N", Is("512");
    /// Seconds that a client may take to say who it is, or what it wants to watch
    HANDSHAKE: Seconds = "daemon.handshake", "LUNA_HANDSHAKE", "--handshake" "SECONDS", Is("10");
    /// Seconds that a client may be slow in mid-frame, beside a second for each MiB
    STALL: Seconds = "daemon.stall", "LUNA_STALL", "--stall" "SECONDS", Is("30");
    /// Do not let clients end the daemon
    DENY_SHUTDOWN: bool = "daemon.deny_shutdown", "LUNA_DENY_SHUTDOWN", "--deny-shutdown" "", Is("false");
    /// Do not let clients unload models
    DENY_UNLOAD: bool = "daemon.deny_unload", "LUNA_DENY_UNLOAD", "--deny-unload" "", Is("false");

    /// Fewest and most workers that open and read model files
    LOAD_WORKERS: Workers = "pools.load", "LUNA_POOL_LOAD", "--pool load=" "MIN..MAX", Is("1..2");
    /// Fewest and most workers that encode prompts
    TEXT_WORKERS: Workers = "pools.text", "LUNA_POOL_TEXT", "--pool text=" "MIN..MAX", Is("1..2");
    /// Fewest and most workers that encode and decode pictures
    VAE_WORKERS: Workers = "pools.vae", "LUNA_POOL_VAE", "--pool vae=" "MIN..MAX", Is("1..4");
    /// Fewest and most workers that look at pictures
    VISION_WORKERS: Workers = "pools.vision", "LUNA_POOL_VISION", "--pool vision=" "MIN..MAX", Is("1..2");
    /// Fewest and most workers that denoise
    DIFFUSION_WORKERS: Workers = "pools.diffusion", "LUNA_POOL_DIFFUSION", "--pool diffusion=" "MIN..MAX", Is("1..2");
    /// Fewest and most workers that save pictures
    SAVE_WORKERS: Workers = "pools.save", "LUNA_POOL_SAVE", "--pool save=" "MIN..MAX", Is("1..4");

    /// Where the daemon can be watched, by browser, WebSocket and Prometheus; port 0 takes a free one, `off` none
    WATCH_LISTEN: WatchAddress = "watch.listen", "LUNA_WATCH_LISTEN", "--watch-listen" "HOST:PORT|off",
        Told("the port after `daemon.listen`'s, so 127.0.0.1:19284");
    /// A further name that browsers may know the daemon by, as in their `Host` header
    WATCH_HOSTS: String = "watch.hosts", "LUNA_WATCH_HOSTS", "--watch-host" "NAME", Is(""), list;
    /// Connections of those who watch, at once
    WATCH_CONNECTIONS: NonZeroUsize = "watch.max_connections", "LUNA_WATCH_CONNECTIONS", "--watch-connections" "N", Is("64");

    /// What a daemon logs: off, error, warn, info, debug or trace, and all that is worse
    LOG_LEVEL: LogLevel = "log.level", "LUNA_LOG_LEVEL", "--log-level" "LEVEL", Is("warn");
    /// How it logs: human, or json for one object a line
    LOG_FORMAT: LogFormat = "log.format", "LUNA_LOG_FORMAT", "--log-format" "FORMAT", Is("human");
    /// The file that log lines are added to
    LOG_FILE: PathBuf = "log.file", "LUNA_LOG_FILE", "--log-file" "FILE", Told("standard error"), path;
}

/// The workers of a pool by its name.
pub static WORKERS: [(&str, &Key<Workers>); 6] = [
    ("load", &LOAD_WORKERS),
    ("text", &TEXT_WORKERS),
    ("vae", &VAE_WORKERS),
    ("vision", &VISION_WORKERS),
    ("diffusion", &DIFFUSION_WORKERS),
    ("save", &SAVE_WORKERS),
];
