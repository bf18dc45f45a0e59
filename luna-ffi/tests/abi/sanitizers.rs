//! The examples in C and C++ under AddressSanitizer with UBSan and leak detection, and under valgrind.

use crate::{built, c, cpp, programs};
use std::process::Command;

/// Builds and runs the examples of a folder under the sanitizers.
#[cfg(target_os = "linux")]
fn sanitized(
    folder: &str,
    least: usize,
    compilers: &[&'static str],
    standard: &str,
    expected: fn(&str) -> &'static str,
) {
    let place = tempfile::tempdir().unwrap();
    let compiler = built::present(compilers)[0];
    let ending = folder.rsplit('/').next().unwrap();
    for source in built::sources(folder, ending, least) {
        let name = source.file_stem().unwrap().to_str().unwrap();
        let program = place.path().join(name);
        let mut command = built::compiler(compiler, standard);
        command.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
        built::build(&mut command, &source, &program);
        let told = built::run(Command::new(&program).args(programs::arguments(name, place.path())));
        assert!(told.contains(expected(name)), "{name}: {told}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn examples_in_c_are_clean_under_the_sanitizers() {
    sanitized("examples/c", 10, &["gcc", "clang"], "c99", c::expected);
}

#[cfg(target_os = "linux")]
#[test]
fn examples_in_cpp_are_clean_under_the_sanitizers() {
    sanitized("examples/cpp", 5, &["g++", "clang++"], "c++17", cpp::expected);
}

#[cfg(target_os = "linux")]
#[test]
fn examples_are_clean_under_valgrind() {
    if !built::has("valgrind") {
        built::untried("valgrind", "the examples under valgrind (they run under the sanitizers)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let compiler = built::present(&["gcc", "clang", "cc"])[0];
    for name in ["cancel", "models_in_memory", "save_pictures", "apply_loras", "lora_tags"] {
        let source = luna_tests::workspace::root().join(format!("examples/c/{name}.c"));
        let program = folder.path().join(name);
        built::build(&mut built::compiler(compiler, "c99"), &source, &program);
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["-q", "--leak-check=full", "--errors-for-leak-kinds=definite", "--error-exitcode=9"]);
        let told = built::run(valgrind.arg(&program).args(programs::arguments(name, folder.path())));
        assert!(told.contains(c::expected(name)), "{name}: {told}");
    }
}
