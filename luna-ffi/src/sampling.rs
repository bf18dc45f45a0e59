//! What samplers need beside a model's steps. Enters: names of samplings, numbers of steps, pooled text. Leaves: the
//! first-block cache emptied, noise levels, and what a denoiser takes as `y`.

use crate::{
    daemon::not_remote,
    error::{Result, wrong},
    handle::{Caller, boundary, object},
    model::LoadedModel,
    session::Session,
    status::luna_status,
    tensor::Tensor,
    types::{luna_model, luna_session, luna_tensor},
    view::{Floats, Meaning, floats, luna_view},
};
use luna_core::{Conditioning, PictureSizes, diffusion::NoiseLevel, limits::check_at_most};
use std::{ffi::c_char, sync::Arc};

crate::handle::records!(luna_picture_sizes);
crate::handle::plain!(luna_noise_level);

/// The sizes that SDXL's denoiser is told beside the pooled text.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_picture_sizes {
    /// `sizeof(luna_picture_sizes)`.
    pub size: usize,
    /// Width of the picture before cropping.
    pub width: u32,
    /// Height of the picture before cropping.
    pub height: u32,
    /// Columns that were cropped at the left.
    pub crop_left: u32,
    /// Rows that were cropped at the top.
    pub crop_top: u32,
    /// Width of the picture that is made; 0 for `width`.
    pub target_width: u32,
    /// Height of the picture that is made; 0 for `height`.
    pub target_height: u32,
}

/// A timestep of Stable Diffusion 1.x, 2.x and SDXL, and how much noise stands in the latent there.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_noise_level {
    /// What `luna_model_forward` takes, 0 to 999.
    pub timestep: f32,
    /// Standard deviation of the noise, where that of the latent is 1. The network sees the latent divided by
    /// `sqrt(1 + sigma * sigma)`.
    pub sigma: f32,
}

fn sizes(caller: &Caller, given: *const luna_picture_sizes) -> Result<Option<PictureSizes>> {
    if given.is_null() {
        return Ok(None);
    }
    let luna_picture_sizes { width, height, crop_left, crop_top, target_width, target_height, .. } =
        caller.options(given)?;
    let or = |number: u32, usual: u32| if number == 0 { usual } else { number };
    Ok(Some(PictureSizes {
        width,
        height,
        crop_w: crop_left,
        crop_h: crop_top,
        target_width: or(target_width, width),
        target_height: or(target_height, height),
    }))
}

/// A conditioning of nothing but pooled text.
fn conditioning(pooled: Floats, sizes: Option<PictureSizes>) -> Result<Conditioning> {
    let [batch, _] = pooled.shape[..] else {
        return Err(wrong("the pooled text has a wrong number of dimensions")
            .expected("[batch, width]")
            .found(format!("{:?}", pooled.shape))
            .into());
    };
    let empty = Conditioning::new([batch, 1, 1], vec![0.0; batch])?;
    Ok(empty.with_pooled(pooled.values.into_owned())?.with_sizes(sizes))
}

/// Makes the `y` of a denoiser from pooled text, `[batch, width]`: the pooled text for Flux; for SDXL the pooled text with
/// the sines and cosines of the sizes, as ComfyUI embeds them. `y` is all zero for a model that takes none. `sizes` may be
/// NULL for a model that is told none. Not for a daemon's models.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_model_pooled(
    model: luna_model,
    pooled: *const luna_view,
    sizes: *const luna_picture_sizes,
    y: *mut luna_tensor,
) -> luna_status {
    boundary(|caller| {
        let place = caller.output("y", y)?;
        let (model, sizes) = (object::<LoadedModel>(model)?, self::sizes(caller, sizes)?);
        let denoiser = model.here().ok_or_else(|| not_remote("a denoiser's `y`"))?;
        let pooled = floats(caller, "pooled", pooled, Meaning::Numbers)?;
        let made = denoiser.pooled(&conditioning(pooled, sizes)?)?;
        place.put(made.map_or(luna_tensor::NONE, |made| Tensor::Vectors(Arc::new(made)).open()));
        Ok(())
    })
}

/// The noise levels of so many steps, evenly from timestep 999 to 0, and behind them the end without noise: `steps + 1`
/// places. For UNets of Stable Diffusion; ComfyUI's schedule "normal".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_noise_levels(steps: usize, levels: *mut luna_noise_level) -> luna_status {
    boundary(|caller| {
        check_at_most("steps", steps as u64, MOST_STEPS)?;
        let places = caller.outputs("levels", levels, steps + 1)?;
        for (place, NoiseLevel { timestep, sigma }) in places.into_iter().zip(NoiseLevel::schedule(steps)) {
            place.put(luna_noise_level { timestep, sigma });
        }
        Ok(())
    })
}

/// More steps than there are timesteps would repeat them.
const MOST_STEPS: u64 = 1000;

/// Drops what the first-block cache keeps of samplings whose names start so, and tells how many there were. `dropped` may
/// be NULL. A daemon drops a client's with its last connection.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_steps_forget(
    session: luna_session,
    prefix: *const c_char,
    dropped: *mut usize,
) -> luna_status {
    boundary(|caller| {
        let session = object::<Session>(session)?;
        let prefix = caller.text("prefix", prefix)?;
        let place = if dropped.is_null() { None } else { Some(caller.output("dropped", dropped)?) };
        let count = session.here("dropping samplings one by one")?.steps.forget_all(prefix);
        place.into_iter().for_each(|place| place.put(count));
        Ok(())
    })
}
