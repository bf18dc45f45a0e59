//! Prints `include/luna.h`, generated from this crate's sources:
//! `cargo run -p luna-ffi --example header > include/luna.h`.

use std::{error::Error, path::Path};

/// In the order in which a reader needs them.
const SOURCES: [&str; 32] = [
    "version",
    "status",
    "error",
    "types",
    "view",
    "options",
    "call",
    "session/options",
    "session",
    "list",
    "tensor",
    "dlpack",
    "picture",
    "inspect",
    "coverage",
    "lora/tags",
    "lora",
    "vae/options",
    "vae",
    "text/options",
    "text",
    "tokens",
    "model/options",
    "model",
    "sampling",
    "vision/load",
    "vision",
    "vlm/question",
    "vlm/answer",
    "vlm",
    "save",
    "save_status",
];

/// The header, from the sources of this crate.
pub fn generate() -> Result<String, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut builder = cbindgen::Builder::new().with_config(cbindgen::Config::from_file(root.join("cbindgen.toml"))?);
    for source in SOURCES {
        builder = builder.with_src(root.join("src").join(source).with_extension("rs"));
    }
    let mut header = Vec::new();
    builder.generate()?.write(&mut header);
    Ok(String::from_utf8(header)?)
}

#[allow(dead_code, reason = "the test of the header takes `generate` from here")]
fn main() -> Result<(), Box<dyn Error>> {
    print!("{}", generate()?);
    Ok(())
}
