//! Folders below a folder.

use std::path::{Path, PathBuf};

/// Folders looked through below the given one.
const MOST_FOLDERS: usize = 10_000;

/// A folder and all below it, in the order of their names. Links to folders are not followed.
pub(crate) fn folders_below(root: &Path) -> Vec<PathBuf> {
    let mut all = vec![root.to_owned()];
    let mut next = 0;
    while next < all.len() && all.len() < MOST_FOLDERS {
        let entries = std::fs::read_dir(&all[next]).into_iter().flatten().flatten();
        let mut below: Vec<PathBuf> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        below.sort();
        all.extend(below);
        next += 1;
    }
    all
}
