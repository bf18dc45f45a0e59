//! LoRAs as they are typed, the same for every command that takes them.

use super::{ComputeArgs, ReportArgs};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Which LoRAs change what the model computes for this call.
#[derive(Debug, Args)]
#[command(next_help_heading = "LoRA")]
pub struct LoraArgs {
    /// Apply this LoRA: a file, a PEFT folder, or a name in the LoRA folders, the exact one or the only one that starts
    /// so. May be given several times, and the differences add. One strength is for denoiser and text encoders, two are
    /// for each [default strength: 1]
    #[arg(long = "lora", value_name = "FILE[:STRENGTH | :MODEL:CLIP]")]
    pub loras: Vec<String>,
    /// A folder that LoRAs are looked up in by name, with all below it; may be given several times
    #[arg(long, value_name = "FOLDER")]
    pub lora_folder: Vec<PathBuf>,
    /// Fail if anything of a LoRA that is for this model cannot be applied
    #[arg(long)]
    pub strict: bool,
}

/// How LoRAs are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// With each call, layer by layer
    Functional,
    /// Merged into a copy of the layers before the first call
    Merged,
    /// Merged if the calls that follow are many enough
    Auto,
}

/// Look into LoRA files
#[derive(Debug, Args)]
pub struct LoraCommandArgs {
    #[command(subcommand)]
    pub command: LoraCommand,
}

/// What is done with a LoRA.
#[derive(Debug, Subcommand)]
pub enum LoraCommand {
    Inspect(LoraInspectArgs),
}

/// Say what a LoRA file holds and, for a model, what of it applies
///
/// With a model, every adapter is accounted for: applied, without a layer (with the nearest layer's name), of a shape
/// that does not fit, or of a kind that Luna refuses.
#[derive(Debug, Args)]
pub struct LoraInspectArgs {
    /// A .safetensors file, a PEFT folder, or a name in the LoRA folders
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// A folder that LoRAs are looked up in by name, with all below it; may be given several times
    #[arg(long, value_name = "FOLDER")]
    pub lora_folder: Vec<PathBuf>,
    /// The checkpoint that it is held against: a denoiser, text encoders, or both
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Fail if anything that is for this model cannot be applied
    #[arg(long, requires = "model")]
    pub strict: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub report: ReportArgs,
}
