//! What was meant. Enters: what was typed and the environment, of which this is the only reader. Leaves: settings with
//! every default decided, contradictions refused. It opens no file and builds no model.

mod bench;
mod daemon;
mod describe;
mod forward;
mod lora;
mod save;
mod text;
mod vision;

pub use bench::{Bench, BenchModel, DenoiserBench, DenoiserModel, TextBench, TextBenchModel, VaeBench};
pub use daemon::{DaemonAddress, DaemonSettings, ModelSource};
pub use describe::{Describe, Subject};
pub use forward::Forward;
pub use lora::{LoraInspect, Loras};
pub use save::{MetadataSource, Save};
pub use text::{Encoders, PromptSource, Reading, Text, TextInput, Tokenize};
pub use vision::{Vision, parse_region};

use crate::{
    args::{ComputeArgs, DecodeArgs, DemoArgs, EncodeArgs, LatentFormatArg, ModelArgs, TileArgs},
    vaes::VaeChoice,
};
use luna_core::{
    Device, Error, ErrorKind, Precision, Result,
    files::IfExists,
    vae::{Posterior, SizeRule},
};
use std::{fmt::Display, num::NonZeroUsize, path::PathBuf, str::FromStr};

/// Where values come from that nobody typed.
pub struct Environment<'a>(&'a dyn Fn(&str) -> Option<String>);

impl<'a> Environment<'a> {
    /// The environment of this process.
    pub fn of_process() -> Environment<'static> {
        Environment(&|name| std::env::var(name).ok())
    }

    /// What was typed, else the variable `name`, else nothing. An empty variable counts as none.
    fn or<T: FromStr<Err: Display>>(&self, typed: Option<T>, name: &str) -> Result<Option<T>> {
        self.or_parsed(typed, name, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    fn or_parsed<T>(
        &self,
        typed: Option<T>,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>> {
        if typed.is_some() {
            return Ok(typed);
        }
        let Some(text) = (self.0)(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        parse(&text).map(Some).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, format!("the environment variable {name} is wrong: {error}"))
                .found(format!("`{text}`"))
                .remedy(format!("correct or unset {name}"))
        })
    }
}

/// How and where to compute.
#[derive(Debug, Clone, PartialEq)]
pub struct Compute {
    pub precision: Precision,
    pub threads: Option<NonZeroUsize>,
    pub device: Device,
}

/// One piece or tiles, in picture pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tiles {
    Auto,
    Never,
    Pixels { tile: usize, overlap: Option<usize> },
}

/// What a call may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub tiles: Tiles,
    /// Bytes for the whole process.
    pub most: Option<u64>,
}

/// Which VAE, and whose factors where no file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub vae: VaeChoice,
    pub latent_format: Option<LatentFormatArg>,
}

/// Settings of `encode`.
#[derive(Debug)]
pub struct Encode {
    pub inputs: Vec<PathBuf>,
    pub output: PathBuf,
    pub model: Model,
    pub scaled: bool,
    pub posterior: Posterior,
    pub sizes: SizeRule,
    pub memory: Memory,
    pub compute: Compute,
    /// The daemon that does the work.
    pub daemon: Option<DaemonAddress>,
    pub if_exists: IfExists,
}

/// Settings of `decode`.
#[derive(Debug)]
pub struct Decode {
    pub input: PathBuf,
    pub output: PathBuf,
    pub model: Model,
    pub memory: Memory,
    pub compute: Compute,
    /// The daemon that does the work.
    pub daemon: Option<DaemonAddress>,
    pub if_exists: IfExists,
}

/// Settings of `demo`.
#[derive(Debug)]
pub struct Demo {
    pub folder: PathBuf,
    pub picture: Option<PathBuf>,
    pub compute: Compute,
}

impl Encode {
    pub fn new(args: EncodeArgs, environment: &Environment) -> Result<Self> {
        let daemon = DaemonAddress::of_command(args.connect, environment)?;
        refuse_local(daemon.as_ref(), &args.compute)?;
        Ok(Self {
            inputs: args.inputs,
            output: args.output,
            model: model(args.model, environment, daemon.is_some())?,
            scaled: args.scaled,
            posterior: if args.sample { Posterior::Sample { seed: args.seed } } else { Posterior::Mean },
            sizes: args.size_rule.into(),
            memory: memory(&args.tiles, environment)?,
            compute: compute(args.compute, environment)?,
            if_exists: if_exists(args.write.no_clobber),
            daemon,
        })
    }
}

impl Decode {
    pub fn new(args: DecodeArgs, environment: &Environment) -> Result<Self> {
        let daemon = DaemonAddress::of_command(args.connect, environment)?;
        refuse_local(daemon.as_ref(), &args.compute)?;
        Ok(Self {
            input: args.input,
            output: args.output,
            model: model(args.model, environment, daemon.is_some())?,
            memory: memory(&args.tiles, environment)?,
            compute: compute(args.compute, environment)?,
            if_exists: if_exists(args.write.no_clobber),
            daemon,
        })
    }
}

