//! Paths from clients. Enters: a path as a client wrote it. Leaves: a real path below one of the configured folders, after
//! symbolic links are resolved, or a refusal that tells nothing about what lies elsewhere.

use luna_core::{
    Error, ErrorKind, Result,
    protocol::{Fault, Reason},
};
use std::path::{Path, PathBuf};

/// Folders that clients may name files of.
#[derive(Debug, Default)]
pub struct Roots(Vec<PathBuf>);

impl Roots {
    /// These folders, as they are now.
    ///
    /// # Errors
    /// `NotFound` for a folder that is missing.
    pub fn new(folders: &[PathBuf]) -> Result<Self> {
        let real = |folder: &PathBuf| {
            let real = folder.canonicalize();
            real.map_err(|error| Error::io(format!("open the folder {}", folder.display()), error))
        };
        folders.iter().map(real).collect::<Result<_>>().map(Self)
    }

    /// The real path of what a client named: an absolute path, or one below a root.
    ///
    /// # Errors
    /// `denied` for anything that does not lie below a root; `not_found` below a root.
    pub fn resolve(&self, text: &str) -> Result<PathBuf, Fault> {
        let path = Path::new(text);
        let candidates: Vec<_> = if path.is_absolute() {
            vec![path.to_owned()]
        } else {
            self.0.iter().map(|root| root.join(path)).collect()
        };
        for candidate in &candidates {
            match candidate.canonicalize() {
                Ok(real) if self.0.iter().any(|root| real.starts_with(root)) => return Ok(real),
                // Whether a file exists elsewhere is nobody's business.
                _ => {}
            }
        }
        // A path without `..` that begins with a root stays below it unless a link leads out.
        let within = |path: &PathBuf| {
            let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
            plain && !path.exists() && self.0.iter().any(|root| path.starts_with(root))
        };
        if candidates.iter().any(within) {
            return Err(Error::new(ErrorKind::NotFound, "no such file below the daemon's model roots")
                .found(format!("`{text}`"))
                .into());
        }
        let error = Error::new(ErrorKind::InvalidInput, "the path does not lie below one of the daemon's model roots")
            .found(format!("`{text}`"))
            .remedy("start the daemon with `--model-root FOLDER`, or upload the model");
        Err(Fault::because(Reason::Denied, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn reason(outcome: Result<PathBuf, Fault>) -> Option<Reason> {
        outcome.expect_err("this must be refused").reason
    }

    #[test]
    fn only_what_lies_below_a_root_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let (inside, outside) = (base.join("models"), base.join("models-of-others"));
        for folder in [&inside, &outside] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("vae"), b"x").unwrap();
        }
        let roots = Roots::new(std::slice::from_ref(&inside)).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        assert_eq!(roots.resolve("vae").unwrap(), inside.join("vae"));
        assert_eq!(roots.resolve(&text(&inside.join("vae"))).unwrap(), inside.join("vae"));
        assert_eq!(roots.resolve("none").unwrap_err().kind(), ErrorKind::NotFound);
        for hostile in ["../models-of-others/vae", "../none", "/etc/passwd", "", "vae\0"] {
            let refused = roots.resolve(hostile);
            if hostile.is_empty() {
                // The root itself is a folder below itself.
                assert_eq!(refused.unwrap(), inside);
            } else if !hostile.contains('\0') {
                assert_eq!(reason(refused), Some(Reason::Denied), "{hostile:?}");
            } else {
                assert!(refused.is_err());
            }
        }
        assert_eq!(reason(roots.resolve(&text(&outside.join("vae")))), Some(Reason::Denied));
        assert_eq!(reason(Roots::default().resolve(&text(&inside.join("vae")))), Some(Reason::Denied));
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_out_are_refused_and_links_within_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let inside = base.join("models");
        fs::create_dir(&inside).unwrap();
        fs::write(base.join("secret"), b"x").unwrap();
        fs::write(inside.join("vae"), b"x").unwrap();
        std::os::unix::fs::symlink(base.join("secret"), inside.join("out")).unwrap();
        std::os::unix::fs::symlink(&base, inside.join("up")).unwrap();
        std::os::unix::fs::symlink(inside.join("vae"), inside.join("same")).unwrap();
        let roots = Roots::new(std::slice::from_ref(&inside)).unwrap();
        assert_eq!(reason(roots.resolve("out")), Some(Reason::Denied));
        assert_eq!(reason(roots.resolve("up/secret")), Some(Reason::Denied));
        assert_eq!(roots.resolve("same").unwrap(), inside.join("vae"));
    }
}
