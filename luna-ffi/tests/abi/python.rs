//! The Python package, by the machine's own Python, and the wheel that carries the library.

use crate::{built, programs};
use luna_tests::workspace;
use std::process::Command;

/// The Python of the machine, with the built library.
pub fn python() -> Command {
    let mut command = Command::new("python3");
    command.env("LUNA_LIBRARY", built::library()).env("PYTHONDONTWRITEBYTECODE", "1");
    command.current_dir(workspace::root());
    command
}

#[test]
fn the_package_passes_its_own_tests() {
    let folder = tempfile::tempdir().unwrap();
    let output = python()
        .args(["-m", "unittest", "discover", "--start-directory", "bindings/python/tests/embedded", "--verbose"])
        .env("LUNA_TEST_DENOISER", programs::denoiser(folder.path()))
        .env("LUNA_TEST_LORA", programs::lora(folder.path()))
        .env("LUNA_TEST_VISION", luna_tests::conformance::vision(folder.path()))
        .env("LUNA_TEST_VLM", luna_tests::conformance::vlm(folder.path()))
        .env("LUNA_TEST_VLM_LORA", luna_tests::lora::path("qwen3_vl", "peft"))
        .output()
        .expect("python3");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let ran = told.lines().find_map(|line| line.strip_prefix("Ran ")).expect("unittest tells");
    let ran: usize = ran.split(' ').next().unwrap().parse().unwrap();
    assert!(ran >= 57, "{told}");
    told.lines().filter(|line| line.contains("skipped")).for_each(|line| eprintln!("{line}"));
}

#[test]
fn the_declarations_are_those_of_the_header() {
    let generated = built::run(python().arg("bindings/python/generate.py"));
    assert!(
        generated == workspace::text("bindings/python/luna/_abi.py"),
        "out of date: python bindings/python/generate.py > bindings/python/luna/_abi.py"
    );
}

/// Where every field lies, as ctypes has it, is what the C compiler says.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn structs_lie_as_in_c() {
    let program = "import ctypes\nfrom luna import _abi\nfor name, kind in sorted(vars(_abi).items()):\n    \
                   if isinstance(kind, type) and issubclass(kind, ctypes.Structure):\n        \
                   for field, *_ in kind._fields_: print(f'{name}.{field} {getattr(kind, field).offset}')\n";
    let told = built::run(python().args(["-c", program]).env("PYTHONPATH", "bindings/python"));
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&told), sorted(&workspace::text("luna-ffi/tests/abi/fields.txt")));
}

/// What an example must have told.
fn expected(name: &str) -> &'static str {
    match name {
        "encode_decode" => "latent (1, 16, 6, 8), 0 bytes copied",
        "encode_prompt" => "luna.Tensor(float32, [1, 77, 64])",
        "progress_and_cancel" => "stopped: that takes too long",
        "asyncio_pictures" => "3 latents",
        "save_pictures" => "gradient_001.png",
        "one_step" => "prediction (1, 4, 16, 16)",
        "apply_loras" => "0 and 1 LoRAs\n1 adapters applied\nink applied ",
        "lora_tags" => "ink: 0.8 and 0.6\n1 adapters applied, ['ink']\n",
        "describe_picture" => "8 tokens, ended by max_tokens",
        "here_or_there" => "latent (1, 16, 8, 12) made in this process",
        "picture_embedding" => "luna.Tensor(float32, [1, 40])",
        other => panic!("what does the example {other} tell?"),
    }
}

#[test]
fn examples_run() {
    let folder = tempfile::tempdir().unwrap();
    for source in built::sources("examples/python", "py", 10) {
        let name = source.file_stem().unwrap().to_str().unwrap();
        let arguments = programs::arguments(name, folder.path());
        let told = built::run(python().env("PYTHONPATH", "bindings/python").arg(&source).args(arguments));
        assert!(told.contains(expected(name)), "{name}: {told}");
    }
}

/// The package as people have it: a wheel by pip, installed into an environment of its own, used far from the checkout.
#[test]
fn the_wheel_carries_the_library() {
    let folder = tempfile::tempdir().unwrap();
    let (wheels, environment) = (folder.path().join("wheels"), folder.path().join("environment"));
    built::run(python().args(["-m", "venv"]).arg(&environment));
    let bin = environment.join(if cfg!(windows) { "Scripts" } else { "bin" });
    let own = |arguments: &[&str]| {
        let mut command = Command::new(bin.join("python"));
        command.args(arguments).current_dir(folder.path()).env_remove("PYTHONPATH");
        command.env_remove("LUNA_LIBRARY").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        command
    };
    let mut wheel = own(&["-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]);
    wheel.env("LUNA_LIBRARY", built::library()).arg("--wheel-dir").arg(&wheels);
    built::run(wheel.arg(workspace::root().join("bindings/python")));
    let built: Vec<_> = std::fs::read_dir(&wheels).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = &built[..] else { panic!("one wheel: {built:?}") };
    built::run(own(&["-m", "pip", "install", "--quiet", "--no-index"]).arg(file));
    let told = built::run(&mut own(&["-c", "import luna; print(luna.library_version(), luna.__file__)"]));
    let (version, place) = told.trim().split_once(' ').unwrap();
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    let inside = std::path::Path::new(place).canonicalize().unwrap();
    assert!(inside.starts_with(environment.canonicalize().unwrap()), "{place}");
    let example = workspace::root().join("examples/python/encode_decode.py");
    let told = built::run(own(&[]).arg(example));
    assert!(told.contains(expected("encode_decode")), "{told}");
}
