//! Shape-checked values that go in and out of models. They know no file format, no model and no device.

mod conditioning;
mod image;
mod latent;

pub use conditioning::{Conditioning, PictureSizes};
pub use image::Image;
pub use latent::{Latent, LatentScale};
