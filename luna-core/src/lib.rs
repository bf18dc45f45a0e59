//! Luna keeps **one frozen copy of each model and serves many callers from it**.
#![deny(unsafe_code)]

pub mod checkpoint;
mod device;
mod error;
pub mod limits;
pub mod tokenizer;
mod values;

pub use device::{Device, Precision};
pub use error::{Error, ErrorKind, Result};
pub use limits::Limits;
pub use values::Image;
