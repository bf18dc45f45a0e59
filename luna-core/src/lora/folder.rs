//! LoRAs by name. Enters: folders, a name as people type it. Leaves: the one file it means, or the candidates. It must
//! not know what is in the files; nothing outside its folders is ever named.

use crate::{Error, ErrorKind, Result, files::folders_below};
use std::path::{Path, PathBuf};

/// Candidates that an error lists.
const LISTED: usize = 10;

/// The folders that LoRAs are looked up in by name, with all folders below them.
///
/// ```
/// use luna_core::lora::LoraFolders;
/// # let place = tempfile::tempdir()?;
/// # std::fs::create_dir(place.path().join("styles"))?;
/// # std::fs::write(place.path().join("styles/ink wash.safetensors"), b"")?;
/// let folders = LoraFolders::new([place.path()])?;
/// let file = folders.find("ink wash")?;
/// assert_eq!(folders.find("styles/ink wash.safetensors")?, file);
/// assert_eq!(folders.find("ink")?, file); // the only one that starts so
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct LoraFolders {
    /// Without links and dots.
    roots: Vec<PathBuf>,
}

/// A LoRA in the folders.
struct Found {
    path: PathBuf,
    /// Its path below the root without the ending, with `/` between the parts.
    name: String,
}

impl Found {
    /// The last part of its name.
    fn stem(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }
}

impl LoraFolders {
    /// Takes the folders that may be read.
    ///
    /// # Errors
    /// `NotFound` or `Io` if one cannot be opened, `InvalidInput` if one is no folder.
    pub fn new<P: AsRef<Path>>(roots: impl IntoIterator<Item = P>) -> Result<Self> {
        let real = |root: P| {
            let root = root.as_ref();
            let real = root.canonicalize().map_err(|error| Error::io(format!("open {}", root.display()), error))?;
            if real.is_dir() {
                return Ok(real);
            }
            Err(Error::new(ErrorKind::InvalidInput, format!("{} is no folder", root.display()))
                .expected("a folder of LoRAs"))
        };
        Ok(Self { roots: roots.into_iter().map(real).collect::<Result<_>>()? })
    }

