//! All that Luna prints. Enters: outcomes, errors, progress. Leaves: lines for a person, or one JSON object; progress
//! on standard error, where that is a terminal. Computes nothing.

mod config;
mod daemon;
mod human;
mod log;
mod progress;
mod units;

use crate::{
    args::ReportArgs,
    commands::{Outcome, StatusOutcome},
    settings::LogSettings,
};
use luna_core::{Call, CancelToken, Error, Progress, Result};
use progress::ProgressBar;
use serde_json::json;
use std::io::{self, IsTerminal, Write};

/// Where and how to tell.
#[derive(Clone)]
pub struct Output {
    style: Style,
    bar: ProgressBar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Human,
    Json,
    Quiet,
}

impl Output {
    /// As it was asked for.
    pub fn new(ReportArgs { json, quiet }: ReportArgs) -> Self {
        let style = match (json, quiet) {
            (true, _) => Style::Json,
            (false, true) => Style::Quiet,
            (false, false) => Style::Human,
        };
        Self { style, bar: ProgressBar::new(style != Style::Quiet) }
    }

    /// A call that `token` cancels and whose progress is shown under this name.
    pub fn watched_call(&self, name: &'static str, token: &CancelToken) -> Call {
        let bar = self.bar.clone();
        Call::new().cancelled_by(token).on_progress(move |progress| bar.show(name, progress))
    }

    /// Shows the progress of work that is no single call, from whichever thread.
    pub fn progress(&self, name: &'static str) -> impl Fn(Progress) + Send + Sync + 'static {
        let bar = self.bar.clone();
        move |progress| bar.show(name, progress)
    }

    /// Takes the progress bar away.
    pub fn finish_progress(&self) {
        self.bar.clear();
    }

    /// Prints a part of a result before the rest is known.
    ///
    /// # Errors
    /// As [`Output::tell`].
    pub fn stream(&self, text: &str) -> Result<()> {
        if self.style == Style::Human { print(text.as_bytes()) } else { Ok(()) }
    }

    /// Tells a line at once, while the command goes on; also where nothing else is told, for scripts wait for it.
    ///
    /// # Errors
    /// As [`Output::tell`].
    pub fn announce(&self, line: &str) -> Result<()> {
        match self.style {
            Style::Json => print(format!("{}\n", json!({ "announcement": line })).as_bytes()),
            Style::Human | Style::Quiet => print(format!("{line}\n").as_bytes()),
        }
    }

    /// Logs what happens, from now on.
    ///
    /// # Errors
    /// `Io` if the log's file cannot be opened.
    pub fn log(&self, settings: &LogSettings) -> Result<()> {
        log::start(settings)
    }

    /// Tells a daemon's state again: on a terminal in place of what stands there, else below it.
    ///
    /// # Errors
    /// As [`Output::tell`].
    pub fn refresh(&self, status: &StatusOutcome) -> Result<()> {
        let mut text = Vec::new();
        match self.style {
            Style::Json => text = format!("{}\n", json!(status)).into_bytes(),
            _ => {
                daemon::status(&mut text, status).map_err(|error| Error::io("format", error))?;
                if io::stdout().is_terminal() {
                    text = daemon::in_place(&text, console::Term::stdout().size());
                }
            }
        }
        print(&text)
    }

    /// Tells what was done.
    ///
    /// # Errors
    /// `Io` if standard output refuses. A reader that has gone is no error.
    pub fn tell(&self, outcome: &Outcome) -> Result<()> {
        self.bar.clear();
        let mut text = Vec::new();
        match (self.style, outcome) {
            (_, Outcome::Script { text: result }) => text.extend_from_slice(result.as_bytes()),
            (Style::Json, _) => text = format!("{}\n", json!(outcome)).into_bytes(),
            (Style::Human, _) => human::outcome(&mut text, outcome).map_err(|error| Error::io("format", error))?,
            (Style::Quiet, _) => {}
        }
        if self.style != Style::Json {
            for note in human::notes(outcome) {
                // Nobody can be told that standard error is closed.
                let _ = writeln!(io::stderr(), "luna-cli: note: {note}");
            }
        }
        print(&text)
    }

    /// Tells what went wrong.
    ///
    /// # Errors
    /// As [`Output::tell`].
    pub fn tell_error(&self, error: &Error) -> Result<()> {
        self.bar.clear();
        let _ = io::stderr().write_all(human::error(error).as_bytes());
        match self.style {
            Style::Json => print(format!("{}\n", json!({ "error": error_json(error) })).as_bytes()),
            Style::Human | Style::Quiet => Ok(()),
        }
    }
}

fn error_json(error: &Error) -> serde_json::Value {
    json!({
        "kind": error.kind().name(),
        "code": error.kind().code(),
        "message": error.message(),
        "expected": error.expectation(),
        "found": error.finding(),
        "remedy": error.advice(),
    })
}

/// Prints to standard output. A reader that closes the pipe has seen enough.
fn print(text: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Error::io("write to standard output", error)),
    }
}
