//! Shape-checked values that go in and out of models. They know no file format, no model and no device.

mod array;
mod conditioning;
mod image;
mod latent;
mod prediction;

pub use array::ArrayView;
pub use conditioning::{Conditioning, PictureSizes};
pub use image::{Image, ImageView};
pub use latent::{Latent, LatentScale, LatentView};
pub use prediction::Prediction;
