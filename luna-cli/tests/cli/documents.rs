//! What the README and the manual say is what the program does.

use super::{
    Bench, text,
    vision::{write_model, write_vlm},
};
use luna_tests::{diffusion, markdown, vae, workspace};
use std::fs;

/// The words of a command line; quotes keep spaces together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (None, '"' | '\'') => (quote, word) = (Some(c), Some(word.unwrap_or_default())),
            (Some(open), _) if c == open => quote = None,
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "an open quote in {line}");
    words.extend(word);
    words
}

/// Every `luna-cli` line of the README's `sh` blocks, run in order in a folder that has the files it names.
#[test]
fn the_commands_of_the_readme_work() {
    let bench = Bench::new();
    let picture = luna_core::picture::read_picture(&bench.path("photo.png"), &luna_core::Limits::default()).unwrap();
    let pixels = luna_core::picture::Pixels::of(&picture, 0);
    let jpeg = luna_core::picture::Format::JPEG;
    let bytes = luna_core::picture::encode(&pixels, jpeg, &luna_core::picture::Metadata::none()).unwrap();
    fs::write(bench.path("photo.jpg"), bytes).unwrap();
    fs::write(bench.path("my-vae.safetensors"), vae::case("ldm_sd").model()).unwrap();
    write_model(&bench, "vision/clip_transformers.safetensors", "my-clip");
    write_vlm(&bench, "my-vlm");
    let unet = diffusion::case("sd15_ldm");
    fs::write(bench.path("my-unet.safetensors"), unet.model()).unwrap();
    fs::copy(luna_tests::lora::path("sd15_ldm", "kohya"), bench.path("ink.safetensors")).unwrap();
    fs::write(bench.path("step.safetensors"), unet.step_file(false)).unwrap();
    // The documents' port may be taken on this machine.
    let free = two_free_ports();
    let _stopped = StoppedAtLast(&bench, format!("stop --connect {free}"));
    let clip = luna_tests::text::clip(&luna_tests::text::CLIP_L);
    let checkpoint = luna_tests::text::file(&[("cond_stage_model.transformer.", &clip)], |_| safetensors::Dtype::F16);
    fs::write(bench.path("my-checkpoint.safetensors"), checkpoint).unwrap();
    fs::write(bench.path("my-lora.safetensors"), luna_tests::text::kohya_lora()).unwrap();
    let mut run = 0;
    for path in ["README.md", "docs/cli.md"] {
        for line in markdown::shell_lines(&workspace::text(path)) {
            let line = line.replacen("cargo run --release -p luna-cli -- ", "luna-cli ", 1);
            let line = line.replace("127.0.0.1:19383", &free);
            let Some(arguments) = line.strip_prefix("luna-cli ") else { continue };
            let arguments = arguments.split(['|', '>', '#']).next().unwrap_or_default();
            let words = words(arguments);
            let output = bench.args(&words.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
            assert!(output.status.success(), "{path}: luna-cli {arguments}: {}", text(&output.stderr));
            run += 1;
        }
    }
    assert!(run >= 10, "only {run} commands were found");
}

/// An address whose port, and the one after it, are free.
fn two_free_ports() -> String {
    use std::net::TcpListener;
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = first.local_addr().unwrap();
        if address.port() < u16::MAX && TcpListener::bind((address.ip(), address.port() + 1)).is_ok() {
            return address.to_string();
        }
    }
}

/// All that are documented.
const COMMANDS: [&str; 18] = [
    "demo", "encode", "decode", "forward", "text", "tokenize", "vision", "describe", "inspect", "lora", "bench",
    "serve", "start", "stop", "status", "unload", "save", "config",
];

/// Ends the daemon that a document starts, also where a command after it fails.
struct StoppedAtLast<'a>(&'a Bench, String);

impl Drop for StoppedAtLast<'_> {
    fn drop(&mut self) {
        self.0.run(&self.1);
    }
}

#[test]
fn the_manual_and_the_completions_name_every_command() {
    let bench = Bench::new();
    let commands = COMMANDS;
    bench.ok("man pages");
    let mut pages = bench.ok("man");
    for command in commands {
        pages += &fs::read_to_string(bench.path("pages").join(format!("luna-cli-{command}.1"))).unwrap();
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = bench.ok(&format!("completions {shell}"));
        assert!(commands.iter().all(|command| script.contains(command)), "{shell}");
    }
    for option in ["max\\-memory", "size\\-rule", "latent\\-format"] {
        assert!(pages.contains(option), "the manual does not name {option}");
    }
}

/// The table of exit statuses, the kinds and the help say the same.
#[test]
fn the_documented_statuses_are_those_of_the_kinds() {
    let manual = workspace::text("docs/cli.md");
    for kind in luna_core::ErrorKind::ALL {
        let status = if kind == luna_core::ErrorKind::Cancelled { 130 } else { kind.code() + 1 };
        let row = format!("| {status} | `{}` |", kind.name());
        assert!(manual.contains(&row), "docs/cli.md lacks the row {row}");
    }
}

#[test]
fn every_option_is_documented() {
    let bench = Bench::new();
    let manual = workspace::text("docs/cli.md");
    let mut found = 0;
    for command in COMMANDS.into_iter().chain(["lora inspect", "config show", "config check"]) {
        let help = bench.ok(&format!("{command} --help"));
        for word in help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
            let Some(name) = word.strip_prefix("--").filter(|name| name.len() > 1 && *name != "help") else { continue };
            assert!(manual.contains(&format!("`--{name}")), "docs/cli.md does not tell --{name} of {command}");
            found += 1;
        }
    }
    assert!(found > 20);
}
