//! The examples in C, built and run.

use crate::{built, programs::arguments};
use luna_tests::workspace;
use std::process::Command;

/// What an example must have told.
pub fn expected(name: &str) -> &'static str {
    match name {
        "encode_decode" => "latent: 1 x 16 x 6 x 8",
        "encode_prompt" => "clip_l: token 736, weight 1.3",
        "save_pictures" => "gradient_001.png: ",
        "one_step" => "prediction: ",
        "sampling_with_cache" => "4 steps, ",
        "apply_loras" => "1 adapters applied, 0 not\nink: lora for ",
        "describe_picture" => " tokens after 46",
        "picture_embedding" => "embedding of 40 numbers",
        "lora_tags" => "ink: 0.8 and 0.6\n1 adapters applied, 0 not\n",
        "cancel" => "cancelled: the call was cancelled",
        "models_in_memory" => "2 handles",
        other => panic!("what does the example {other} tell?"),
    }
}

#[test]
fn examples_build_as_c99_without_warnings_and_run() {
    let folder = tempfile::tempdir().unwrap();
    let sources = built::sources("examples/c", "c", 10);
    for (at, compiler) in built::present(&["gcc", "clang", "cc"]).into_iter().enumerate() {
        for source in &sources {
            let name = source.file_stem().unwrap().to_str().unwrap();
            let program = folder.path().join(format!("{name}-{compiler}"));
            built::build(&mut built::compiler(compiler, "c99"), source, &program);
            // One run of each is enough: the compilers differ in their warnings.
            if at == 0 {
                let told = built::run(Command::new(&program).args(arguments(name, folder.path())));
                assert!(told.contains(expected(name)), "{name}: {told}");
            }
        }
    }
    let picture = std::fs::read(folder.path().join("saved/gradient_001.png")).unwrap();
    assert!(picture.windows(15).any(|bytes| bytes == b"a blue gradient"));
    assert!(workspace::root().join("include/luna.h").is_file());
}

#[test]
fn the_static_library_serves_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("static");
    let source = workspace::root().join("examples/c/encode_decode.c");
    let mut compiler = built::compiler(built::present(&["gcc", "clang", "cc"])[0], "c99");
    compiler.arg(source).arg("-o").arg(&program).arg(built::folder().join("libluna.a"));
    built::run(compiler.args(["-lpthread", "-ldl", "-lm"]));
    assert!(built::run(&mut Command::new(program)).contains("latent: 1 x 16 x 6 x 8"));
}
