//! A live daemon as its clients meet it: the built program, on a port of its own.

mod browser;
mod commands;
mod dashboard;
mod forward;
mod hostile;
mod ipc;
mod logs;
mod python;
mod remote;
mod save;
mod text;
mod vision;
mod watch;
mod watch_hostile;
mod wire;
mod work;

use luna_core::client::{Client, ClientSettings};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// A daemon in another process, ended with the test.
struct Server {
    child: Child,
    address: String,
    /// Where it can be watched; empty if nowhere.
    watch: String,
}

/// The program, untouched by the environment of whoever runs the tests.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luna-cli"));
    // Variables of these names lead to a configuration file.
    let homes = ["HOME", "XDG_CONFIG_HOME", "APPDATA"];
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LUNA_") || homes.contains(&&**name)) {
        command.env_remove(name);
    }
    command
}

fn run(folder: &Path, line: &str) -> Output {
    program().current_dir(folder).args(line.split_whitespace()).output().unwrap()
}

impl Server {
    fn start(options: &str) -> Self {
        Self::listen("127.0.0.1:0", options)
    }

    fn listen(address: &str, options: &str) -> Self {
        let mut command = program();
        command.args(["serve", "--listen", address, "--threads", "2"]).args(options.split_whitespace());
        if !options.contains("--watch-listen") {
            command.args(["--watch-listen", "127.0.0.1:0"]);
        }
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = |start: &str| {
            let line = lines.next()?.unwrap();
            Some(line.strip_prefix(start).unwrap_or_else(|| panic!("{line:?}")).trim_end_matches('/').to_owned())
        };
        let address = told("listening on ").expect("a daemon that starts");
        let off = command.get_args().any(|word| word == "off");
        let watch = if off { String::new() } else { told("watched at http://").unwrap_or_default() };
        Self { child, address, watch }
    }

    fn client(&self) -> Client {
        Client::connect(self.address.clone(), ClientSettings::default()).unwrap()
    }

    /// Its exit status, once it has ended.
    fn ended(&mut self) -> Option<i32> {
        let mut status = None;
        until("the daemon's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `test` holds; fails after a minute.
fn until(what: &str, mut test: impl FnMut() -> bool) {
    let start = Instant::now();
    while !test() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A smooth picture, `[1, height, width, 3]`.
fn picture(height: usize, width: usize) -> luna_core::Image {
    let values = (0..height * width * 3).map(|i| 0.5 + 0.5 * (i as f32 * 0.013).sin()).collect();
    luna_core::Image::new([1, height, width, 3], values).unwrap()
}

/// A small picture file.
fn picture_file(path: &Path) {
    use luna_core::picture::{Format, Metadata, Pixels, write_picture};
    let image = picture(32, 48);
    let replace = luna_core::files::IfExists::Replace;
    write_picture(path, &Pixels::of(&image, 0), Format::PNG, &Metadata::none(), replace).unwrap();
}
