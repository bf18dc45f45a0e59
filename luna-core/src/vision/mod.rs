//! Vision encoders: pictures to embeddings, equal to transformers' CLIP and SigLIP. Enters: a checkpoint; then pictures,
//! or pixels that were prepared already. Leaves: hidden states, pooled outputs and embeddings. Knows no text and no
//! other model family.
//!
//! A [`VisionModel`] holds the frozen encoder of one file and the [`Preprocessing`] that belongs to it.

mod encoded;
mod model;
mod options;
mod pixels;
mod preprocessing;
mod size;
mod transformer;

pub use encoded::{Encoded, Features};
pub use model::{VisionInfo, VisionModel};
pub use options::{Fallback, VisionActivation, VisionKind, VisionLoadOptions, VisionOptions};
pub use pixels::{PictureView, PixelValues, Region};
pub use preprocessing::{Preprocessing, ResizeRule};
pub(crate) use size::Size;
pub(crate) use transformer::VisionTransformer;
