//! One list of cases (`tests/fixtures/conformance.json`) through every door: the crate, the C ABI and Python in this
//! process, the C ABI and Python's own client on a daemon. All give the same bits and the same kinds of error.

mod c_abi;
mod deadline;
mod python;

use c_abi::Door;
use luna_tests::{
    conformance::{Answers, Files, through_the_crate},
    workspace,
};
use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// A daemon in another process, ended with the test.
struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    fn start(files: &Files, output: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_luna-cli"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LUNA_")) {
            command.env_remove(name);
        }
        command.args(["serve", "--listen", "127.0.0.1:0", "--watch-listen", "off", "--threads", "2"]);
        command.arg("--model-root").arg(files.folder()).arg("--output").arg(files.output(output));
        command.arg("--lora-folder").arg(files.folder());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let line = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
        let address = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { child, address }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The built library: cargo puts it beside the tests' own programs.
fn library() -> PathBuf {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let names = ["libluna.so", "libluna.dylib", "luna.dll"];
    let found = names.map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no library in {}", folder.display()))
}

/// Python's answers, in this process or of a daemon.
fn through_python(files: &Files, door: &str, address: Option<&str>) -> Answers {
    let mut python = Command::new("python3");
    python.current_dir(workspace::root()).env("PYTHONPATH", "bindings/python").env("PYTHONDONTWRITEBYTECODE", "1");
    python.arg("bindings/python/tests/conformance.py").arg(files.folder()).arg(files.output(door));
    match address {
        // Without the library: this door is the pure client's.
        Some(address) => python.arg(address).env("LUNA_LIBRARY", "/nowhere"),
        None => python.env("LUNA_LIBRARY", library()),
    };
    let output = python.output().expect("python3");
    assert!(output.status.success(), "{door}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Fails with the cases that differ.
fn compare(door: &str, answers: &Answers, expected: &Answers) {
    assert_eq!(answers.len(), expected.len(), "{door}");
    let differ: Vec<_> = answers.iter().zip(expected).filter(|(found, expected)| found != expected).collect();
    assert!(differ.is_empty(), "{door}: {} of {} cases differ: {differ:#?}", differ.len(), expected.len());
}

#[test]
fn every_door_gives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::write(folder.path());
    let expected = through_the_crate(&files);
    let count = |test: &dyn Fn(&str) -> bool| expected.iter().filter(|(_, answer)| test(answer)).count();
    assert!(count(&|answer| answer.starts_with('[')) >= 30, "{expected:#?}");
    assert!(count(&|answer| answer == "invalid_input") >= 9, "{expected:#?}");
    assert!(count(&|answer| answer.ends_with(" hit")) == 1, "{expected:#?}");

    compare("the C ABI", &Door::open(&files, "c_abi").answers(), &expected);
    compare("Python", &through_python(&files, "python", None), &expected);
    let daemon = Daemon::start(&files, "daemon");
    compare("a daemon through the C ABI", &Door::connect(&files, &daemon.address).answers(), &expected);
    drop(daemon);
    let daemon = Daemon::start(&files, "daemon_of_python");
    compare(
        "a daemon through Python's own client",
        &through_python(&files, "socket", Some(&daemon.address)),
        &expected,
    );
    println!("{} cases through the crate and four other doors", expected.len());
}
