//! Latent files: `latent`, f32 `[batch, channels, height, width]`, with what a sampler must know as metadata. Also
//! reads what ComfyUI's SaveLatent writes.

use super::{Tensor, lacks, shape_of_4, to_bytes};
use luna_core::{
    Error, ErrorKind, Latent, LatentScale, Limits, Result,
    checkpoint::Checkpoint,
    files::{IfExists, write_atomically},
};
use std::{collections::BTreeMap, path::Path};

const LATENT: &str = "latent";
const COMFYUI: &str = "latent_tensor";
/// SaveLatent adds this empty tensor since it writes unscaled latents; before, they were scaled for SD1.x.
const COMFYUI_UNSCALED: &str = "latent_format_version_0";
/// The names that a latent may have, in the order they are looked for.
const NAMES: [&str; 3] = [LATENT, "samples", COMFYUI];

/// A latent and where it was found.
#[derive(Debug)]
pub struct LatentFile {
    pub latent: Latent,
    pub source: LatentSource,
}

impl LatentFile {
    /// States the factors that apply.
    pub fn rescale(&mut self, scale: Option<LatentScale>) {
        self.latent = self.latent.clone().with_scale(scale, self.source.scaled);
    }
}

/// What a latent file says about its latent.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentSource {
    /// The tensor's name in the file.
    pub tensor: &'static str,
    pub shape: Vec<usize>,
    /// The VAE that made it, where the file tells.
    pub model: Option<String>,
    pub scale: Option<LatentScale>,
    pub scaled: bool,
}

impl LatentSource {
    /// What an opened file says, or nothing if it holds no latent.
    ///
    /// # Errors
    /// `InvalidFile` for metadata that are no numbers.
    pub fn of(checkpoint: &Checkpoint) -> Result<Option<Self>> {
        let Some((tensor, shape)) = NAMES.into_iter().find_map(|name| Some((name, checkpoint.shape(name)?))) else {
            return Ok(None);
        };
        let metadata = checkpoint.metadata();
        let number = |key: &str| match metadata.get(key).map(|text| text.parse::<f32>()) {
            None => Ok(None),
            Some(Ok(number)) if number.is_finite() => Ok(Some(number)),
            Some(_) => Err(wrong(key, &metadata[key], "a finite number").at(checkpoint.path().display())),
        };
        let factors = match (number("scale_factor")?, number("shift_factor")?) {
            (Some(0.0), _) => {
                return Err(wrong("scale_factor", "0", "a number that can divide").at(checkpoint.path().display()));
            }
            (Some(scale), shift) => Some(LatentScale { scale, shift: shift.unwrap_or(0.0) }),
            (None, _) => None,
        };
        let scaled = match metadata.get("scaled").map(String::as_str) {
            None | Some("false") => false,
            Some("true") => true,
            Some(text) => {
                return Err(wrong("scaled", text, "`true` or `false`").at(checkpoint.path().display()));
            }
        };
        let old_comfyui = tensor == COMFYUI && checkpoint.shape(COMFYUI_UNSCALED).is_none();
        let (scale, scaled) = if old_comfyui { (Some(LatentScale::SD15), true) } else { (factors, scaled) };
        Ok(Some(Self { tensor, shape: shape.to_vec(), model: metadata.get("model").cloned(), scale, scaled }))
    }
}

fn wrong(key: &str, found: &str, expected: &str) -> Error {
    Error::new(ErrorKind::InvalidFile, format!("the latent file's metadata `{key}` is wrong"))
        .expected(expected)
        .found(format!("`{found}`"))
}

/// Reads a latent file.
///
/// # Errors
/// As [`Checkpoint::open`]; `Unsupported` if there is no latent in it, `InvalidInput` for a wrong shape,
/// `InvalidFile` for wrong metadata.
pub fn read_latent(path: &Path) -> Result<LatentFile> {
    let checkpoint = Checkpoint::open(path, &Limits::default())?;
    let none = || lacks(&checkpoint, "latent", "`latent` (or `samples`, or ComfyUI's `latent_tensor`)");
    let source = LatentSource::of(&checkpoint)?.ok_or_else(none)?;
    let view = checkpoint.tensor(source.tensor).ok_or_else(none)?;
    let latent = shape_of_4(&view, "[batch, channels, height, width]")
        .and_then(|shape| Latent::new(shape, view.to_f32()?))
        .map_err(|error| error.at(path.display()))?;
    Ok(LatentFile { latent: latent.with_scale(source.scale, source.scaled), source })
}

/// Writes a latent file that says which model made the latent, its factors, and whether they are applied.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_latent(path: &Path, latent: &Latent, model: &str, if_exists: IfExists) -> Result<()> {
    let mut metadata =
        BTreeMap::from([("model".to_owned(), model.to_owned()), ("scaled".to_owned(), latent.is_scaled().to_string())]);
    if let Some(LatentScale { scale, shift }) = latent.scale() {
        metadata.insert("scale_factor".to_owned(), scale.to_string());
        metadata.insert("shift_factor".to_owned(), shift.to_string());
        if let Some(name) = format_name(latent) {
            metadata.insert("latent_format".to_owned(), name.to_owned());
        }
    }
    let tensor = Tensor { name: LATENT.to_owned(), shape: latent.shape().to_vec(), values: latent.data() };
    write_atomically(path, &to_bytes(&[tensor], &metadata), if_exists).map(drop)
}

/// The family whose factors these are, if any's.
fn format_name(latent: &Latent) -> Option<&'static str> {
    let known = [
        ("sd15", LatentScale::SD15),
        ("sdxl", LatentScale::SDXL),
        ("sd3", LatentScale::SD3),
        ("flux", LatentScale::FLUX),
    ];
    known.into_iter().find(|(_, scale)| latent.scale() == Some(*scale)).map(|(name, _)| name)
}