impl Demo {
    pub fn new(args: DemoArgs, environment: &Environment) -> Result<Self> {
        Ok(Self { folder: args.folder, picture: args.picture, compute: compute(args.compute, environment)? })
    }
}

/// What only this process could heed must not be lost on a daemon.
fn refuse_local(daemon: Option<&DaemonAddress>, args: &ComputeArgs) -> Result<()> {
    let named = [("--threads", args.threads.is_some()), ("--device", args.device.is_some())];
    match named.into_iter().find(|(_, typed)| *typed) {
        Some((option, _)) if daemon.is_some() => {
            Err(Error::new(ErrorKind::InvalidInput, format!("{option} has no effect on a daemon"))
                .remedy(format!("give {option} to `luna-cli serve`")))
        }
        _ => Ok(()),
    }
}

fn model(args: ModelArgs, environment: &Environment, remote: bool) -> Result<Model> {
    let vae = match environment.or(args.vae, "LUNA_VAE")? {
        Some(text) if remote => VaeChoice::from_text(&text).unwrap_or(VaeChoice::OfDaemon(text)),
        Some(text) => VaeChoice::from_text(&text)?,
        None => VaeChoice::default(),
    };
    Ok(Model { vae, latent_format: args.latent_format })
}

fn compute(args: ComputeArgs, environment: &Environment) -> Result<Compute> {
    Ok(Compute {
        precision: environment.or(args.precision, "LUNA_PRECISION")?.unwrap_or_default(),
        threads: environment.or(args.threads, "LUNA_THREADS")?,
        device: environment.or(args.device, "LUNA_DEVICE")?.unwrap_or_default(),
    })
}

fn memory(args: &TileArgs, environment: &Environment) -> Result<Memory> {
    let tiles = match (args.no_tiles, args.tile) {
        (true, _) => Tiles::Never,
        (false, Some(tile)) => Tiles::Pixels { tile: tile.get(), overlap: args.overlap },
        (false, None) => Tiles::Auto,
    };
    Ok(Memory { tiles, most: environment.or_parsed(args.max_memory, "LUNA_MAX_MEMORY", parse_bytes)? })
}

fn if_exists(no_clobber: bool) -> IfExists {
    if no_clobber { IfExists::Refuse } else { IfExists::Replace }
}

/// Reads `2GiB`, `700M`, `1.5 GB`, `1048576`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;

    fn encode(line: &str, environment: &[(&str, &str)]) -> Result<Encode> {
        let args = Args::try_parse_from(line.split(' ')).unwrap();
        let Command::Encode(args) = args.command else { panic!("not encode") };
        let find = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Encode::new(args, &Environment(&find))
    }

    const LINE: &str = "luna-cli encode a.png -o b.safetensors";

    #[test]
    fn sizes_in_bytes_are_read() {
        for (text, bytes) in [
            ("1", 1),
            ("2GiB", 2 << 30),
            ("700m", 700 << 20),
            ("1.5 GB", 1_500_000_000),
            ("64KiB", 64 << 10),
            ("12b", 12),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "0", "-1", "GiB", "2 parsecs", "1e300", "nan", "inf"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_typed_wins_over_the_environment() {
        let environment = [("LUNA_THREADS", "3"), ("LUNA_PRECISION", "bf16"), ("LUNA_MAX_MEMORY", "1G")];
        let settings = encode(LINE, &environment).unwrap();
        assert_eq!(settings.compute.threads, NonZeroUsize::new(3));
        assert_eq!(settings.compute.precision, Precision::Bf16);
        assert_eq!(settings.memory.most, Some(1 << 30));
        let settings = encode(&format!("{LINE} --threads 5 --precision f16 --max-memory 2G"), &environment).unwrap();
        assert_eq!(settings.compute.threads, NonZeroUsize::new(5));
        assert_eq!(settings.compute.precision, Precision::F16);
        assert_eq!(settings.memory.most, Some(2 << 30));
    }

    #[test]
    fn a_wrong_variable_is_named() {
        for (name, value) in [
            ("LUNA_THREADS", "0"),
            ("LUNA_PRECISION", "f64"),
            ("LUNA_DEVICE", "gpu"),
            ("LUNA_MAX_MEMORY", "much"),
            ("LUNA_VAE", "no-such-vae"),
        ] {
            let error = encode(LINE, &[(name, value)]).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(value) || text.contains(name), "{text}");
        }
        assert!(encode(LINE, &[("LUNA_THREADS", "")]).is_ok(), "an empty variable counts as none");
    }

    #[test]
    fn contradictions_are_refused_by_the_parser() {
        for options in ["--tile 512 --no-tiles", "--overlap 64", "--seed 3", "--json --quiet", "--threads 0"] {
            assert!(Args::try_parse_from(format!("{LINE} {options}").split(' ')).is_err(), "{options}");
        }
    }
}
