//! Luna's command line. What was typed (`args`) becomes what is meant (`settings`), is carried out (`commands`) and
//! told (`output`); nothing else prints, and nothing but `settings` reads the environment.
#![deny(unsafe_code)]

mod args;
mod commands;
mod daemon;
mod exit;
mod interrupt;
mod output;
mod settings;
mod tensor_file;
mod vaes;

use args::Args;
use clap::Parser;
use output::Output;
use settings::Environment;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Args { config, command } = Args::parse();
    let output = Output::new(command.report());
    let outcome = Environment::of_process(config).and_then(|environment| commands::run(command, &environment, &output));
    let told = match &outcome {
        Ok(outcome) => output.tell(outcome),
        Err(error) => output.tell_error(error),
    };
    match (outcome, told) {
        (Err(error), _) | (Ok(_), Err(error)) => exit::status(error.kind()).into(),
        (Ok(outcome), Ok(())) => outcome.failure().map_or(ExitCode::SUCCESS, |kind| exit::status(kind).into()),
    }
}
