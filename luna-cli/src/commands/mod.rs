//! What Luna does, one file for each command. Enters: settings. Leaves: an outcome for `output` to tell. A command
//! prints nothing; progress goes through the `Output` it is handed.

mod bench;
mod config;
mod decode;
mod demo;
mod describe;
mod encode;
mod forward;
mod inspect;
mod lora_inspect;
mod loras;
mod manual;
mod outcome;
mod remote;
mod save;
mod serve;
mod status;
mod text;
mod text_file;
mod tokenize;
mod vision;

pub use bench::{BenchOutcome, DenoiserBenchOutcome, LayersOutcome, LoraBenchOutcome, TextBenchOutcome, Timing};
pub use config::{ConfigCheckOutcome, ConfigOutcome, SettingOutcome};
pub use decode::DecodeOutcome;
pub use demo::DemoOutcome;
pub use describe::DescribeOutcome;
pub use encode::EncodeOutcome;
pub use forward::{DenoiserOutcome, ForwardOutcome};
pub use inspect::{ComponentOutcome, InspectOutcome};
pub use lora_inspect::LoraInspectOutcome;
pub use loras::notes as lora_notes;
pub use outcome::{CallOutcome, VaeOutcome};
pub use save::SaveOutcome;
pub use serve::{ServeOutcome, StartOutcome, StopOutcome};
pub use status::{StatusOutcome, UnloadOutcome};
pub use text::TextOutcome;
pub use tokenize::TokenizeOutcome;
pub use vision::VisionOutcome;

use crate::{
    args::{Command, ConfigCommand, LoraCommand, LoraCommandArgs, ReportArgs},
    interrupt,
    output::Output,
    settings::{self, DaemonAddress, DaemonSettings, Environment},
};
use luna_core::{ErrorKind, Result};
use serde::Serialize;

/// What a command did.
#[derive(Serialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Outcome {
    Demo(DemoOutcome),
    Encode(EncodeOutcome),
    Decode(DecodeOutcome),
    Forward(ForwardOutcome),
    Inspect(InspectOutcome),
    LoraInspect(LoraInspectOutcome),
    Save(SaveOutcome),
    Vision(VisionOutcome),
    Describe(DescribeOutcome),
    Bench(BenchOutcome),
    BenchUnet(DenoiserBenchOutcome),
    BenchText(TextBenchOutcome),
    BenchLora(LoraBenchOutcome),
    Serve(ServeOutcome),
    Start(StartOutcome),
    Stop(StopOutcome),
    Status(StatusOutcome),
    Unload(UnloadOutcome),
    ConfigShow(ConfigOutcome),
    ConfigCheck(ConfigCheckOutcome),
    Text(TextOutcome),
    Tokenize(TokenizeOutcome),
    /// Text that is the result itself, such as a completion script.
    Script {
        text: String,
    },
}

impl Outcome {
    /// The kind of a failure that stopped only a part of the work, all of which is told in the outcome.
    pub fn failure(&self) -> Option<ErrorKind> {
        match self {
            Self::Save(save) => save.failure,
            _ => None,
        }
    }
}

impl Command {
    /// How the outcome is to be told.
    pub fn report(&self) -> ReportArgs {
        match self {
            Self::Demo(args) => args.report,
            Self::Encode(args) => args.report,
            Self::Decode(args) => args.report,
            Self::Forward(args) => args.report,
            Self::Inspect(args) => args.report,
            Self::Lora(LoraCommandArgs { command: LoraCommand::Inspect(args) }) => args.report,
            Self::Save(args) => args.report,
            Self::Text(args) => args.report,
            Self::Tokenize(args) => args.report,
            Self::Vision(args) => args.report,
            Self::Describe(args) => args.report,
            Self::Bench(args) => args.report,
            Self::Serve(args) => args.report,
            Self::Start(args) => args.serve.report,
            Self::Stop(args) => args.report,
            Self::Status(args) => args.report,
            Self::Unload(args) => args.report,
            Self::Config(args) => match &args.command {
                ConfigCommand::Show(args) => args.report,
                ConfigCommand::Check(args) => args.report,
            },
            Self::Completions(_) | Self::Man(_) => ReportArgs { json: false, quiet: false },
        }
    }
}

