//! Settings from a file, the environment and the command line, as a user meets them.

use super::{Bench, text};
use luna_core::config;
use luna_tests::workspace;
use serde_json::Value;
use std::fs;

fn shown(bench: &Bench, line: &str, variables: &[(&str, &str)]) -> Value {
    let output = bench.command(line).envs(variables.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn setting<'a>(shown: &'a Value, key: &str) -> &'a Value {
    let all = shown["settings"].as_array().unwrap();
    all.iter().find(|setting| setting["key"] == key).unwrap_or_else(|| panic!("{key} is not shown"))
}

#[test]
fn every_setting_is_shown_with_where_it_comes_from() {
    let bench = Bench::new();
    fs::write(bench.path("my.toml"), "[daemon]\nqueue = 7\nidle = 3\n[models]\nroots = [\"here\"]\n").unwrap();
    let all = shown(&bench, "config show --json --config my.toml", &[("LUNA_IDLE", "5")]);
    assert_eq!(all["settings"].as_array().unwrap().len(), config::keys::ENTRIES.len());
    let told = |key: &str| (setting(&all, key)["values"][0].clone(), setting(&all, key)["source"].clone());
    assert_eq!(told("daemon.queue"), ("7".into(), "my.toml".into()));
    assert_eq!(told("daemon.idle"), ("5".into(), "environment".into()));
    assert_eq!(told("daemon.drain"), ("30".into(), "default".into()));
    assert_eq!(told("models.roots"), ("here".into(), "my.toml".into()));
    // What is printed is a file that says the same.
    let printed = bench.command("config show --config my.toml").output().unwrap();
    fs::write(bench.path("printed.toml"), printed.stdout).unwrap();
    let again = shown(&bench, "config show --json --config printed.toml", &[]);
    for entry in config::keys::ENTRIES.iter().filter(|entry| !entry.path && entry.name != "daemon.idle") {
        assert_eq!(setting(&again, entry.name)["values"], setting(&all, entry.name)["values"], "{}", entry.name);
    }
}

#[test]
fn the_file_lies_where_the_system_keeps_such_files() {
    let bench = Bench::new();
    let home = bench.path("home");
    let folder = match () {
        () if cfg!(windows) => home.join("luna"),
        () if cfg!(target_os = "macos") => home.join("Library/Application Support/luna"),
        () => home.join(".config/luna"),
    };
    let home = home.to_str().unwrap();
    let variables = [("HOME", home), ("APPDATA", home)];
    let none = shown(&bench, "config show --json", &variables);
    assert!(none["file"].is_null() && none["usual_file"] == folder.join("luna.toml").to_str().unwrap(), "{none}");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("luna.toml"), "compute.threads = 1").unwrap();
    let all = shown(&bench, "config show --json", &variables);
    assert_eq!(setting(&all, "compute.threads")["values"][0], "1");
    // A file that is named stands in place of it.
    fs::write(bench.path("other.toml"), "").unwrap();
    let other = shown(&bench, "config show --json", &[variables[0], variables[1], ("LUNA_CONFIG", "other.toml")]);
    assert_eq!(
        (&other["file"], setting(&other, "compute.threads")["source"].as_str()),
        (&"other.toml".into(), Some("default"))
    );
}

#[test]
fn what_is_wrong_with_a_file_is_told_by_every_command() {
    let bench = Bench::new();
    for (content, status, told) in [
        ("[daemon]\nqeue = 7", 2, "wrong.toml:2: there is no setting `daemon.qeue`"),
        ("[daemon]\nqeue = 7", 2, "did you mean `daemon.queue`?"),
        ("[daemon]\nqueue = 0", 2, "at least 1"),
        ("daemon = ", 2, "no TOML"),
    ] {
        fs::write(bench.path("wrong.toml"), content).unwrap();
        for line in
            ["config check wrong.toml", "config show --config wrong.toml", "--config wrong.toml inspect photo.png"]
        {
            let output = bench.run(line);
            assert_eq!(output.status.code(), Some(status), "{line}: {}", text(&output.stderr));
            assert!(text(&output.stderr).contains(told), "{line}: {}", text(&output.stderr));
        }
    }
    assert_eq!(bench.run("config check no-such-file.toml").status.code(), Some(5));
    fs::write(bench.path("large.toml"), "#".repeat(2 << 20)).unwrap();
    assert_eq!(bench.run("config check large.toml").status.code(), Some(7));
}

#[test]
fn a_check_looks_for_what_the_file_names() {
    let bench = Bench::new();
    fs::write(bench.path("good.toml"), "[models]\nroots = [\".\"]\n[daemon]\nqueue = 3\n").unwrap();
    let told = bench.ok("config check good.toml");
    assert_eq!(told, "good.toml: 2 settings, all right\n");
    fs::write(bench.path("bad.toml"), "[models]\nroots = [\"nowhere\"]").unwrap();
    let output = bench.run("config check bad.toml");
    assert!(output.status.code() == Some(5) && text(&output.stderr).contains("nowhere"), "{}", text(&output.stderr));
    fs::write(bench.path("bad.toml"), "[daemon]\ntoken_file = \"nowhere\"").unwrap();
    assert_eq!(bench.run("config check bad.toml").status.code(), Some(5));
    let output = bench.command("config check good.toml").env("LUNA_QUEUE", "none").output().unwrap();
    assert!(text(&output.stderr).contains("LUNA_QUEUE"), "{}", text(&output.stderr));
}

#[test]
fn commands_compute_as_the_file_says() {
    let bench = Bench::new();
    fs::write(bench.path("half.toml"), "[compute]\nprecision = \"bf16\"\nthreads = 1\n").unwrap();
    let precision = |line: &str| {
        let told: Value = serde_json::from_str(&bench.ok(line)).unwrap();
        told["call"]["precision"].as_str().unwrap().to_owned()
    };
    let line = "encode photo.png -o latent.safetensors --json";
    assert_eq!(precision(&format!("--config half.toml {line}")), "bf16");
    assert_eq!(precision(&format!("{line} --config half.toml --precision f32")), "f32");
    assert_eq!(precision(line), "f32");
}

#[test]
fn the_documented_settings_are_those_of_the_program() {
    let manual = workspace::text("docs/cli.md");
    let table = config::table();
    assert!(manual.contains(&table), "docs/cli.md lacks this table:\n\n{table}");
}
