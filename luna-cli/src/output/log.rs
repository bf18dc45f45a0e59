//! Log lines. Enters: events of all rooms, by `tracing`. Leaves: a line for each that is worth one, on standard error or at the
//! end of a file, with the request that it belongs to.

use crate::settings::LogSettings;
use luna_core::{
    Error, ErrorKind, Result,
    config::{LogFormat, LogLevel},
};
use std::{fs::File, io, sync::Mutex};
use tracing::{Dispatch, level_filters::LevelFilter};
use tracing_subscriber::fmt::{MakeWriter, format::FmtSpan};

/// Logs from now on, for the whole process.
///
/// # Errors
/// `Io` if the file cannot be opened.
pub fn start(settings: &LogSettings) -> Result<()> {
    let level = match settings.level {
        LogLevel::Off => return Ok(()),
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let dispatch = match &settings.file {
        None => lines(io::stderr, level, settings.format),
        Some(path) => {
            let file = File::options().append(true).create(true).open(path);
            let file = file.map_err(|error| Error::io(format!("open the log {}", path.display()), error))?;
            lines(Mutex::new(file), level, settings.format)
        }
    };
    let set = tracing::dispatcher::set_global_default(dispatch);
    set.map_err(|error| Error::new(ErrorKind::Internal, "the log was started twice").source(error))
}

fn lines(
    writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
    level: LevelFilter,
    format: LogFormat,
) -> Dispatch {
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_span_events(FmtSpan::NONE)
        .log_internal_errors(false)
        .with_writer(writer);
    match format {
        LogFormat::Human => lines.finish().into(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(true).with_span_list(false).finish().into()
        }
    }
}
