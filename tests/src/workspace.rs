//! The repository's files.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folder of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies in the workspace").to_owned()
}

/// A text file of the repository, by its path from the root.
///
/// # Panics
/// If it cannot be read.
pub fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file under `folder`, by its path from the root with `/`, but for what builds and tools leave behind.
///
/// # Panics
/// If there is none.
pub fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(&root(), &root().join(folder), &mut found);
    found.sort();
    assert!(!found.is_empty(), "no files under {folder:?}");
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<String>) {
    const LEFT_BEHIND: [&str; 8] =
        ["target", ".git", "__pycache__", ".mypy_cache", ".venv", "luna-demo", "corpus", "artifacts"];
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if LEFT_BEHIND.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, found);
        } else {
            let relative = path.strip_prefix(root).expect("below the root");
            found.push(relative.to_string_lossy().replace('\\', "/"));
        }
    }
}

/// The Rust sources of the crates' `src` folders.
pub fn sources() -> Vec<String> {
    let crates = ["luna-kernels", "luna-core", "luna-ffi", "luna-cli", "tests"];
    let files: Vec<_> = crates.iter().flat_map(|folder| files(&format!("{folder}/src"))).collect();
    files.into_iter().filter(|path| path.ends_with(".rs")).collect()
}