    /// The names of all LoRAs: paths below their folder without the ending, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.all().into_iter().map(|found| found.name).collect();
        names.sort();
        names
    }

    /// The file, or PEFT folder, of this name: its path below a folder, or its last part, with or without `.safetensors`;
    /// else the only one whose name starts so. Case counts.
    ///
    /// # Errors
    /// `NotFound` if there is none, with the nearest names; `InvalidInput` if the name means several, with a list.
    pub fn find(&self, name: &str) -> Result<PathBuf> {
        let wanted = name.replace('\\', "/");
        let wanted = wanted.strip_suffix(".safetensors").unwrap_or(&wanted);
        let all = self.all();
        let rules: [&dyn Fn(&Found) -> bool; 3] =
            [&|found| found.name == wanted, &|found| found.stem() == wanted, &|found| {
                !wanted.is_empty() && (found.name.starts_with(wanted) || found.stem().starts_with(wanted))
            }];
        for rule in rules {
            let matches: Vec<_> = all.iter().filter(|found| rule(found)).collect();
            match matches.as_slice() {
                [] => {}
                [one] => return Ok(one.path.clone()),
                several => {
                    return Err(Error::new(ErrorKind::InvalidInput, format!("the name `{name}` means several LoRAs"))
                        .expected("the name of one")
                        .found(listed(several.iter().map(|found| &*found.name)))
                        .remedy("give more of its name, or its path"));
                }
            }
        }
        Err(Error::new(ErrorKind::NotFound, format!("there is no LoRA named `{name}`"))
            .expected(format!("a file below {}", self.roots_listed()))
            .found(nearest(&all, wanted))
            .remedy("check the spelling, or give the path of the file"))
    }

    fn roots_listed(&self) -> String {
        match self.roots.as_slice() {
            [] => "a LoRA folder, and none was given".to_owned(),
            roots => roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(" or "),
        }
    }

    fn all(&self) -> Vec<Found> {
        let folders =
            self.roots.iter().flat_map(|root| folders_below(root).into_iter().map(move |folder| (root, folder)));
        let mut all = Vec::new();
        for (root, folder) in folders {
            if folder.join("adapter_config.json").is_file() {
                all.extend(found(root, folder.clone(), folder.clone()));
                continue;
            }
            let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            let files = entries.map(|entry| entry.path()).filter(|path| {
                path.is_file() && path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("safetensors"))
            });
            all.extend(files.filter_map(|path| found(root, path.with_extension(""), path)));
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

/// A LoRA, unless a link leads out of its root or its name is no text.
fn found(root: &Path, named: PathBuf, path: PathBuf) -> Option<Found> {
    let real = path.canonicalize().ok().filter(|real| real.starts_with(root))?;
    let parts: Option<Vec<_>> = named.strip_prefix(root).ok()?.iter().map(|part| part.to_str()).collect();
    Some(Found { path: real, name: parts?.join("/") })
}

fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(LISTED);
    let mut text = names.take(LISTED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}

/// What there is that shares the most with a name.
fn nearest(all: &[Found], wanted: &str) -> String {
    let wanted = wanted.to_lowercase();
    let shared = |found: &&Found| {
        let stem = found.stem().to_lowercase();
        let start = stem.chars().zip(wanted.chars()).take_while(|(a, b)| a == b).count();
        let contained = if wanted.len() > 2 && stem.contains(&*wanted) { wanted.len() } else { 0 };
        start.max(contained)
    };
    let mut near: Vec<_> = all.iter().filter(|found| shared(found) > 1).collect();
    near.sort_by_key(|found| std::cmp::Reverse(shared(found)));
    match near.as_slice() {
        [] => format!("{} LoRAs, none of a similar name", all.len()),
        near => format!("{} LoRAs; nearest: {}", all.len(), listed(near.iter().map(|found| &*found.name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn place(files: &[&str]) -> (tempfile::TempDir, LoraFolders) {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("loras");
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        let folders = LoraFolders::new([&root]).unwrap();
        (place, folders)
    }

    #[test]
    fn a_name_means_the_exact_one_before_the_only_one_that_starts_so() {
        let (_place, folders) = place(&[
            "ink.safetensors",
            "ink wash.safetensors",
            "xl/fox.safetensors",
            "xl/peft/adapter_config.json",
            "xl/peft/adapter_model.safetensors",
            "notes.txt",
        ]);
        assert_eq!(folders.names(), ["ink", "ink wash", "xl/fox", "xl/peft"]);
        for (name, file) in [
            ("ink", "ink.safetensors"),
            ("ink.safetensors", "ink.safetensors"),
            ("ink w", "ink wash.safetensors"),
            ("fox", "xl/fox.safetensors"),
            ("f", "xl/fox.safetensors"),
            ("xl/fox", "xl/fox.safetensors"),
            ("xl\\fox", "xl/fox.safetensors"),
            ("peft", "xl/peft"),
        ] {
            let found = folders.find(name).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(found.ends_with(file), "{name}: {}", found.display());
        }
    }

    #[test]
    fn what_is_not_clear_is_told() {
        let (_place, folders) = place(&["a/fox.safetensors", "b/fox.safetensors", "foxglove.safetensors"]);
        for name in ["fox", "fo"] {
            let error = folders.find(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("a/fox, b/fox"), "{error}");
        }
        assert!(folders.find("a/").unwrap().ends_with("a/fox.safetensors"));
        let error = folders.find("foxy").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("nearest: ") && error.to_string().contains("foxglove"), "{error}");
        for name in ["", "..", "../outside", "/etc/passwd"] {
            assert_eq!(folders.find(name).unwrap_err().kind(), ErrorKind::NotFound, "{name:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_folder_is_not_there() {
        let (place, folders) = place(&["one.safetensors"]);
        fs::write(place.path().join("outside.safetensors"), b"").unwrap();
        let link = place.path().join("loras/link.safetensors");
        std::os::unix::fs::symlink(place.path().join("outside.safetensors"), link).unwrap();
        assert_eq!(folders.names(), ["one"]);
    }
}
