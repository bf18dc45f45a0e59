//! The C++ header and the installed tree, as a project in C++ or C has them.

use crate::{built, programs::arguments};
use luna_tests::workspace;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[path = "../../examples/install.rs"]
mod installer;

/// What an example must have told.
pub fn expected(name: &str) -> &'static str {
    match name {
        "encode_decode" => "latent of 768 values, 0 bytes copied",
        "encode_prompt" => "77 tokens of 64 channels, pooled: yes",
        "apply_loras" => "ink: lora_te_text_model_encoder_layers_0_self_attn_q_proj for ",
        "describe_picture" => " tokens\n",
        "conversation" => "1 turns, 8 tokens more\n3 turns, ",
        "progress_and_cancel" => "stopped: that takes too long",
        other => panic!("what does the example {other} tell?"),
    }
}

/// An installed tree.
fn installed() -> tempfile::TempDir {
    let prefix = tempfile::tempdir().unwrap();
    let files = installer::install(&built::folder(), prefix.path()).unwrap();
    assert!(files.len() >= 6, "{files:?}");
    prefix
}

/// The tree's pkg-config file as options, by pkg-config itself where it is.
fn options(prefix: &Path) -> Vec<String> {
    let folder = prefix.join("lib/pkgconfig");
    if built::has("pkg-config") {
        let mut tool = Command::new("pkg-config");
        tool.env("PKG_CONFIG_PATH", &folder).args(["--cflags", "--libs", "--define-prefix", "luna"]);
        return built::run(&mut tool).split_whitespace().map(str::to_owned).collect();
    }
    built::untried("pkg-config", "luna.pc by the tool itself (the test reads it instead)");
    let text = fs::read_to_string(folder.join("luna.pc")).unwrap();
    let at = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
    let fill = |line: String| {
        line.replace("${libdir}", &prefix.join("lib").display().to_string())
            .replace("${includedir}", &prefix.join("include").display().to_string())
    };
    [at("Cflags: "), at("Libs: ")]
        .map(fill)
        .iter()
        .flat_map(|line| line.split_whitespace())
        .map(str::to_owned)
        .collect()
}

fn programs(compilers: &[&'static str], standard: &str, sources: &[PathBuf], check: impl Fn(&str, &Path)) {
    let prefix = installed();
    let found = options(prefix.path());
    for (at, compiler) in built::present(compilers).into_iter().enumerate() {
        for source in sources {
            let name = source.file_stem().unwrap().to_str().unwrap();
            let program = prefix.path().join(format!("{name}-{compiler}"));
            let mut command = Command::new(compiler);
            command.arg(format!("-std={standard}"));
            command.args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-O1"]).arg(source).arg("-o").arg(&program);
            command.args(&found).arg(format!("-Wl,-rpath,{}", prefix.path().join("lib").display()));
            built::run(&mut command);
            if at == 0 {
                check(name, &program);
            }
        }
    }
}

#[test]
fn examples_in_cpp_build_against_the_installed_tree_and_run() {
    let sources = built::sources("examples/cpp", "cpp", 5);
    programs(&["g++", "clang++", "c++"], "c++17", &sources, |name, program| {
        let told = built::run(Command::new(program).args(arguments(name, program.parent().unwrap())));
        assert!(told.contains(expected(name)), "{name}: {told}");
    });
}

#[test]
fn examples_in_c_build_against_the_installed_tree() {
    let sources = built::sources("examples/c", "c", 6);
    programs(&["gcc", "clang", "cc"], "c99", &sources, |_, program| assert!(program.is_file()));
}

/// Every file that the package names is in the installed tree, its targets are those that the documents name, and its
/// version is the library's. This holds with CMake and without.
#[test]
fn the_cmake_package_names_what_is_installed() {
    let prefix = installed();
    let folder = prefix.path().join("lib/cmake/Luna");
    let config = fs::read_to_string(folder.join("LunaConfig.cmake")).unwrap();
    let version = fs::read_to_string(folder.join("LunaConfigVersion.cmake")).unwrap();
    assert!(version.contains(&format!("set(PACKAGE_VERSION \"{}\")", env!("CARGO_PKG_VERSION"))), "{version}");
    // Where the config looks for everything: three folders above itself.
    let (_, up) = config.split_once("${CMAKE_CURRENT_LIST_DIR}").unwrap();
    let root = folder.join(up.split('"').next().unwrap().trim_start_matches('/')).canonicalize().unwrap();
    assert_eq!(root, prefix.path().canonicalize().unwrap());
    let listed = config.split_once("foreach(_luna_name ").unwrap().1;
    let names = listed.split_once(')').unwrap().0.split_whitespace();
    assert_eq!(names.filter(|name| root.join("lib").join(name).is_file()).collect::<Vec<_>>(), [built::name()]);
    let named = config.split("${_luna_prefix}/").skip(1).map(|rest| rest.split('"').next().unwrap());
    let fixed: Vec<_> = named.filter(|path| !path.contains("${") && !path.contains("dll")).collect();
    assert!(fixed.contains(&"include") && fixed.contains(&"lib/libluna.a"), "{fixed:?}");
    for path in fixed {
        assert!(root.join(path).exists(), "{path} is not installed");
    }
    let documents = workspace::text("docs/bindings.md");
    for target in ["Luna::luna", "Luna::static"] {
        assert!(config.contains(&format!("add_library({target} ")) && documents.contains(target), "{target}");
    }
    for opening in ["if", "foreach"] {
        let count = |word: &str| config.lines().filter(|line| line.trim().starts_with(word)).count();
        assert_eq!(count(&format!("{opening}(")), count(&format!("end{opening}(")), "{opening}");
    }
}

#[test]
fn cmake_finds_the_installed_package() {
    if !built::has("cmake") {
        built::untried("cmake", "find_package(Luna) by CMake itself (its files are checked as text)");
        return;
    }
    let prefix = installed();
    let project = tempfile::tempdir().unwrap();
    let source = workspace::root().join("examples/cpp/encode_decode.cpp");
    let text = format!(
        "cmake_minimum_required(VERSION 3.13)\nproject(user LANGUAGES C CXX)\nset(CMAKE_CXX_STANDARD 17)\n\
         find_package(Luna {} REQUIRED)\nadd_executable(user \"{}\")\ntarget_link_libraries(user Luna::luna)\n\
         add_executable(closed \"{}\")\ntarget_link_libraries(closed Luna::static)\n",
        env!("CARGO_PKG_VERSION"),
        source.display(),
        source.display()
    );
    fs::write(project.path().join("CMakeLists.txt"), text).unwrap();
    let built_in = project.path().join("build");
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(project.path()).arg("-B").arg(&built_in);
    built::run(configure.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.path().display())));
    built::run(Command::new("cmake").arg("--build").arg(&built_in));
    for program in ["user", "closed"] {
        let told = built::run(&mut Command::new(built_in.join(program)));
        assert!(told.contains(expected("encode_decode")), "{told}");
    }
}
