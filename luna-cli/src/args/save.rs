//! What was typed after `save`.

use super::{ConnectArgs, ReportArgs};
use clap::{Args, ValueEnum};
use std::{num::NonZeroUsize, path::PathBuf};

/// Save pictures: convert, name, check and describe them, in the background and each with a known fate
///
/// Reads pictures and writes them below the output folder under names from a template. A name that exists is never
/// overwritten unless asked; each file appears whole or not at all.
#[derive(Debug, Args)]
pub struct SaveArgs {
    /// PNG, JPEG or WebP files, or .safetensors files with `image`, f32 [batch, height, width, 3] in 0..1
    #[arg(required = true, value_name = "IMAGE")]
    pub inputs: Vec<PathBuf>,
    /// The output folder, or s3://BUCKET/PREFIX, gs://… or az://…; nothing is written elsewhere
    ///
    /// Stores need a build with the feature object-store, and the environment variables of their providers.
    #[arg(short, long, value_name = "FOLDER", default_value = ".")]
    pub output: PathBuf,
    #[command(flatten)]
    pub naming: NamingArgs,
    #[command(flatten)]
    pub encoding: EncodingArgs,
    #[command(flatten)]
    pub metadata: MetadataArgs,
    #[command(flatten)]
    pub gate: GateArgs,
    /// Keep each job in this folder until it is done, so that the next run finishes what a crash cut short
    #[arg(long, value_name = "FOLDER")]
    pub spool: Option<PathBuf>,
    /// Threads that write [default: 2, up to 4 under load]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Names and what stands in them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Names")]
pub struct NamingArgs {
    /// The file's name without extension; / makes folders [default: %time:YYYY-mm-dd.HH.MM.SS%]
    ///
    /// %model_path%, %model_name%, %model_dir%, %index%, %seed%, %width%, %height%, %time:YYYY-mm-dd.HH.MM.SS% (mm is the
    /// month, MM the minute), %prompt:40% (its first 40 characters), %counter:5% (the first free number, 5 digits wide),
    /// %affix%, %job%, and %% for a percent sign.
    #[arg(long, value_name = "TEMPLATE")]
    pub template: Option<String>,
    /// A word behind the name, such as UPSCALED
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub affix: String,
    /// Put pictures into a folder named like the affix
    #[arg(long, requires = "affix")]
    pub subfolder: bool,
    /// The model's path, for %model_name% and its kin
    #[arg(long, value_name = "PATH")]
    pub model: Option<String>,
    /// The seed, for %seed%
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// A number of your own, for %index%
    #[arg(long, value_name = "N")]
    pub index: Option<u64>,
    /// The prompt's text, for %prompt%
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// What happens where a file of the name exists
    #[arg(long, value_enum, value_name = "HOW", default_value_t = ExistsArg::Number)]
    pub exists: ExistsArg,
}

/// What happens where a file of the name exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExistsArg {
    /// Keep it and add a number to the new name
    Number,
    /// Put the new file in its place
    Replace,
    /// Refuse
    Refuse,
}

/// Format and its options.
#[derive(Debug, Args)]
#[command(next_help_heading = "Format")]
pub struct EncodingArgs {
    /// The file format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = FormatArg::Png)]
    pub format: FormatArg,
    /// Effort for small PNG files: 0 (stored) to 9, or fast [default: 4]
    #[arg(long, value_name = "LEVEL")]
    pub level: Option<String>,
    /// Quality of JPEG, lossy WebP and AVIF, up to 100 [default: 90, for AVIF 80]
    #[arg(long, value_name = "N")]
    pub quality: Option<u8>,
}

/// File formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// PNG, 8 bits
    Png,
    /// PNG, 16 bits
    Png16,
    /// WebP with loss
    Webp,
    /// WebP without loss
    WebpLossless,
    /// JPEG
    Jpeg,
    /// AVIF, 10 bits; needs a build with the feature avif
    Avif,
}

/// What the files say about their making.
#[derive(Debug, Args)]
#[command(next_help_heading = "Metadata")]
pub struct MetadataArgs {
    /// ComfyUI's prompt, a JSON file
    #[arg(long, value_name = "FILE")]
    pub comfy_prompt: Option<PathBuf>,
    /// ComfyUI's workflow, a JSON file
    #[arg(long, value_name = "FILE")]
    pub comfy_workflow: Option<PathBuf>,
    /// Generation parameters as A1111 writes them
    #[arg(long, value_name = "TEXT")]
    pub parameters: Option<String>,
    /// A field of your own; may be given several times
    #[arg(long, value_name = "KEY=TEXT")]
    pub meta: Vec<String>,
    /// An XMP packet, an XML file
    #[arg(long, value_name = "FILE")]
    pub xmp: Option<PathBuf>,
}

/// The quality gate.
#[derive(Debug, Args)]
#[command(next_help_heading = "Quality gate")]
pub struct GateArgs {
    /// Which scores a picture must reach; rejects go into the folder _discarded
    #[arg(long, value_enum, value_name = "MODE", default_value_t = GateArg::Disabled)]
    pub gate: GateArg,
    /// The least score that passes, 0 to 1
    #[arg(long, value_name = "SCORE", default_value_t = 0.3)]
    pub threshold: f64,
    /// Do not write rejects at all
    #[arg(long)]
    pub drop_rejects: bool,
}

/// Quality gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GateArg {
    /// Everything passes
    Disabled,
    /// The variance of brightness
    Variance,
    /// The difference between neighbouring pixels
    EdgeDensity,
    /// Both
    Both,
}
