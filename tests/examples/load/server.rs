//! A daemon in another process. Enters: the program, options. Leaves: its address, its memory, its end.

use luna_core::client::{Client, ClientSettings};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub struct Server {
    child: Child,
    pub address: String,
}

impl Server {
    pub fn start(program: &Path, listen: &str, options: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(["serve", "--listen", listen, "--watch-listen", "off"]).args(options).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("luna-cli, which --program names");
        let line = BufReader::new(child.stdout.take().expect("piped")).lines().next().expect("a line").expect("text");
        let address = line.strip_prefix("listening on ").expect("an address").to_owned();
        Self { child, address }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client by shared memory, or by TCP alone.
    pub fn client(&self, near: bool) -> Client {
        client(&self.address, near)
    }

    /// MiB of its own, without what the system counts for several.
    pub fn resident(&self) -> f64 {
        status(self.pid(), "VmRSS:")
    }

    /// Descriptors that it has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    /// SIGTERM, and its exit status.
    pub fn terminate(mut self) -> Option<i32> {
        signal(self.pid(), "TERM");
        self.child.wait().ok().and_then(|status| status.code())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn client(address: &str, near: bool) -> Client {
    let mut settings = ClientSettings::default();
    settings.shared_memory = near;
    settings.connect_for = Duration::from_secs(30);
    settings.reconnect_for = Duration::from_secs(120);
    Client::connect(address, settings).expect("a daemon that answers")
}

/// A line of a process's status, in MiB.
pub fn status(pid: u32, key: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    number_after(&text, key) / 1024.0
}

/// MiB that a process adds to the machine's memory: pages of several are shared out among them.
pub fn proportional(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    number_after(&text, "Pss:") / 1024.0
}

fn number_after(text: &str, key: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name} {pid}");
}

/// Waits until `test` holds; says whether it came within a minute.
pub fn until(mut test: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !test() {
        if start.elapsed() > Duration::from_secs(60) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
