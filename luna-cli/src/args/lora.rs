//! LoRAs as they are typed, the same for every command that takes them.

use clap::{Args, ValueEnum};

/// Which LoRAs, and how they are applied.
#[derive(Debug, Args)]
#[command(next_help_heading = "LoRA")]
pub struct LoraArgs {
    /// A LoRA file and its strength, which is 1 if not given; may be given several times, and the differences add
    #[arg(long = "lora", value_name = "FILE[:STRENGTH]")]
    pub loras: Vec<String>,
    /// How they are applied; the results are the same but for rounding [default: functional]
    #[arg(long, value_enum, value_name = "MODE", requires = "loras")]
    pub mode: Option<ModeArg>,
    /// Fail if anything of a LoRA that is for this model cannot be applied
    #[arg(long, requires = "loras")]
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