/// Decides settings and carries the command out.
pub fn run(command: Command, environment: &Environment, output: &Output) -> Result<Outcome> {
    Ok(match command {
        Command::Demo(args) => {
            Outcome::Demo(demo::run(&settings::Demo::new(args, environment)?, &interrupt::token()?, output)?)
        }
        Command::Encode(args) => {
            Outcome::Encode(encode::run(&settings::Encode::new(args, environment)?, &interrupt::token()?, output)?)
        }
        Command::Decode(args) => {
            Outcome::Decode(decode::run(&settings::Decode::new(args, environment)?, &interrupt::token()?, output)?)
        }
        Command::Forward(args) => {
            Outcome::Forward(forward::run(&settings::Forward::new(args, environment)?, &interrupt::token()?, output)?)
        }
        Command::Inspect(args) => Outcome::Inspect(inspect::run(&args.file)?),
        Command::Lora(LoraCommandArgs { command: LoraCommand::Inspect(args) }) => {
            Outcome::LoraInspect(lora_inspect::run(&settings::LoraInspect::new(args, environment)?)?)
        }
        Command::Text(args) => {
            Outcome::Text(text::run(&settings::Text::new(*args, environment)?, &interrupt::token()?, output)?)
        }
        Command::Tokenize(args) => Outcome::Tokenize(tokenize::run(&settings::Tokenize::new(*args, environment)?)?),
        Command::Save(args) => {
            Outcome::Save(save::run(&settings::Save::new(*args, environment)?, &interrupt::token()?, output)?)
        }
        Command::Vision(args) => {
            Outcome::Vision(vision::run(&settings::Vision::new(args, environment)?, &interrupt::token()?, output)?)
        }
        Command::Describe(args) => {
            let settings = settings::Describe::new(*args, environment)?;
            Outcome::Describe(describe::run(&settings, &interrupt::token()?, output)?)
        }
        Command::Bench(args) => match settings::Bench::new(args, environment)? {
            settings::Bench::Vae(settings) => Outcome::Bench(bench::run(&settings, &interrupt::token()?, output)?),
            settings::Bench::Denoiser(settings) => {
                Outcome::BenchUnet(bench::run_denoiser(&settings, &interrupt::token()?, output)?)
            }
            settings::Bench::Text(settings) => {
                Outcome::BenchText(bench::run_text(&settings, &interrupt::token()?, output)?)
            }
            settings::Bench::Lora(settings) => {
                Outcome::BenchLora(bench::run_lora(&settings, &interrupt::token()?, output)?)
            }
        },
        Command::Serve(args) => {
            let settings = DaemonSettings::new(&args, environment)?;
            Outcome::Serve(serve::serve(settings, &interrupt::token()?, output)?)
        }
        Command::Start(args) => {
            // What is wrong with the settings is told at once.
            let settings = DaemonSettings::new(&args.serve, environment)?;
            Outcome::Start(serve::start(settings.watch.is_some())?)
        }
        Command::Stop(args) => {
            Outcome::Stop(serve::stop(&DaemonAddress::new(args.address, environment)?, &interrupt::token()?)?)
        }
        Command::Status(args) => {
            let address = DaemonAddress::new(args.address, environment)?;
            Outcome::Status(status::status(&address, args.watch, &interrupt::token()?, output)?)
        }
        Command::Unload(args) => {
            Outcome::Unload(status::unload(&DaemonAddress::new(args.address, environment)?, args.models)?)
        }
        Command::Config(args) => match args.command {
            ConfigCommand::Show(_) => Outcome::ConfigShow(config::show(settings::ConfigShow::new(environment))),
            ConfigCommand::Check(args) => {
                Outcome::ConfigCheck(config::check(settings::ConfigCheck::new(args, environment)?))
            }
        },
        Command::Completions(args) => Outcome::Script { text: manual::completions(args.shell)? },
        Command::Man(args) => Outcome::Script { text: manual::pages(args.folder.as_deref())? },
    })
}
