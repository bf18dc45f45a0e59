//! Pictures. Enters: a path, or pixels of the caller's. Leaves: pixels of Luna's.

use crate::{
    error::{Result, wrong},
    handle::{Caller, boundary},
    status::luna_status,
    tensor::Tensor,
    types::luna_tensor,
    view::{Floats, Meaning, floats, luna_view},
};
use luna_core::{Image, Limits, limits::check_at_most, picture::read_picture};
use std::{ffi::c_char, path::Path, sync::Arc};

/// A caller's pixels, `[batch, height, width, channels]`, as a picture of Luna's own, and the bytes that were copied.
pub(crate) fn image(caller: &Caller, what: &str, pixels: *const luna_view) -> Result<(Image, u64)> {
    let Floats { shape, values, copied } = floats(caller, what, pixels, Meaning::Pixels)?;
    let sides = <[usize; 4]>::try_from(&shape[..]).map_err(|_| {
        wrong(format!("{what} has a wrong number of dimensions"))
            .expected("[batch, height, width, channels]")
            .found(format!("{shape:?}"))
    })?;
    let copied = copied.max(values.len() as u64 * 4);
    Ok((Image::new(sides, values.into_owned())?, copied))
}

/// Pictures side by side, as [`image`].
pub(crate) fn images(caller: &Caller, list: *const *const luna_view, count: usize) -> Result<(Vec<Image>, u64)> {
    check_at_most("pictures", count as u64, Limits::default().batch as u64)?;
    let views = caller.slice("images", list, count)?;
    let read: Vec<_> = views.iter().map(|&view| image(caller, "an image", view)).collect::<Result<_>>()?;
    let copied = read.iter().map(|(_, copied)| copied).sum();
    Ok((read.into_iter().map(|(image, _)| image).collect(), copied))
}

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
