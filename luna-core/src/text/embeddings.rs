//! Textual inversions in folders. Enters: names as they stand in prompts. Leaves: vectors for one encoder, or why there
//! are none. It must not know prompts; nothing outside its folders is ever opened.

use super::kind::EncoderKind;
use crate::{
    Error, ErrorKind, Limits, Result, checkpoint::Checkpoint, limits::check_at_most, nn::StoredTensor,
    tokenizer::EmbeddingLookup,
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// Folders looked through below the given ones.
const MOST_FOLDERS: usize = 10_000;

/// The folders that `embedding:name` is looked up in, with all folders below them.
#[derive(Debug, Clone, Default)]
pub struct EmbeddingFolders {
    /// Without links and dots.
    roots: Vec<PathBuf>,
    limits: Limits,
}

/// Why a textual inversion that a prompt names was left out, for one encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EmbeddingProblem {
    /// There is no such file in the folders; nothing stands in its place.
    Missing {
        /// As the prompt has it.
        name: String,
        /// The encoder it was wanted for.
        encoder: EncoderKind,
    },
    /// The file cannot be used; nothing stands in its place.
    Unreadable {
        /// As the prompt has it.
        name: String,
        /// The encoder it was wanted for.
        encoder: EncoderKind,
        /// What is wrong with it.
        reason: String,
    },
    /// Its vectors are not as long as the encoder's; as in ComfyUI padding at the end of the chunk stands in for them.
    WrongWidth {
        /// As the prompt has it.
        name: String,
        /// The encoder it was wanted for.
        encoder: EncoderKind,
        /// What the encoder takes.
        expected: usize,
        /// What the file has.
        found: usize,
    },
}

impl EmbeddingProblem {
    /// A stable name in snake case.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Unreadable { .. } => "unreadable",
            Self::WrongWidth { .. } => "wrong_width",
        }
    }

    /// The name in the prompt.
    pub fn name(&self) -> &str {
        match self {
            Self::Missing { name, .. } | Self::Unreadable { name, .. } | Self::WrongWidth { name, .. } => name,
        }
    }

    /// The encoder that does without it.
    pub fn encoder(&self) -> EncoderKind {
        match self {
            Self::Missing { encoder, .. } | Self::Unreadable { encoder, .. } | Self::WrongWidth { encoder, .. } => {
                *encoder
            }
        }
    }
}

impl fmt::Display for EmbeddingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "embedding `{}` left out for {}: ", self.name(), self.encoder())?;
        match self {
            Self::Missing { .. } => f.write_str("there is no such file in the embedding folders"),
            Self::Unreadable { reason, .. } => f.write_str(reason),
            Self::WrongWidth { expected, found, .. } => {
                write!(f, "its vectors have {found} values, the encoder's {expected}")
            }
        }
    }
}

/// The vectors of a textual inversion for one encoder.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Inversion {
    pub(super) width: usize,
    pub(super) rows: Vec<Arc<[f32]>>,
}

