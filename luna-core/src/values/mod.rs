//! Shape-checked values that go in and out of models. They know no file format, no model and no device.

mod image;

pub use image::Image;
