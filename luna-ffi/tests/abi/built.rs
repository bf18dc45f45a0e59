//! What cargo built for these tests, and the tools to build programs over it.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

/// The folder of the built library: cargo puts it beside the tests' own programs.
pub fn folder() -> PathBuf {
    let program = env::current_exe().unwrap();
    let folder = program.parent().unwrap();
    assert!(folder.join(name()).is_file(), "{} is not in {}", name(), folder.display());
    folder.to_owned()
}

/// The library's file name.
pub const fn name() -> &'static str {
    if cfg!(windows) {
        "luna.dll"
    } else if cfg!(target_os = "macos") {
        "libluna.dylib"
    } else {
        "libluna.so"
    }
}

/// The library.
pub fn library() -> PathBuf {
    folder().join(name())
}

/// Whether a tool is there.
pub fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Tools that were not there, each once.
static UNTRIED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Tells that a tool is not there and what was not tried without it, also where tests run without `--nocapture`.
pub fn untried(tool: &str, what: &str) {
    let mut untried = UNTRIED.lock().unwrap();
    if untried.insert(tool.to_owned()) {
        let count = untried.len();
        // Not by `eprintln!`, which the harness keeps back where a test passes.
        let mut terminal = io::stderr().lock();
        writeln!(terminal, "NOT TRIED ({count}): {what}; {tool} is not on this machine").unwrap();
    }
}

/// Those of `tools` that are there; at least one must be.
pub fn present(tools: &[&'static str]) -> Vec<&'static str> {
    let (present, missing): (Vec<_>, Vec<_>) = tools.iter().copied().partition(|tool| has(tool));
    for tool in missing {
        untried(tool, "programs built by it");
    }
    assert!(!present.is_empty(), "none of {tools:?} is there");
    present
}

/// The sources in a folder of the repository, by their extension; at least `least` of them.
pub fn sources(folder: &str, extension: &str, least: usize) -> Vec<PathBuf> {
    let folder = luna_tests::workspace::root().join(folder);
    let mut found: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    found.sort();
    assert!(found.len() >= least, "{}: {found:?}", folder.display());
    for path in &found {
        let lines = fs::read_to_string(path).unwrap().lines().count();
        assert!(lines < 60, "{} has {lines} lines: an example is one task", path.display());
    }
    found
}

/// Runs a command, and gives what it printed; fails if it fails.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// A compiler with the options that every program here is built with.
pub fn compiler(name: &str, standard: &str) -> Command {
    let mut command = Command::new(name);
    command.arg(format!("-std={standard}"));
    command.args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-g", "-O1"]);
    command.arg("-I").arg(luna_tests::workspace::root().join("include"));
    command
}

/// Builds a program over the built library.
pub fn build(compiler: &mut Command, source: &Path, program: &Path) {
    let folder = folder();
    let path = format!("-Wl,-rpath,{}", folder.display());
    run(compiler.arg(source).arg("-o").arg(program).arg("-L").arg(&folder).args(["-lluna", "-lm", &path]));
}