impl EmbeddingFolders {
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
                .expected("a folder of textual inversions"))
        };
        Ok(Self { roots: roots.into_iter().map(real).collect::<Result<_>>()?, limits: Limits::default() })
    }

    /// Replaces the caps on files.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The textual inversions that an encoder finds here, for tokenizing without the encoder.
    ///
    /// ```
    /// use luna_core::{text::{EmbeddingFolders, EncoderKind}, tokenizer::EmbeddingLookup};
    /// let folders = EmbeddingFolders::new([std::env::temp_dir()])?;
    /// assert_eq!(folders.lookup(EncoderKind::ClipL).rows("no such embedding"), None);
    /// # Ok::<(), luna_core::Error>(())
    /// ```
    pub fn lookup(&self, encoder: EncoderKind) -> impl EmbeddingLookup {
        Shelf::new(Some(self), encoder)
    }

    /// The file of this name: as it stands, or with the extension that weights usually have.
    fn find(&self, name: &str) -> Option<PathBuf> {
        let relative = Path::new(name);
        let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if name.is_empty() || name.contains('\0') || !relative.components().all(plain) {
            return None;
        }
        self.roots.iter().find_map(|root| {
            folders(root).into_iter().find_map(|folder| {
                let stem = folder.join(relative);
                let with = |extension: &str| {
                    let mut path = stem.clone().into_os_string();
                    path.push(extension);
                    PathBuf::from(path)
                };
                let candidates = ["", ".safetensors", ".pt", ".bin"].map(with);
                let file = candidates.into_iter().find(|path| path.is_file())?.canonicalize().ok()?;
                // A link may lead out of the folder.
                file.starts_with(root).then_some(file)
            })
        })
    }

    /// Reads the vectors that a file has for an encoder.
    fn read(&self, path: &Path, encoder: EncoderKind) -> Result<Inversion> {
        if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors")) {
            return Err(Error::new(ErrorKind::Unsupported, "it is no safetensors file")
                .remedy("convert the pickle to safetensors"));
        }
        let file = Checkpoint::open(path, &self.limits)?;
        let named = |name: &str| file.tensor(name);
        let parameters = || file.tensors().find(|tensor| tensor.name.contains("string_to_param"));
        let tensor = named(encoder.embedding_key())
            .or_else(|| named("emb_params"))
            .or_else(parameters)
            .or_else(|| file.tensors().next())
            .ok_or_else(|| Error::new(ErrorKind::InvalidFile, "the file holds no tensor"))?;
        let (count, width) = match *tensor.shape {
            [width] => (1, width),
            [count, width] => (count, width),
            _ => (0, 0),
        };
        if count == 0 || width == 0 {
            return Err(Error::new(ErrorKind::InvalidFile, format!("`{}` holds no vectors", tensor.name))
                .expected("[vectors, channels]")
                .found(format!("{:?}", tensor.shape)));
        }
        check_at_most("vectors in an embedding", count as u64, self.limits.prompt_tokens as u64)?;
        if !tensor.element.is_float() {
            return Err(Error::new(ErrorKind::InvalidFile, format!("`{}` is not of a float type", tensor.name))
                .found(tensor.element.name()));
        }
        let values = StoredTensor::of(tensor).to_f32();
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::new(ErrorKind::NonFinite, "the file holds values that are NaN or infinite"));
        }
        Ok(Inversion { width, rows: values.chunks_exact(width).map(Arc::from).collect() })
    }
}

/// A folder and all below it, in the order of their names.
fn folders(root: &Path) -> Vec<PathBuf> {
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

/// What one encoder finds in the folders while one prompt is read. Every name is looked up once.
pub(super) struct Shelf<'a> {
    folders: Option<&'a EmbeddingFolders>,
    encoder: EncoderKind,
    found: RefCell<BTreeMap<String, std::result::Result<Inversion, Option<String>>>>,
}

impl<'a> Shelf<'a> {
    pub(super) fn new(folders: Option<&'a EmbeddingFolders>, encoder: EncoderKind) -> Self {
        Self { folders, encoder, found: RefCell::default() }
    }

    fn look_up(&self, name: &str) -> std::result::Result<Inversion, Option<String>> {
        let folders = self.folders.ok_or(None)?;
        let path = folders.find(name).ok_or(None)?;
        folders.read(&path, self.encoder).map_err(|error| Some(error.to_string()))
    }

    /// What was found, by name, and what is wrong with what was not, or does not fit vectors of `width`.
    pub(super) fn close(
        self,
        missing: &[String],
        width: usize,
    ) -> (BTreeMap<String, Inversion>, Vec<EmbeddingProblem>) {
        let encoder = self.encoder;
        let found = self.found.into_inner();
        let mut problems: Vec<_> = missing
            .iter()
            .map(|name| match found.get(name) {
                Some(Err(Some(reason))) => {
                    EmbeddingProblem::Unreadable { name: name.clone(), encoder, reason: reason.clone() }
                }
                _ => EmbeddingProblem::Missing { name: name.clone(), encoder },
            })
            .collect();
        let mut inversions = BTreeMap::new();
        for (name, result) in found {
            let Ok(inversion) = result else { continue };
            if inversion.width != width {
                let (name, found) = (name.clone(), inversion.width);
                problems.push(EmbeddingProblem::WrongWidth { name, encoder, expected: width, found });
            }
            inversions.insert(name, inversion);
        }
        (inversions, problems)
    }
}

