//! What a daemon bears: prints latencies, transfers beside a pickle server, many clients with every answer checked,
//! clients killed in mid-frame, restarts under load, and the memory of eight processes that share a model.
//!
//! ```sh
//! cargo build --release -p luna-cli
//! cargo run --release -p luna-tests --example load -- --minutes 10
//! ```
//!
//! Options: `--program FILE` (luna-cli beside this program's folder), `--minutes N` (1) and `--clients N` (64) of the
//! mixed load, `--kills N` (1000), `--restarts N` (3), `--checkpoint FILE` for the shared model, such as SD1.5's (else
//! random weights of SDXL's VAE), `--only PART`: `latency`, `mixed`, `kills`, `restarts`, `memory`. It needs Linux, and
//! Python for the pickle server. The exit status is 1 if an answer was wrong or missing; times are printed and judged by
//! the reader.

mod ends;
mod latency;
mod memory;
mod mixed;
mod server;

use std::{path::PathBuf, process::ExitCode, time::Duration};

/// What was asked for.
pub struct Options {
    /// The daemon's program.
    pub program: PathBuf,
    /// So long is the mixed load.
    pub time: Duration,
    /// Clients of the mixed load.
    pub clients: usize,
    /// Clients to kill.
    pub kills: usize,
    /// Times to end the daemon.
    pub restarts: usize,
    /// The model that processes share.
    pub checkpoint: Option<PathBuf>,
    only: Option<String>,
}

impl Options {
    fn read(words: &[String]) -> Self {
        let own = std::env::current_exe().expect("this program has a path");
        let beside = own.parent().and_then(|folder| folder.parent()).expect("a folder").join("luna-cli");
        let mut options = Self {
            program: beside,
            time: Duration::from_secs(60),
            clients: 64,
            kills: 1000,
            restarts: 3,
            checkpoint: None,
            only: None,
        };
        let number = |text: &str| text.parse::<f64>().unwrap_or_else(|_| panic!("{text} is no number"));
        for pair in words.chunks(2) {
            let [name, value] = pair else { panic!("{} has no value", pair[0]) };
            match name.as_str() {
                "--program" => options.program = value.into(),
                "--minutes" => options.time = Duration::from_secs_f64(number(value) * 60.0),
                "--clients" => options.clients = number(value) as usize,
                "--kills" => options.kills = number(value) as usize,
                "--restarts" => options.restarts = number(value) as usize,
                "--checkpoint" => options.checkpoint = Some(value.into()),
                "--only" => options.only = Some(value.clone()),
                other => panic!("no such option: {other}"),
            }
        }
        options
    }

    fn wants(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }
}

/// Runs a part, and says whether all answers were right.
type Part = fn(&Options) -> bool;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("half-a-frame") => return ends::half_a_frame(&words[1..]),
        Some("use-model") => return memory::use_model(&words[1..]),
        _ => {}
    }
    let options = Options::read(&words);
    let parts: [(&str, Part); 5] = [
        ("latency", latency::run),
        ("mixed", mixed::run),
        ("kills", ends::kills),
        ("restarts", ends::restarts),
        ("memory", memory::run),
    ];
    let mut sound = true;
    for (name, run) in parts.into_iter().filter(|(name, _)| options.wants(name)) {
        println!("\n{name}");
        let good = run(&options);
        println!("  {}", if good { "sound" } else { "WRONG" });
        sound &= good;
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
