//! The examples in C under AddressSanitizer with UBSan and leak detection, and under valgrind.

use crate::{built, c, programs};
use std::process::Command;

#[cfg(target_os = "linux")]
#[test]
fn examples_are_clean_under_the_sanitizers() {
    let folder = tempfile::tempdir().unwrap();
    let compiler = built::present(&["gcc", "clang"])[0];
    for source in built::sources("examples/c", "c", 9) {
        let name = source.file_stem().unwrap().to_str().unwrap();
        let program = folder.path().join(name);
        let mut command = built::compiler(compiler, "c99");
        command.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
        built::build(&mut command, &source, &program);
        let told = built::run(Command::new(&program).args(programs::arguments(name, folder.path())));
        assert!(told.contains(c::expected(name)), "{name}: {told}");
    }
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
    for name in ["cancel", "models_in_memory", "save_pictures", "apply_loras"] {
        let source = luna_tests::workspace::root().join(format!("examples/c/{name}.c"));
        let program = folder.path().join(name);
        built::build(&mut built::compiler(compiler, "c99"), &source, &program);
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["-q", "--leak-check=full", "--errors-for-leak-kinds=definite", "--error-exitcode=9"]);
        let told = built::run(valgrind.arg(&program).args(programs::arguments(name, folder.path())));
        assert!(told.contains(c::expected(name)), "{name}: {told}");
    }
}
