//! What was typed after `config`.

use super::ReportArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Tell or check the settings: those of the configuration file and of the environment
///
/// An option is stronger than a variable, a variable than the file, the file than the default.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What is done with the settings.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    Show(ConfigShowArgs),
    Check(ConfigCheckArgs),
}

/// Print every setting with its value, where that comes from, and what it is for
///
/// What is printed is a configuration file itself.
#[derive(Debug, Args)]
pub struct ConfigShowArgs {
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Say whether a configuration file is right, and what it names is there
///
/// Unknown keys are refused, with the nearest that there is.
#[derive(Debug, Args)]
pub struct ConfigCheckArgs {
    /// The file [default: the one that every command would read]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub report: ReportArgs,
}
