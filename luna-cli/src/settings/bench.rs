//! What `bench` is to measure.

use super::{Compute, Environment, Memory, compute, memory};
use crate::{
    args::{BenchArgs, BenchSubject, Direction, ShapeArg},
    vaes::VaeChoice,
};
use luna_core::{AttentionMode, Error, ErrorKind, Result};
use std::{num::NonZeroUsize, path::PathBuf};

/// Settings of `bench`.
#[derive(Debug)]
pub enum Bench {
    Vae(VaeBench),
    Denoiser(DenoiserBench),
    Text(TextBench),
    Lora(LoraBench),
}

/// Settings of `bench vae`.
#[derive(Debug)]
pub struct VaeBench {
    pub model: BenchModel,
    /// Where a random model is kept.
    pub keep: Option<PathBuf>,
    pub size: usize,
    pub directions: Vec<Direction>,
    pub runs: usize,
    /// Whether to tell what each layer takes.
    pub layers: bool,
    pub memory: Memory,
    pub compute: Compute,
}

/// What `bench vae` runs.
#[derive(Debug)]
pub enum BenchModel {
    Random(ShapeArg),
    Existing(VaeChoice),
}

/// Settings of `bench unet`.
#[derive(Debug)]
pub struct DenoiserBench {
    pub model: DenoiserModel,
    /// Side of the square picture, in pixels.
    pub size: usize,
    pub batch: NonZeroUsize,
    pub callers: NonZeroUsize,
    pub runs: usize,
    /// Whether to tell what each layer takes.
    pub layers: bool,
    pub attention: AttentionMode,
    pub compute: Compute,
}

/// Settings of `bench lora`.
#[derive(Debug)]
pub struct LoraBench {
    pub subject: LoraSubject,
    /// Side of the square picture, in pixels.
    pub size: usize,
    /// Latents, or sequences, in each call.
    pub batch: Option<NonZeroUsize>,
    pub runs: usize,
    pub attention: AttentionMode,
    pub compute: Compute,
}

/// What `bench lora` runs.
#[derive(Debug)]
pub enum LoraSubject {
    /// A random model, and random LoRAs of this rank.
    Random(ShapeArg, usize),
    /// A model's file and a LoRA's.
    Existing { model: PathBuf, lora: PathBuf },
}

/// What `bench unet` runs.
#[derive(Debug)]
pub enum DenoiserModel {
    Random(ShapeArg),
    Existing(PathBuf),
}

/// Settings of `bench text`.
#[derive(Debug)]
pub struct TextBench {
    pub model: TextBenchModel,
    pub runs: usize,
    /// Whether to tell what each layer takes.
    pub layers: bool,
    pub compute: Compute,
}

/// What `bench text` runs.
pub type TextBenchModel = DenoiserModel;

impl DenoiserModel {
    /// What to call it.
    pub fn name(&self) -> String {
        match self {
            Self::Random(shape) => format!("random weights, shape of {shape:?}").to_ascii_lowercase(),
            Self::Existing(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        }
    }
}

impl Bench {
    pub fn new(args: BenchArgs, environment: &Environment) -> Result<Self> {
        match args.subject {
            BenchSubject::Vae => VaeBench::new(args, environment).map(Self::Vae),
            BenchSubject::Unet => DenoiserBench::new(args, environment).map(Self::Denoiser),
            BenchSubject::Text => TextBench::new(args, environment).map(Self::Text),
            BenchSubject::Lora => LoraBench::new(args, environment).map(Self::Lora),
        }
    }
}

impl VaeBench {
    fn new(args: BenchArgs, environment: &Environment) -> Result<Self> {
        refuse_others(&args, "vae", &["--only", TILES, "--keep-model", "--layers"])?;
        Ok(Self {
            model: match args.model {
                Some(text) => BenchModel::Existing(VaeChoice::from_text(&text)?),
                None => BenchModel::Random(args.shape.unwrap_or(ShapeArg::Sdxl)),
            },
            keep: args.keep_model,
            size: args.size,
            directions: args.only.map_or_else(|| vec![Direction::Decode, Direction::Encode], |only| vec![only]),
            runs: args.runs as usize,
            layers: args.layers,
            memory: memory(&args.tiles, environment)?,
            compute: compute(args.compute, environment)?,
        })
    }
}

impl DenoiserBench {
    fn new(args: BenchArgs, environment: &Environment) -> Result<Self> {
        refuse_others(&args, "unet", &["--batch", "--callers", "--attention", "--layers"])?;
        Ok(Self {
            model: match args.model {
                Some(text) => DenoiserModel::Existing(text.into()),
                None => DenoiserModel::Random(args.shape.unwrap_or(ShapeArg::Sd15)),
            },
            size: args.size,
            batch: args.batch.unwrap_or(NonZeroUsize::MIN.saturating_add(1)),
            callers: args.callers.unwrap_or(NonZeroUsize::MIN),
            runs: args.runs as usize,
            layers: args.layers,
            attention: args.attention.attention.unwrap_or_default(),
            compute: compute(args.compute, environment)?,
        })
    }
}

impl TextBench {
    fn new(args: BenchArgs, environment: &Environment) -> Result<Self> {
        refuse_others(&args, "text", &["--layers"])?;
        Ok(Self {
            model: match args.model {
                Some(text) => TextBenchModel::Existing(text.into()),
                None => TextBenchModel::Random(args.shape.unwrap_or(ShapeArg::ClipL)),
            },
            runs: args.runs as usize,
            layers: args.layers,
            compute: compute(args.compute, environment)?,
        })
    }
}

impl LoraBench {
    fn new(args: BenchArgs, environment: &Environment) -> Result<Self> {
        refuse_others(&args, "lora", &["--batch", "--attention", "--rank", "--lora"])?;
        let subject = match (args.model, args.lora) {
            (Some(model), Some(lora)) => LoraSubject::Existing { model: model.into(), lora },
            (Some(_), None) => {
                return Err(Error::new(ErrorKind::InvalidInput, "no LoRA for this model was given")
                    .expected("--lora FILE beside --model")
                    .remedy("name a LoRA made for the model, or measure a random model with --shape"));
            }
            _ => {
                let rank = args.rank.map_or(32, NonZeroUsize::get);
                LoraSubject::Random(args.shape.unwrap_or(ShapeArg::Sd15), rank)
            }
        };
        Ok(Self {
            subject,
            size: args.size,
            batch: args.batch,
            runs: args.runs as usize,
            attention: args.attention.attention.unwrap_or_default(),
            compute: compute(args.compute, environment)?,
        })
    }
}

const TILES: &str = "tiles and --max-memory";

/// Refuses an option that means nothing for this subject, which takes only some.
fn refuse_others(args: &BenchArgs, subject: &str, takes: &[&str]) -> Result<()> {
    let given = [
        ("--only", args.only.is_some()),
        (TILES, args.tiles.tile.is_some() || args.tiles.no_tiles || args.tiles.max_memory.is_some()),
        ("--keep-model", args.keep_model.is_some()),
        ("--batch", args.batch.is_some()),
        ("--callers", args.callers.is_some()),
        ("--attention", args.attention.attention.is_some()),
        ("--rank", args.rank.is_some()),
        ("--lora", args.lora.is_some()),
        ("--layers", args.layers),
    ];
    match given.into_iter().find(|(option, given)| *given && !takes.contains(option)) {
        None => Ok(()),
        Some((option, _)) => Err(Error::new(ErrorKind::InvalidInput, format!("{option} has no meaning for {subject}"))
            .remedy("leave it out, or measure something else")),
    }
}
