//! Pixel values in, features out: what `vision` reads and writes.

use super::{Tensor, shape_of_4, to_bytes};
use luna_core::{
    Limits, Result,
    checkpoint::Checkpoint,
    files::{IfExists, write_atomically},
    vision::{Features, PixelValues},
};
use std::{collections::BTreeMap, path::Path};

/// The name that transformers' processors give to prepared pictures.
pub const PIXEL_VALUES: &str = "pixel_values";

/// Reads `pixel_values`, f32 `[batch, 3, height, width]`, where the file holds them.
///
/// # Errors
/// As [`Checkpoint::open`]; `InvalidInput` for a wrong shape.
pub fn read_pixel_values(path: &Path) -> Result<Option<PixelValues>> {
    let checkpoint = Checkpoint::open(path, &Limits::default())?;
    let Some(view) = checkpoint.tensor(PIXEL_VALUES) else { return Ok(None) };
    let shape = shape_of_4(&view, "[batch, 3, height, width]").map_err(|error| error.at(path.display()))?;
    PixelValues::new(shape, view.to_f32()?).map(Some).map_err(|error| error.at(path.display()))
}

/// Writes features under their names.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_features(path: &Path, features: &[(&str, &Features)], model: &str, if_exists: IfExists) -> Result<()> {
    let tensors: Vec<Tensor> = features
        .iter()
        .map(|(name, features)| Tensor {
            name: (*name).to_owned(),
            shape: features.shape().to_vec(),
            values: features.data(),
        })
        .collect();
    let metadata = BTreeMap::from([("model".to_owned(), model.to_owned())]);
    write_atomically(path, &to_bytes(&tensors, &metadata), if_exists).map(drop)
}
