//! Picture files. Enters: a path. Leaves: pixels.

use crate::{handle::boundary, status::luna_status, tensor::Tensor, types::luna_tensor};
use luna_core::{Limits, picture::read_picture};
use std::{ffi::c_char, path::Path, sync::Arc};

/// Reads a PNG, JPEG or WebP by its content, turned upright as its EXIF says: `[1, height, width, channels]` in 0..1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_picture_read(path: *const c_char, image: *mut luna_tensor) -> luna_status {
    boundary(|caller| {
        let place = caller.output("image", image)?;
        let image = read_picture(Path::new(caller.text("path", path)?), &Limits::default())?;
        place.put(Tensor::Image(Arc::new(image)).open());
        Ok(())
    })
}