impl EmbeddingLookup for Shelf<'_> {
    fn rows(&self, name: &str) -> Option<usize> {
        let mut found = self.found.borrow_mut();
        let entry = found.entry(name.to_owned()).or_insert_with(|| self.look_up(name));
        entry.as_ref().ok().map(|inversion| inversion.rows.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A safetensors file of f32 tensors.
    fn file(path: &Path, tensors: &[(&str, &[usize], &[f32])]) {
        let bytes: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
            .collect();
        let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
            let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).unwrap();
            (*name, view)
        });
        fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    fn rows(folders: &EmbeddingFolders, encoder: EncoderKind, name: &str) -> Option<usize> {
        Shelf::new(Some(folders), encoder).rows(name)
    }

    #[test]
    fn files_are_found_by_name_below_the_folders_and_nowhere_else() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("embeddings");
        fs::create_dir_all(root.join("below/deep")).unwrap();
        file(&root.join("one.safetensors"), &[("emb_params", &[2, 3], &[0.0; 6])]);
        file(&root.join("below/deep/two.safetensors"), &[("emb_params", &[3], &[0.0; 3])]);
        file(&place.path().join("outside.safetensors"), &[("emb_params", &[1, 3], &[0.0; 3])]);
        let folders = EmbeddingFolders::new([&root]).unwrap();
        for (name, expected) in [
            ("one", Some(2)),
            ("one.safetensors", Some(2)),
            ("two", Some(1)),
            ("deep/two", Some(1)),
            ("./one", Some(2)),
            ("", None),
            (".", None),
            ("..", None),
            ("outside", None),
            ("../outside", None),
            ("below/../../outside", None),
            ("one\0", None),
            (place.path().join("outside").to_str().unwrap(), None),
        ] {
            assert_eq!(rows(&folders, EncoderKind::ClipL, name), expected, "{name:?}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(place.path().join("outside.safetensors"), root.join("link.safetensors"))
                .unwrap();
            assert_eq!(rows(&folders, EncoderKind::ClipL, "link"), None);
        }
    }

    #[test]
    fn each_encoder_takes_its_own_vectors() {
        let place = tempfile::tempdir().unwrap();
        file(&place.path().join("xl.safetensors"), &[("clip_g", &[2, 4], &[0.0; 8]), ("clip_l", &[1, 3], &[0.0; 3])]);
        file(&place.path().join("old.safetensors"), &[("string_to_param.*", &[5, 3], &[0.0; 15])]);
        let folders = EmbeddingFolders::new([place.path()]).unwrap();
        assert_eq!(rows(&folders, EncoderKind::ClipG, "xl"), Some(2));
        assert_eq!(rows(&folders, EncoderKind::ClipL, "xl"), Some(1));
        assert_eq!(rows(&folders, EncoderKind::ClipL, "old"), Some(5));
    }

    #[test]
    fn files_that_cannot_be_used_are_reported_with_the_reason() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("pickle.pt"), b"\x80\x02").unwrap();
        fs::write(place.path().join("broken.safetensors"), b"nonsense").unwrap();
        file(&place.path().join("nan.safetensors"), &[("emb_params", &[1, 3], &[f32::NAN; 3])]);
        file(&place.path().join("cube.safetensors"), &[("emb_params", &[1, 1, 3], &[0.0; 3])]);
        file(&place.path().join("wide.safetensors"), &[("emb_params", &[1, 4], &[0.0; 4])]);
        let folders = EmbeddingFolders::new([place.path()]).unwrap();
        let shelf = Shelf::new(Some(&folders), EncoderKind::ClipL);
        let names = ["pickle", "broken", "nan", "cube", "none"].map(str::to_owned);
        assert!(names.iter().all(|name| shelf.rows(name).is_none()));
        assert_eq!(shelf.rows("wide"), Some(1));
        let (found, problems) = shelf.close(&names, 3);
        assert_eq!(found.len(), 1);
        let said: Vec<String> = problems.iter().map(EmbeddingProblem::to_string).collect();
        for (said, part) in
            said.iter().zip(["convert the pickle", "broken", "NaN", "[1, 1, 3]", "no such file", "4 values"])
        {
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn a_root_must_be_a_folder() {
        assert_eq!(EmbeddingFolders::new(["/no/such/folder"]).unwrap_err().kind(), ErrorKind::NotFound);
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(EmbeddingFolders::new([file.path()]).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
