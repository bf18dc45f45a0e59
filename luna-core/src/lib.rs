//! Luna keeps **one frozen copy of each model and serves many callers from it**.
#![deny(unsafe_code)]

mod attention_mode;
mod call;
pub mod checkpoint;
pub mod client;
pub mod config;
mod device;
pub mod diffusion;
mod error;
pub mod files;
pub mod ipc;
mod layer_times;
pub mod limits;
pub mod lora;
pub mod memory;
mod nn;
pub mod picture;
pub mod pool;
pub mod protocol;
pub mod registry;
mod runtime;
pub mod save;
pub mod text;
pub mod tokenizer;
pub mod vae;
mod values;
pub mod vision;
pub mod vlm;

pub use attention_mode::AttentionMode;
pub use call::{Call, CancelToken, Progress};
pub use device::{Device, Precision};
pub use error::{Error, ErrorKind, Result};
pub use layer_times::{LayerTime, LayerTimes};
pub use limits::Limits;
pub use nn::{LayerRuns, PatchedRuns, Patches};
pub use runtime::Runtime;
pub use values::{
    ArrayView, Conditioning, Image, ImageView, Latent, LatentScale, LatentView, PictureSizes, Prediction,
};
