//! `serve`: a daemon in this process. `start`: one in another.

use super::remote;
use crate::{
    daemon::{Daemon, Running, Watch},
    output::Output,
    settings::{DaemonAddress, DaemonSettings},
};
use luna_core::{CancelToken, Error, ErrorKind, Result, protocol::Shutdown};
use serde::Serialize;
use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What the line that tells the address begins with.
pub const READY: &str = "listening on ";
/// What the line begins with that tells where to watch.
pub const WATCHED: &str = "watched at http://";

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
    /// The page that shows it.
    pub watch: Option<String>,
    pub pid: u32,
}

/// What `stop` did.
#[derive(Serialize)]
pub struct StopOutcome {
    pub address: String,
}

/// Serves until told to stop.
pub fn serve(settings: DaemonSettings, token: &CancelToken, output: &Output) -> Result<ServeOutcome> {
    output.log(&settings.log)?;
    let models = settings.models.clone();
    let daemon = Daemon::new(settings)?;
    let watch = Watch::start(&daemon)?;
    for model in models {
        daemon.register(&model.path, model.name.as_deref())?;
    }
    let running = Running::start(daemon.clone())?;
    let address = running.address().to_string();
    if let Some(watch) = &watch {
        watch.ready();
    }
    output.announce(&format!("{READY}{address}"))?;
    if let Some(watch) = &watch {
        output.announce(&format!("{WATCHED}{}/", watch.address()))?;
    }
    let finished = running.wait(|| token.is_cancelled());
    Ok(ServeOutcome { address, requests: daemon.snapshot().total_requests, finished })
}

/// Starts `serve` with the same arguments and waits until it is ready.
pub fn start(watched: bool) -> Result<StartOutcome> {
    let failed = |error| Error::io("start the daemon", error);
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(as_serve(std::env::args_os().skip(1)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    detach(&mut command);
    let mut child = command.spawn().map_err(failed)?;
    let mut lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
    let mut next = |start: &str| {
        let line = lines.as_mut()?.next()?.ok()?;
        line.strip_prefix(start).map(str::to_owned)
    };
    match next(READY) {
        Some(address) => {
            let watch = if watched { next(WATCHED) } else { None };
            let watch = watch.map(|address| format!("http://{address}"));
            Ok(StartOutcome { address, watch, pid: child.id() })
        }
        None => Err(why(&mut child)),
    }
}

/// What was typed, to mean the same to `serve`. It has been checked; only how to tell it is not its business.
fn as_serve(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let told = ["--json", "--quiet", "-q"];
    let mut words: Vec<_> = words.filter(|word| told.iter().all(|option| word != option)).collect();
    // Of what may stand before the command only `--config` takes a word, and that may be any.
    let command = match words.first() {
        Some(first) if first == "--config" => 2,
        Some(first) if first.to_string_lossy().starts_with("--config=") => 1,
        _ => 0,
    };
    if let Some(word) = words.get_mut(command) {
        *word = "serve".into();
    }
    words
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_means_the_same_to_serve() {
        for (typed, meant) in [
            ("start --listen a --json", "serve --listen a"),
            ("--config start start -q", "--config start serve"),
            ("--config=x start --config y", "--config=x serve --config y"),
        ] {
            let words = as_serve(typed.split(' ').map(OsString::from));
            assert_eq!(words, meant.split(' ').map(OsString::from).collect::<Vec<_>>(), "{typed}");
        }
    }
}
