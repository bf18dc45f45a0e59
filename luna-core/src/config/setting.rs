//! Types of settings. Enters: text. Leaves: values, or what was expected.

use crate::{Device, Precision};
use std::{
    fmt,
    net::SocketAddr,
    num::{NonZeroU64, NonZeroUsize},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

/// The most workers of a pool.
const MOST_WORKERS: usize = 1024;
/// The most seconds of any time: a hundred years are for ever.
const MOST_SECONDS: u64 = 100 * 365 * 24 * 3600;

/// A type that settings may have.
pub trait Setting: Sized {
    /// Reads a value.
    ///
    /// # Errors
    /// What was expected.
    fn read(text: &str) -> Result<Self, String>;
}

/// A number of bytes, as [`parse_bytes`] reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// A whole number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub u64);

/// Fewest and most workers of a pool: `1..4`, or `2` for always two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workers(pub RangeInclusive<usize>);

/// Where those who watch are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchAddress {
    /// Nowhere: `off`.
    Off,
    /// There.
    At(SocketAddr),
}

/// What is worth a line in the log, and all that is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What failed by Luna's own fault.
    Error,
    /// What was refused or done otherwise than asked for.
    Warn,
    /// Requests, connections, models.
    Info,
    /// What helps to find a fault.
    Debug,
    /// Everything.
    Trace,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person.
    Human,
    /// A JSON object each.
    Json,
}

impl Seconds {
    /// As a duration.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl Setting for Bytes {
    fn read(text: &str) -> Result<Self, String> {
        parse_bytes(text).map(Self)
    }
}

impl Setting for Seconds {
    fn read(text: &str) -> Result<Self, String> {
        match text.trim().parse() {
            Ok(seconds) if seconds <= MOST_SECONDS => Ok(Self(seconds)),
            _ => Err("expected a whole number of seconds".to_owned()),
        }
    }
}

impl Setting for Workers {
    fn read(text: &str) -> Result<Self, String> {
        let (fewest, most) = text.split_once("..").unwrap_or((text, text));
        match (fewest.trim().parse(), most.trim().trim_start_matches('=').parse()) {
            (Ok(fewest), Ok(most)) if 1 <= fewest && fewest <= most && most <= MOST_WORKERS => Ok(Self(fewest..=most)),
            _ => Err(format!("expected the fewest and the most, such as 1..4, between 1 and {MOST_WORKERS}")),
        }
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.0.start(), self.0.end())
    }
}

impl Setting for WatchAddress {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            text => SocketAddr::read(text).map(Self::At).map_err(|expected| format!("{expected}, or off")),
        }
    }
}

impl LogLevel {
    /// All, from the quietest.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Off, "off"),
        (Self::Error, "error"),
        (Self::Warn, "warn"),
        (Self::Info, "info"),
        (Self::Debug, "debug"),
        (Self::Trace, "trace"),
    ];
}

impl Setting for LogLevel {
    fn read(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|(_, name)| *name == text);
        found.map(|(level, _)| level).ok_or_else(|| format!("expected {}", Self::ALL.map(|(_, name)| name).join(", ")))
    }
}

impl Setting for LogFormat {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err("expected human or json".to_owned()),
        }
    }
}

impl Setting for bool {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err("expected true or false".to_owned()),
        }
    }
}

impl Setting for SocketAddr {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "expected an IP address and a port, such as 127.0.0.1:19283".to_owned())
    }
}

impl Setting for PathBuf {
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("expected a path".to_owned()) } else { Ok(text.into()) }
    }
}

impl Setting for String {
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("expected a text".to_owned()) } else { Ok(text.to_owned()) }
    }
}

macro_rules! parsed {
    ($($type:ty, $expected:literal;)+) => {
        $(impl Setting for $type {
            fn read(text: &str) -> Result<Self, String> {
                <$type as FromStr>::from_str(text.trim()).map_err(|_| $expected.to_owned())
            }
        })+
    };
}

parsed! {
    Device, "expected cpu, cuda, cuda:N, metal or metal:N";
    Precision, "expected f32, bf16 or f16";
    NonZeroUsize, "expected a whole number, at least 1";
    NonZeroU64, "expected a whole number, at least 1";
}

/// Reads `2GiB`, `700M`, `1.5 GB`, `1048576`.
///
/// # Errors
/// What was expected.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || "expected a number of bytes such as 2GiB, 700M or 1.5GB".to_owned();
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = (text[..split].trim(), text[split..].to_ascii_lowercase());
    let (power, decimal) = match unit.as_str() {
        "" | "b" => (0, false),
        "k" | "kib" => (1, false),
        "m" | "mib" => (2, false),
        "g" | "gib" => (3, false),
        "t" | "tib" => (4, false),
        "kb" => (1, true),
        "mb" => (2, true),
        "gb" => (3, true),
        "tb" => (4, true),
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * if decimal { 1000f64 } else { 1024f64 }.powi(power);
    if bytes.is_finite() && (1.0..9e15).contains(&bytes) { Ok(bytes as u64) } else { Err(wrong()) }
}
