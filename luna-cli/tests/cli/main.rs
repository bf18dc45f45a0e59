//! The command line as its users meet it: the built program, its files, its standard streams and its exit status.

mod bench;
mod config;
mod documents;
mod errors;
mod forward;
mod inspect;
mod interrupt;
mod lora;
mod memory;
mod round_trip;
mod text;
mod vision;

use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A folder of its own with a photograph in it.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let photo = luna_tests::workspace::root().join("examples/photos/chelsea.png");
        std::fs::copy(photo, folder.path().join("photo.png")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program, to be run here, untouched by the environment of whoever runs the tests.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_luna-cli"));
        command.current_dir(&self.folder).args(line.split_whitespace());
        // Variables of these names lead to a configuration file.
        let homes = ["HOME", "XDG_CONFIG_HOME", "APPDATA"];
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LUNA_") || homes.contains(&&**name)) {
            command.env_remove(name);
        }
        command
    }

    /// As [`Bench::command`], for words with spaces in them.
    fn args(&self, words: &[&str]) -> Command {
        let mut command = self.command("");
        command.args(words);
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Runs what must succeed and gives back its standard output.
    fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "luna-cli {line}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs what must succeed with `--json` and gives back what it tells.
    fn json(&self, line: &str) -> Value {
        let text = self.ok(&format!("{line} --json"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("luna-cli {line}: {error}: {text}"))
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A small grey-to-white picture.
fn write_picture(path: &Path, width: usize, height: usize) {
    use luna_core::picture::{Format, Metadata, Pixels, write_picture};
    let values: Vec<f32> = (0..width * height * 3).map(|i| 0.5 + 0.5 * (i as f32 * 0.01).sin()).collect();
    let pixels = Pixels::from_f32(height, width, 3, &values).unwrap();
    let replace = luna_core::files::IfExists::Replace;
    write_picture(path, &pixels, Format::from_path(path).unwrap(), &Metadata::none(), replace).unwrap();
}
