//! Latents, pictures, conditionings, features, prepared prompts and steps of a sampler as `.safetensors` files. Enters: a
//! path, or values. Leaves: values with what the file says about them, or a file. Knows no model.

mod conditioning;
mod features;
mod latent;
mod step;
mod vlm_input;
mod write;

pub use conditioning::{Named, read_tokens, write_conditionings};
pub use features::{read_pixel_values, write_features};
pub use latent::{LatentFile, LatentSource, read_latent, write_latent};
pub use step::{StepFile, read_steps, write_predictions};
pub use vlm_input::{PreparedPictures, PreparedPrompt, read_vlm_input};
pub use write::{Tensor, half_bytes, to_bytes};

use luna_core::{
    Error, ErrorKind, Image, Limits, Result,
    checkpoint::{Checkpoint, TensorView},
    files::{IfExists, write_atomically},
};
use std::{collections::BTreeMap, path::Path};

/// The name of pictures in a tensor file: f32, `[batch, height, width, 3]`, 0..1.
const IMAGE: &str = "image";

/// Whether a path means a tensor file rather than a picture file.
pub fn is_tensor_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors"))
}

/// Reads `image`.
///
/// # Errors
/// As [`Checkpoint::open`]; `Unsupported` if there is no `image`, `InvalidInput` for a wrong shape.
pub fn read_image(path: &Path) -> Result<Image> {
    let checkpoint = Checkpoint::open(path, &Limits::default())?;
    let view = checkpoint
        .tensor(IMAGE)
        .ok_or_else(|| lacks(&checkpoint, "picture", "`image`, f32 [batch, height, width, 3]"))?;
    let shape = shape_of_4(&view, "[batch, height, width, 3]").map_err(|error| error.at(path.display()))?;
    Image::new(shape, view.to_f32()?).map_err(|error| error.at(path.display()))
}

/// Writes `image`.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_image(path: &Path, image: &Image, model: &str, if_exists: IfExists) -> Result<()> {
    let tensor = Tensor { name: IMAGE.to_owned(), shape: image.shape().to_vec(), values: image.data() };
    let metadata = BTreeMap::from([("model".to_owned(), model.to_owned())]);
    write_atomically(path, &to_bytes(&[tensor], &metadata), if_exists).map(drop)
}

fn lacks(checkpoint: &Checkpoint, what: &str, expected: &str) -> Error {
    let names: Vec<_> = checkpoint.tensors().map(|tensor| format!("`{}`", tensor.name)).take(4).collect();
    let more = checkpoint.tensors().len().saturating_sub(names.len());
    let error = Error::new(ErrorKind::Unsupported, format!("this file holds no {what}"))
        .at(checkpoint.path().display())
        .expected(format!("a tensor {expected}"))
        .remedy("`luna-cli inspect` shows what the file holds");
    match (names.is_empty(), more) {
        (true, _) => error.found("no tensors"),
        (false, 0) => error.found(names.join(", ")),
        (false, more) => error.found(format!("{} and {more} more", names.join(", "))),
    }
}

fn shape_of_4(view: &TensorView, expected: &str) -> Result<[usize; 4]> {
    view.shape.try_into().map_err(|_| {
        Error::new(ErrorKind::InvalidInput, format!("`{}` has a wrong shape", view.name))
            .expected(expected)
            .found(format!("{:?}", view.shape))
    })
}

#[cfg(test)]
mod tests;
