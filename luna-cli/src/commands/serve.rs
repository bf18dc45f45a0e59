//! `serve`: a daemon in this process. `start`: one in another.

use super::remote;
use crate::{
    daemon::{Daemon, Running},
    output::Output,
    settings::{DaemonAddress, DaemonSettings},
};
use luna_core::{CancelToken, Error, ErrorKind, Result, protocol::Shutdown};
use serde::Serialize;
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What the line that tells the address begins with.
pub const READY: &str = "listening on ";

/// What `serve` did.
#[derive(Serialize)]
pub struct ServeOutcome {
    pub address: String,
    pub requests: u64,
    /// Whether all that was accepted was finished.
    pub finished: bool,
}

/// What `start` did.
#[derive(Serialize)]
pub struct StartOutcome {
    pub address: String,
    pub pid: u32,
}

/// What `stop` did.
#[derive(Serialize)]
pub struct StopOutcome {
    pub address: String,
}

/// Serves until told to stop.
pub fn serve(settings: DaemonSettings, token: &CancelToken, output: &Output) -> Result<ServeOutcome> {
    let (models, log) = (settings.models.clone(), settings.log);
    let daemon = Daemon::new(settings)?;
    if log {
        let (events, output) = (daemon.events(), output.clone());
        // It ends with the process: there is always somebody who could tell another event.
        thread::spawn(move || events.iter().for_each(|event| output.log(&event)));
    }
    for model in models {
        daemon.register(&model.path, model.name.as_deref())?;
    }
    let running = Running::start(daemon.clone())?;
    let address = running.address().to_string();
    output.announce(&format!("{READY}{address}"))?;
    let finished = running.wait(|| token.is_cancelled());
    Ok(ServeOutcome { address, requests: daemon.snapshot().total_requests, finished })
}

/// Starts `serve` with the same arguments and waits until it is ready.
pub fn start() -> Result<StartOutcome> {
    let failed = |error| Error::io("start the daemon", error);
    let program = std::env::current_exe().map_err(failed)?;
    // What was typed has been checked; it means the same to `serve`. Only how to tell it is not its business.
    let arguments = std::env::args_os().skip(2).filter(|word| word != "--json" && word != "--quiet" && word != "-q");
    let mut command = Command::new(program);
    command.arg("serve").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    detach(&mut command);
    let mut child = command.spawn().map_err(failed)?;
    let line = child.stdout.take().and_then(|stdout| {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).ok()?;
        Some(line)
    });
    match line.as_deref().and_then(|line| line.trim().strip_prefix(READY)) {
        Some(address) => Ok(StartOutcome { address: address.to_owned(), pid: child.id() }),
        None => Err(why(&mut child)),
    }
}

/// A terminal that closes, or Ctrl-C in it, shall not end the daemon.
#[cfg(unix)]
fn detach(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

#[cfg(not(unix))]
fn detach(_: &mut Command) {}

/// Why a daemon ended before it was ready, in its own words.
fn why(child: &mut Child) -> Error {
    let mut words = String::new();
    if let Some(stderr) = &mut child.stderr {
        // Whatever can be read is better than nothing.
        let _ = stderr.take(64 << 10).read_to_string(&mut words);
    }
    let status = child.wait().map(|status| status.to_string()).unwrap_or_default();
    let words = words.trim().trim_start_matches("luna-cli: error: ").to_owned();
    Error::new(ErrorKind::Io, format!("the daemon did not start ({status}): {words}"))
}

/// Ends a daemon and waits until it is gone.
pub fn stop(address: &DaemonAddress, token: &CancelToken) -> Result<StopOutcome> {
    const LONGEST: Duration = Duration::from_secs(600);
    let client = remote::connect(address)?;
    client.call(&Shutdown {}, &[])?;
    let until = Instant::now() + LONGEST;
    while !client.is_gone() {
        if token.is_cancelled() {
            return Err(Error::cancelled());
        }
        if Instant::now() > until {
            return Err(Error::new(ErrorKind::Busy, "the daemon is still finishing what it has accepted"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(StopOutcome { address: address.address.clone() })
}
