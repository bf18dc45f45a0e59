//! Model files → named raw tensors. Enters: a path or bytes. Leaves: names, shapes, dtypes and mapped bytes, and
//! what the names say about the architecture. This room knows no layer and no device.
//!
//! Only the header of a file is read to recognise it; weights are mapped and touched when a model is built.

mod bytes;
pub(crate) mod dialect;
mod element;
mod folder;
mod foreign;
mod gguf;
mod header;
mod mmap;
mod projector;
mod recognise;

pub use element::ElementType;
#[cfg(target_os = "linux")]
pub(crate) use mmap::SharedMap;
pub(crate) use projector::fitting as fitting_projectors;
pub use recognise::{Component, ComponentKind, Dialect, Family, Nearest, Recognition};

use crate::{Error, ErrorKind, Limits, Result};
use bytes::FileBytes;
use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// An opened model file (safetensors or GGUF), sharded set of files, or diffusers folder.
///
/// ```no_run
/// use luna_core::{Limits, checkpoint::Checkpoint};
/// let checkpoint = Checkpoint::open("sd_xl_base.safetensors", &Limits::default())?;
/// for tensor in checkpoint.tensors() {
///     let _ = (tensor.name, tensor.element, tensor.shape);
/// }
/// let what = checkpoint.recognise();
/// # Ok::<(), luna_core::Error>(())
/// ```
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<Arc<FileBytes>>,
    tensors: BTreeMap<String, Entry>,
    configs: BTreeMap<String, serde_json::Value>,
    metadata: BTreeMap<String, String>,
    /// Lists among the metadata, each with the number of its file.
    lists: BTreeMap<String, (usize, gguf::List)>,
}

/// Where a tensor lies.
struct Entry {
    file: usize,
    element: ElementType,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// One tensor as the file stores it.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Its stored name.
    pub name: &'a str,
    /// The stored element type.
    pub element: ElementType,
    /// Row-major shape.
    pub shape: &'a [usize],
    /// Little-endian bytes, not aligned.
    pub bytes: &'a [u8],
}

impl TensorView<'_> {
    /// The elements in f32, row-major; quantised ones widened.
    ///
    /// # Errors
    /// `Unsupported` for whole numbers.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        if self.element == ElementType::F64 {
            return Ok(self.bytes.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes) as f32).collect());
        }
        let dtype = self.element.kernel().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("`{}` has an unfit element type", self.name))
                .expected("a type of real numbers, such as F32, F16 or BF16")
                .found(self.element.name())
        })?;
        let view = luna_kernels::WeightView { dtype, bytes: self.bytes };
        let mut values = vec![0.0; view.len()];
        luna_kernels::convert_weights(view, &mut values, &luna_kernels::Context::new(&luna_kernels::Workspace::new()));
        Ok(values)
    }
}

/// Refuses a path that is empty, which no system has a file at.
pub(crate) fn check_path(path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "the path is empty").remedy("give that of a file or folder"));
    }
    Ok(())
}

impl Checkpoint {
    /// Opens a `.safetensors` or `.gguf` file, a `.safetensors.index.json` of a sharded model, a folder with `config.json` and
    /// weights as `save_pretrained` writes it, or a whole diffusers pipeline folder with `model_index.json`, whose
    /// sub-folders become prefixes (`vae.`, `text_encoder.`, `unet.`).
    ///
    /// # Errors
    /// `InvalidInput` for an empty path, `NotFound` and `Io` from the system, `InvalidFile` for a damaged or hostile
    /// file, `Unsupported` for another format (with how to convert it), `LimitExceeded` above `limits`.
    pub fn open(path: impl AsRef<Path>, limits: &Limits) -> Result<Self> {
        let path = path.as_ref();
        check_path(path)?;
        let at = |error: Error| error.at(path.display());
        let metadata = std::fs::metadata(path).map_err(|e| Error::io(format!("open {}", path.display()), e))?;
        let mut checkpoint = Self::empty(path);
        if metadata.is_dir() {
            folder::read(&mut checkpoint, path, limits).map_err(at)?;
        } else if folder::is_index(path) {
            folder::read_index(&mut checkpoint, path, "", limits).map_err(at)?;
        } else if !folder::read_taesd_pair(&mut checkpoint, path, limits).map_err(at)? {
            checkpoint.add_file(path, "", limits).map_err(at)?;
            projector::add_beside(&mut checkpoint, path, limits)?;
        }
        Ok(checkpoint)
    }

    /// As [`Checkpoint::open`], with the vision part of a GGUF language model in a file of its own (`mmproj-*.gguf`),
    /// wherever it lies. [`Checkpoint::open`] takes the one beside the language model, where only one there fits it.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; `InvalidInput` if the files do not belong together.
    pub fn open_with_projector(path: impl AsRef<Path>, projector: impl AsRef<Path>, limits: &Limits) -> Result<Self> {
        projector::open(path.as_ref(), projector.as_ref(), limits)
    }

    /// A checkpoint held in memory, such as the embedded default model; `name` stands for the path in errors.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] for a damaged file.
    pub fn from_bytes(name: &str, bytes: impl Into<std::borrow::Cow<'static, [u8]>>, limits: &Limits) -> Result<Self> {
        let mut checkpoint = Self::empty(Path::new(name));
        checkpoint.add_bytes(FileBytes::Memory(bytes.into()), "", limits).map_err(|error| error.at(name))?;
        Ok(checkpoint)
    }

