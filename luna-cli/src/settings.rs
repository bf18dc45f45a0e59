//! What was meant. Enters: what was typed, the environment, of which this is the only reader, and the configuration file.
//! Leaves: settings with every default decided, contradictions refused. It opens no other file and builds no model.

mod bench;
mod config;
mod daemon;
mod describe;
mod forward;
mod lora;
mod save;
mod text;
mod vision;

pub use bench::{
    Bench, BenchModel, DenoiserBench, DenoiserModel, LoraBench, LoraSubject, TextBench, TextBenchModel, VaeBench,
};
pub use config::{ConfigCheck, ConfigShow, default_file};
pub use daemon::{DaemonAddress, DaemonSettings, LogSettings, WatchSettings, parse_pool};
pub use describe::{Describe, Subject};
pub use forward::Forward;
pub use lora::{LoraEntry, LoraInspect, Loras};
pub use save::{MetadataSource, Save};
pub use text::{Encoders, PromptSource, Reading, Text, TextInput, Tokenize};
pub use vision::{Vision, parse_region};

use crate::{
    args::{ComputeArgs, DecodeArgs, DemoArgs, EncodeArgs, LatentFormatArg, ModelArgs, TileArgs},
    vaes::VaeChoice,
};
pub use luna_core::config::parse_bytes;
use luna_core::{
    Device, Error, ErrorKind, Precision, Result,
    config::{Bytes, Config, Key, Layer, Setting, Source, keys},
    files::IfExists,
    vae::{Posterior, SizeRule},
};
use std::{num::NonZeroUsize, path::PathBuf};

/// Where values come from that nobody typed: variables, and under them a file.
pub struct Environment<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    config: Config,
    file: Option<PathBuf>,
}

impl<'a> Environment<'a> {
    /// The environment of this process, with the file that was typed, that LUNA_CONFIG names, or that lies in the usual
    /// place, if one does.
    ///
    /// # Errors
    /// `NotFound` for a file that was named and is missing; as `Layer::parse`.
    pub fn of_process(typed: Option<PathBuf>) -> Result<Environment<'static>> {
        Environment::new(typed, &|name| std::env::var(name).ok())
    }

    /// The same with other variables.
    ///
    /// # Errors
    /// As [`Environment::of_process`].
    pub fn new(typed: Option<PathBuf>, variable: &'a dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let named = typed.or_else(|| variable("LUNA_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
        let (file, needed) = match named {
            Some(path) => (Some(path), true),
            None => (default_file(variable), false),
        };
        let mut environment = Self { variable, config: Config::default(), file: None };
        if let Some(path) = file
            && let Some(layer) = config::read(&path, needed)?
        {
            environment.config = environment.config.over(Source::File(path.clone()), layer);
            environment.file = Some(path);
        }
        let split = |text: &str| {
            let paths = std::env::split_paths(text).map(|path| path.to_string_lossy().into_owned());
            paths.filter(|path| !path.is_empty()).collect()
        };
        environment.config = environment.config.over(Source::Environment, Layer::of_variables(variable, split));
        Ok(environment)
    }

    /// What was typed, else what is set, else nothing.
    fn or<T: Setting>(&self, typed: Option<T>, key: &Key<T>) -> Result<Option<T>> {
        if typed.is_some() { Ok(typed) } else { self.config.find(key) }
    }

    /// What was typed, else what is set, else the default.
    fn get<T: Setting>(&self, typed: Option<T>, key: &Key<T>) -> Result<T> {
        typed.map_or_else(|| self.config.get(key), Ok)
    }

    /// What was typed, if anything was, else what is set.
    fn list<T: Setting>(&self, typed: Vec<T>, key: &Key<T>) -> Result<Vec<T>> {
        if typed.is_empty() { self.config.list(key) } else { Ok(typed) }
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
    let vae = match environment.or(args.vae, &keys::VAE)? {
        Some(text) if remote => VaeChoice::from_text(&text).unwrap_or(VaeChoice::OfDaemon(text)),
        Some(text) => VaeChoice::from_text(&text)?,
        None => VaeChoice::default(),
    };
    Ok(Model { vae, latent_format: args.latent_format })
}

fn compute(args: ComputeArgs, environment: &Environment) -> Result<Compute> {
    Ok(Compute {
        precision: environment.get(args.precision, &keys::PRECISION)?,
        threads: environment.or(args.threads, &keys::THREADS)?,
        device: environment.get(args.device, &keys::DEVICE)?,
    })
}

fn memory(args: &TileArgs, environment: &Environment) -> Result<Memory> {
    let tiles = match (args.no_tiles, args.tile) {
        (true, _) => Tiles::Never,
        (false, Some(tile)) => Tiles::Pixels { tile: tile.get(), overlap: args.overlap },
        (false, None) => Tiles::Auto,
    };
    Ok(Memory { tiles, most: environment.or(args.max_memory.map(Bytes), &keys::MAX_MEMORY)?.map(|bytes| bytes.0) })
}

fn if_exists(no_clobber: bool) -> IfExists {
    if no_clobber { IfExists::Refuse } else { IfExists::Replace }
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
        Encode::new(args, &Environment::new(None, &find)?)
    }

    const LINE: &str = "luna-cli encode a.png -o b.safetensors";

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
    fn what_was_set_in_a_file_is_weakest_and_counts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("luna.toml");
        std::fs::write(&file, "[compute]\nthreads = 7\nprecision = \"f16\"\n[models]\nloras = [\"loras\"]").unwrap();
        let named = file.to_str().unwrap();
        let settings = encode(LINE, &[("LUNA_CONFIG", named), ("LUNA_PRECISION", "bf16")]).unwrap();
        assert_eq!(settings.compute.threads, NonZeroUsize::new(7));
        assert_eq!(settings.compute.precision, Precision::Bf16);
        let settings = encode(&format!("{LINE} --threads 2"), &[("LUNA_CONFIG", named)]).unwrap();
        assert_eq!(settings.compute.threads, NonZeroUsize::new(2));
        assert_eq!(settings.compute.precision, Precision::F16);
        let error = encode(LINE, &[("LUNA_CONFIG", "no-such-file.toml")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }

    #[test]
    fn contradictions_are_refused_by_the_parser() {
        for options in ["--tile 512 --no-tiles", "--overlap 64", "--seed 3", "--json --quiet", "--threads 0"] {
            assert!(Args::try_parse_from(format!("{LINE} {options}").split(' ')).is_err(), "{options}");
        }
    }
}
