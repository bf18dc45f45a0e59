//! Luna keeps **one frozen copy of each model and serves many callers from it**.
#![deny(unsafe_code)]

mod device;
mod error;
pub mod files;
pub mod limits;
pub mod picture;
mod values;

pub use device::{Device, Precision};
pub use error::{Error, ErrorKind, Result};
pub use limits::Limits;
pub use values::Image;