    fn empty(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
            configs: BTreeMap::new(),
            metadata: BTreeMap::new(),
            lists: BTreeMap::new(),
        }
    }

    fn add_file(&mut self, path: &Path, prefix: &str, limits: &Limits) -> Result<()> {
        self.add_bytes(mmap::map(path)?, prefix, limits)
    }

    fn add_bytes(&mut self, bytes: FileBytes, prefix: &str, limits: &Limits) -> Result<()> {
        let header = header::read(&bytes, limits)?;
        let file = self.files.len();
        for (name, tensor) in header.tensors {
            let name = format!("{prefix}{name}");
            let entry = Entry { file, element: tensor.element, shape: tensor.shape, range: tensor.range };
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(Error::new(ErrorKind::InvalidFile, format!("tensor `{name}` is in two shards")));
            }
        }
        crate::limits::check_at_most("tensors in a checkpoint", self.tensors.len() as u64, limits.tensors as u64)?;
        if let Some(config) = header.config {
            add_config(self.configs.entry(prefix.to_owned()).or_insert_with(|| serde_json::json!({})), config);
        }
        // Of several files the first says what they are.
        for (key, value) in header.metadata {
            self.metadata.entry(key).or_insert(value);
        }
        for (key, list) in header.lists {
            self.lists.entry(key).or_insert((file, list));
        }
        self.files.push(Arc::new(bytes));
        Ok(())
    }

    /// The path it was opened from, or the name it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = TensorView<'_>> {
        self.tensors.iter().map(|(name, entry)| self.view(name, entry))
    }

    /// The tensor with this stored name.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.get_key_value(name).map(|(name, entry)| self.view(name, entry))
    }

    /// The shape of the tensor with this stored name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| &*entry.shape)
    }

    /// The tensor with this stored name, which is read now.
    pub(crate) fn tensor_to_read(&self, name: &str) -> Option<TensorView<'_>> {
        let (name, entry) = self.tensors.get_key_value(name)?;
        self.files[entry.file].read_ahead(entry.range.clone());
        Some(self.view(name, entry))
    }

    /// Says that a tensor will not be read again soon, so that its part of a mapped file need not count as this
    /// process's memory. Reading it again is no fault, only slower.
    pub(crate) fn release(&self, name: &str) {
        if let Some(entry) = self.tensors.get(name) {
            self.files[entry.file].release(entry.range.clone());
        }
    }

    fn view<'a>(&'a self, name: &'a str, entry: &'a Entry) -> TensorView<'a> {
        let bytes = &self.files[entry.file].as_slice()[entry.range.clone()];
        TensorView { name, element: entry.element, shape: &entry.shape, bytes }
    }

    /// The `config.json` beside the weights, or what a GGUF file says in its place; in a pipeline folder, the one of the
    /// component with this prefix.
    pub fn config(&self, prefix: &str) -> Option<&serde_json::Value> {
        self.configs.get(prefix)
    }

    /// How pictures are prepared for this model: the `preprocessor_config.json` beside the weights, or what
    /// `processor_config.json` says of its image processor.
    ///
    /// # Errors
    /// `Io` if a file that is there cannot be read, `InvalidFile` if it is not JSON, `LimitExceeded` if it is too large.
    pub(crate) fn processor(&self, limits: &Limits) -> Result<Option<serde_json::Value>> {
        if let Some(config) = self.json_beside("preprocessor_config.json", limits)? {
            return Ok(Some(config));
        }
        // A GGUF file's own metadata say it in the same place.
        let whole = self.json_beside("processor_config.json", limits)?.or_else(|| self.config("").cloned());
        Ok(whole.and_then(|mut whole| whole.get_mut("image_processor").map(serde_json::Value::take)))
    }

    /// A JSON file of this name in the folder of the weights, where there is one.
    ///
    /// # Errors
    /// As [`Checkpoint::processor`].
    pub(crate) fn json_beside(&self, name: &str, limits: &Limits) -> Result<Option<serde_json::Value>> {
        let folder = if self.path.is_dir() { &*self.path } else { self.path.parent().unwrap_or(Path::new("")) };
        folder::read_json_if_there(&folder.join(name), limits)
    }

    /// The `__metadata__` of a safetensors file; the texts and numbers among a GGUF file's metadata.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// A list of texts among a GGUF file's metadata, of any length.
    pub(crate) fn texts(&self, key: &str) -> Option<Vec<&str>> {
        let (file, list) = self.lists.get(key)?;
        list.texts(self.files[*file].as_slice())
    }

    /// A list of numbers among a GGUF file's metadata, of any length.
    pub(crate) fn numbers(&self, key: &str) -> Option<Vec<f64>> {
        let (file, list) = self.lists.get(key)?;
        list.numbers(self.files[*file].as_slice())
    }

    /// Bytes of all files.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.as_slice().len() as u64).sum()
    }

    /// Which components the names and shapes show.
    pub fn recognise(&self) -> Recognition {
        recognise::recognise(self)
    }

    /// BLAKE3 of the bytes of all files in order: equal for equal bytes, wherever they lie.
    pub fn digest(&self) -> blake3::Hash {
        /// Bytes at a time: work for all threads, while the disk reads the next ones.
        const PIECE: usize = 16 << 20;
        let mut hasher = blake3::Hasher::new();
        for file in &self.files {
            hasher.update(&(file.as_slice().len() as u64).to_le_bytes());
            for (index, piece) in file.as_slice().chunks(PIECE).enumerate() {
                file.read_ahead(index * PIECE..index * PIECE + piece.len());
                hasher.update_rayon(piece);
            }
        }
        hasher.finalize()
    }
}

/// Adds what a config does not say yet.
fn add_config(config: &mut serde_json::Value, more: serde_json::Value) {
    if let (Some(config), serde_json::Value::Object(more)) = (config.as_object_mut(), more) {
        for (name, value) in more {
            config.entry(name).or_insert(value);
        }
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checkpoint({}, {} tensors)", self.path.display(), self.tensors.len())
    }
}

#[cfg(test)]
mod tests;
