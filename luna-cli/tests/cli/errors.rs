//! What goes wrong: the kind of the error, its exit status, and words that help.

use super::{Bench, text, write_picture};
use luna_core::ErrorKind;
use luna_tests::{
    diffusion, hostile,
    safetensors_file::{f32_tensor, file},
};
use std::fs;

/// The status that stands for this kind, as docs/cli.md tells it.
pub fn status(kind: ErrorKind) -> i32 {
    if kind == ErrorKind::Cancelled { 130 } else { kind.code() + 1 }
}

/// Runs what must fail with this kind, in words and in JSON, and gives back the words.
pub fn fails(bench: &Bench, line: &str, kind: ErrorKind) -> String {
    let before = bench.names();
    let output = bench.run(line);
    let words = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status(kind)), "luna-cli {line}: {words}");
    assert!(words.contains("luna-cli: error: ") && output.stdout.is_empty(), "luna-cli {line}: {words}");
    let output = bench.run(&format!("{line} --json"));
    assert_eq!(output.status.code(), Some(status(kind)), "luna-cli {line} --json");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["error"]["kind"], kind.name(), "luna-cli {line} --json: {told}");
    assert_eq!(told["error"]["code"], kind.code());
    assert_eq!(bench.names(), before, "luna-cli {line} left something behind");
    words
}

/// A latent file that fits moonlet, of the given value.
fn write_latent(bench: &Bench, name: &str, value: f32) {
    let latent = f32_tensor("latent", &[1, 16, 4, 4], &[value; 256]);
    fs::write(bench.path(name), file(&[latent], &[])).unwrap();
}

#[test]
fn every_kind_of_error_has_its_status() {
    let bench = Bench::new();
    write_latent(&bench, "good.safetensors", 0.5);
    write_latent(&bench, "nan.safetensors", f32::NAN);
    fs::write(bench.path("empty.safetensors"), b"").unwrap();
    fs::write(bench.path("page.safetensors"), b"<!doctype html><title>404</title>").unwrap();
    let mut seen = vec![
        // Provoked from outside in `interrupt`.
        ErrorKind::Cancelled,
        // Nothing waits in a program that does one thing.
        ErrorKind::Busy,
        // Nobody knows how.
        ErrorKind::Internal,
    ];
    let mut check = |line: &str, kind, says: &str| {
        let words = fails(&bench, line, kind);
        assert!(words.contains(says), "luna-cli {line}: {words}");
        seen.push(kind);
    };
    check("decode good.safetensors -o x.png --tile 100", ErrorKind::InvalidInput, "multiple of 8");
    check("decode empty.safetensors -o x.png", ErrorKind::InvalidFile, "empty");
    check("decode page.safetensors -o x.png", ErrorKind::Unsupported, "HTML");
    check("decode good.safetensors -o x.gif", ErrorKind::Unsupported, ".png");
    check("decode none.safetensors -o x.png", ErrorKind::NotFound, "none.safetensors");
    check("decode good.safetensors -o x.png --vae moonlit", ErrorKind::NotFound, "`moonlet`");
    check("decode good.safetensors -o no/folder/x.png", ErrorKind::NotFound, "folder");
    check("bench --model moonlet --size 80000", ErrorKind::LimitExceeded, "32768");
    check("decode good.safetensors -o x.png --max-memory 1M", ErrorKind::OutOfMemory, "--max-memory");
    check("decode nan.safetensors -o x.png", ErrorKind::NonFinite, "NaN");
    check("decode good.safetensors -o x.png --device cuda:7", ErrorKind::Device, "cuda:7");
    #[cfg(target_os = "linux")]
    {
        std::os::unix::fs::symlink("/dev/full", bench.path("full.png")).unwrap();
        check("decode good.safetensors -o full.png", ErrorKind::Io, "full.png");
        for kind in ErrorKind::ALL {
            assert!(seen.contains(&kind), "no test provokes {kind}");
        }
    }
}

