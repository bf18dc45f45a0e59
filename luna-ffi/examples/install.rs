//! Installs the library for C and C++: headers, libraries, a pkg-config file and a CMake package, below a prefix:
//! `cargo run --release -p luna-ffi --example install -- /usr/local`.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

/// Fills a template of `luna-ffi/package` in.
fn filled(text: &str) -> String {
    text.replace("@VERSION@", env!("CARGO_PKG_VERSION"))
}

/// Installs what was built in `built` below `prefix`, and gives the files.
pub fn install(built: &Path, prefix: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no workspace")?;
    let mut files = Vec::new();
    let mut put = |place: &str, bytes: Vec<u8>| -> Result<(), Box<dyn Error>> {
        let path = prefix.join(place);
        fs::create_dir_all(path.parent().ok_or("no folder")?)?;
        fs::write(&path, bytes)?;
        files.push(path);
        Ok(())
    };
    for header in ["luna.h", "luna.hpp", "luna_base.hpp", "luna_text.hpp", "luna_vlm.hpp"] {
        put(&format!("include/{header}"), fs::read(root.join("include").join(header))?)?;
    }
    let names = ["libluna.so", "libluna.dylib", "luna.dll", "luna.dll.lib", "libluna.a", "luna.lib"];
    let found: Vec<_> = names.iter().filter(|name| built.join(name).is_file()).collect();
    if found.is_empty() {
        return Err(format!("no library was built in {}", built.display()).into());
    }
    for name in found {
        put(&format!("lib/{name}"), fs::read(built.join(name))?)?;
    }
    let package = root.join("luna-ffi/package");
    for (file, place) in [
        ("luna.pc", "lib/pkgconfig/luna.pc"),
        ("LunaConfig.cmake", "lib/cmake/Luna/LunaConfig.cmake"),
        ("LunaConfigVersion.cmake", "lib/cmake/Luna/LunaConfigVersion.cmake"),
    ] {
        put(place, filled(&fs::read_to_string(package.join(file))?).into_bytes())?;
    }
    Ok(files)
}

#[allow(dead_code, reason = "the tests take `install` from here")]
fn main() -> Result<(), Box<dyn Error>> {
    let prefix = env::args_os().nth(1).ok_or("usage: install PREFIX")?;
    // This program lies in target/PROFILE/examples.
    let program = env::current_exe()?;
    let built = program.ancestors().nth(2).ok_or("not built by cargo")?;
    let built = if built.join("libluna.a").is_file() { built.to_owned() } else { built.join("deps") };
    for file in install(&built, Path::new(&prefix))? {
        println!("{}", file.display());
    }
    Ok(())
}