#[test]
fn hostile_files_are_refused_by_every_command() {
    let bench = Bench::new();
    write_latent(&bench, "good.safetensors", 0.5);
    fs::write(bench.path("step.safetensors"), diffusion::case("sd15_ldm").step_file(false)).unwrap();
    for hostile in hostile::files() {
        fs::write(bench.path("bad.safetensors"), &hostile.bytes).unwrap();
        for line in [
            "inspect bad.safetensors",
            "encode photo.png -o x.safetensors --vae bad.safetensors",
            "encode bad.safetensors -o x.safetensors",
            "decode bad.safetensors -o x.png",
            "forward bad.safetensors -o x.safetensors --model good.safetensors",
            "forward step.safetensors -o x.safetensors --model bad.safetensors",
        ] {
            let output = bench.run(line);
            let words = text(&output.stderr);
            assert_eq!(output.status.code(), Some(status(hostile.kind)), "{}: {line}: {words}", hostile.name);
            assert!(words.contains(hostile.says), "{}: {line}: {words}", hostile.name);
        }
    }
}

#[test]
fn wrong_inputs_are_told_from_right_ones() {
    let bench = Bench::new();
    write_picture(&bench.path("odd.png"), 33, 40);
    write_picture(&bench.path("tiny.png"), 7, 7);
    let four = f32_tensor("latent", &[1, 4, 8, 8], &[0.0; 256]);
    fs::write(bench.path("four.safetensors"), file(&[four], &[])).unwrap();
    fs::write(bench.path("note.txt"), b"hello").unwrap();
    fs::write(bench.path("cut.png"), &fs::read(bench.path("photo.png")).unwrap()[..2000]).unwrap();
    for (line, kind, says) in [
        ("decode four.safetensors -o x.png", ErrorKind::InvalidInput, "16 channels"),
        ("encode odd.png -o x.safetensors --size-rule refuse", ErrorKind::InvalidInput, "33x40"),
        ("encode tiny.png -o x.safetensors", ErrorKind::InvalidInput, "7x7"),
        ("encode odd.png -o odd.png", ErrorKind::InvalidInput, "same file"),
        ("encode odd.png -o x.safetensors --tile 64", ErrorKind::InvalidInput, "16 latent pixels"),
        ("encode note.txt -o x.safetensors", ErrorKind::Unsupported, "note.txt"),
        ("encode cut.png -o x.safetensors", ErrorKind::InvalidFile, "cut.png"),
        ("encode . -o x.safetensors", ErrorKind::InvalidInput, "folder"),
        ("decode photo.png -o x.png", ErrorKind::Unsupported, "a picture"),
        ("encode photo.png -o x.safetensors --vae photo.png", ErrorKind::Unsupported, "a picture"),
        ("encode photo.png -o x.safetensors --vae four.safetensors", ErrorKind::Unsupported, "no VAE"),
        ("bench --model moonlet --size 100", ErrorKind::InvalidInput, "multiple of 8"),
    ] {
        let words = fails(&bench, line, kind);
        assert!(words.contains(says), "luna-cli {line}: {words}");
    }
    bench.ok("encode odd.png -o x.safetensors --size-rule pad");
}

#[test]
fn wrong_variables_are_named() {
    let bench = Bench::new();
    let output = bench.command("decode x -o y.png").env("LUNA_THREADS", "many").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("LUNA_THREADS"), "{}", text(&output.stderr));
}

/// A reader that has seen enough, such as `head`, is no reason to panic or to fail.
#[test]
fn a_closed_pipe_is_no_error() {
    use std::process::Stdio;
    let bench = Bench::new();
    for line in ["inspect photo.png", "completions bash", "man", "--help"] {
        let mut child = bench.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(!text(&output.stderr).contains("panicked"), "luna-cli {line}: {}", text(&output.stderr));
        assert_ne!(output.status.code(), Some(101));
    }
}
