//! VAEs. Enters: a path; then pictures or latents of the caller's. Leaves: latents or pictures of Luna's.

mod options;

use crate::{
    call::{Log, Watch, watched},
    daemon::{RemoteVae, not_remote},
    error::{Result, wrong},
    handle::{Caller, boundary, free, object},
    options::{LUNA_FALLBACK_TILED, LUNA_FALLBACK_WIDENED, choose, luna_report, yes},
    session::{Place, Session, not_empty},
    status::luna_status,
    table::{self, Object},
    tensor::Tensor,
    types::{luna_session, luna_tensor, luna_vae},
    view::{Floats, Meaning, floats, luna_view},
};
use luna_core::{
    Image, ImageView, Latent, LatentScale, LatentView, Runtime,
    checkpoint::Checkpoint,
    registry::Lease,
    vae::{Fallback, Halves, Report, Vae},
};
pub use options::*;
use options::{decode_options, encode_options};
use std::{ffi::c_char, ptr, sync::Arc};

/// The name that stands for the VAE that the library carries, in `luna_vae_load`.
const MOONLET: &str = "moonlet";

/// The object behind `luna_vae`.
pub(crate) struct LoadedVae {
    vae: Source,
    info: luna_vae_info,
    log: Log,
}

/// Where its weights are.
enum Source {
    Here(Lease<Vae>),
    There(RemoteVae),
}

impl Object for LoadedVae {
    const NAME: &'static str = "luna_vae";
}

/// What a VAE's report says, in the header's form; fallbacks go to the log, too.
fn told(report: &Report, copied: u64, watch: &Watch) -> luna_report {
    let mut told = luna_report::new(report.precision, report.elapsed);
    told.copied_bytes = copied;
    if let Some((tiling, tiles)) = report.tiling {
        (told.tile, told.tile_overlap) = (tiling.tile as u32, tiling.overlap as u32);
        told.tiles = tiles as u32;
    }
    for fallback in &report.fallbacks {
        watch.warn("VAE", fallback);
        match fallback {
            Fallback::Tiled { needed, available, .. } => {
                told.fallbacks |= LUNA_FALLBACK_TILED;
                (told.memory_needed, told.memory_available) = (*needed, *available);
            }
            Fallback::Widened { non_finite, .. } => {
                told.fallbacks |= LUNA_FALLBACK_WIDENED;
                told.non_finite = *non_finite as u64;
            }
            _ => {}
        }
    }
    told
}

/// The four sides of an array, or what is wrong with it.
fn four(what: &str, meaning: &str, floats: &Floats) -> Result<[usize; 4]> {
    floats.shape[..].try_into().map_err(|_| {
        wrong(format!("{what} has a wrong number of dimensions"))
            .expected(meaning)
            .found(format!("{:?}", floats.shape))
            .into()
    })
}

fn info(vae: &Vae) -> luna_vae_info {
    let scale = vae.latent_scale();
    luna_vae_info {
        size: 0,
        latent_channels: vae.latent_channels() as u32,
        picture_channels: vae.picture_channels() as u32,
        factor: vae.factor() as u32,
        has_scale: scale.is_some().into(),
        scale: scale.map_or(0.0, |scale| scale.scale),
        shift: scale.map_or(0.0, |scale| scale.shift),
        weight_bytes: vae.weight_bytes(),
    }
}

fn remote_info(vae: &RemoteVae) -> luna_vae_info {
    let scale = vae.scale();
    luna_vae_info {
        size: 0,
        latent_channels: vae.info.latent_channels as u32,
        picture_channels: 3,
        factor: vae.info.factor as u32,
        has_scale: scale.is_some().into(),
        scale: scale.map_or(0.0, |scale| scale.scale),
        shift: scale.map_or(0.0, |scale| scale.shift),
        weight_bytes: vae.bytes,
    }
}

impl LoadedVae {
    fn load(session: &Session, path: &str, options: &luna_vae_load_options) -> Result<Self> {
        let halves = choose("half of a VAE", options.halves, &[Halves::Both, Halves::Encoder, Halves::Decoder])?;
        let (vae, info) = match session.place() {
            Place::Here(embedded) => {
                let load = |checkpoint: &Checkpoint, runtime: &Runtime| Vae::load_halves(checkpoint, runtime, halves);
                let path = not_empty("path", path)?;
                let vae = match (halves, path) {
                    (Halves::Both, _) => {
                        embedded.acquire(path, Some((MOONLET, Vae::moonlet_checkpoint as fn() -> _)), load)?
                    }
                    (_, MOONLET) => embedded.adopt(path, &Vae::moonlet_checkpoint()?, &options.halves, load)?,
                    _ => embedded.acquire_read(path, &options.halves, load)?,
                };
                let info = info(&vae);
                (Source::Here(vae), info)
            }
            Place::There(_) if halves != Halves::Both => return Err(not_remote("half a VAE").into()),
            Place::There(daemon) => {
                let vae = RemoteVae::load(daemon, not_empty("path", path)?)?;
                let info = remote_info(&vae);
                (Source::There(vae), info)
            }
        };
        Ok(Self { vae, info, log: session.log })
    }

    fn scale(&self) -> Option<LatentScale> {
        match &self.vae {
            Source::Here(vae) => vae.latent_scale(),
            Source::There(vae) => vae.scale(),
        }
    }

    fn encode(
        &self,
        caller: &Caller,
        image: *const luna_view,
        options: &luna_encode_options,
        watch: &Watch,
    ) -> Result<(Tensor, luna_report)> {
        let floats = floats(caller, "image", image, Meaning::Pixels)?;
        let shape = four("the image", "[batch, height, width, channels]", &floats)?;
        let own = encode_options(options, watch)?;
        let (latent, report) = match &self.vae {
            Source::Here(vae) => {
                let encoded = vae.encode(ImageView::new(shape, &floats.values)?, &own)?;
                (encoded.latent, told(&encoded.report, floats.copied, watch))
            }
            Source::There(vae) => {
                let copied = floats.values.len() as u64 * 4;
                let (latent, report) = vae.encode(&Image::new(shape, floats.values.into_owned())?, &own, watch)?;
                (latent, luna_report { copied_bytes: copied, ..report })
            }
        };
        let latent = if yes(options.scaled) { latent.scaled()? } else { latent };
        Ok((Tensor::Latent(Arc::new(latent)), report))
    }

    fn decode(
        &self,
        caller: &Caller,
        latent: *const luna_view,
        options: &luna_decode_options,
        watch: &Watch,
    ) -> Result<(Tensor, luna_report)> {
        let floats = floats(caller, "latent", latent, Meaning::Numbers)?;
        let shape = four("the latent", "[batch, channels, height, width]", &floats)?;
        let (own, scaled) = (decode_options(options, watch)?, yes(options.scaled));
        let (image, report) = match &self.vae {
            Source::Here(vae) => {
                let latent = LatentView::new(shape, &floats.values)?.with_scale(self.scale(), scaled);
                let decoded = vae.decode(latent, &own)?;
                (decoded.image, told(&decoded.report, floats.copied, watch))
            }
            Source::There(vae) => {
                let copied = floats.values.len() as u64 * 4;
                let latent = Latent::new(shape, floats.values.into_owned())?.with_scale(self.scale(), scaled);
                let (image, report) = vae.decode(&latent, &own, watch)?;
                (image, luna_report { copied_bytes: copied, ..report })
            }
        };
        Ok((Tensor::Image(Arc::new(image)), report))
    }
}

fn load(
    caller: &Caller,
    session: luna_session,
    path: *const c_char,
    options: *const luna_vae_load_options,
    vae: *mut luna_vae,
) -> Result<()> {
    let place = caller.output("vae", vae)?;
    let (session, options) = (object::<Session>(session)?, caller.options(options)?);
    place.put(table::insert(LoadedVae::load(&session, caller.text("path", path)?, &options)?));
    Ok(())
}

/// Loads a VAE, or shares the one in memory if its content is the same. `path` is a file (.safetensors, alone or in a
/// checkpoint), a `.safetensors.index.json`, a diffusers folder, or `moonlet` for the small demonstration model that the
/// library carries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vae_load(session: luna_session, path: *const c_char, vae: *mut luna_vae) -> luna_status {
    boundary(|caller| load(caller, session, path, ptr::null(), vae))
}

/// As `luna_vae_load`, with options, which may be NULL. A daemon's VAEs are whole.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vae_load_with(
    session: luna_session,
    path: *const c_char,
    options: *const luna_vae_load_options,
    vae: *mut luna_vae,
) -> luna_status {
    boundary(|caller| load(caller, session, path, options, vae))
}

/// Tells what is known of a VAE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vae_get_info(vae: luna_vae, info: *mut luna_vae_info) -> luna_status {
    boundary(|caller| {
        caller.output("info", info)?;
        let mut place = caller.report(info)?;
        place.put(object::<LoadedVae>(vae)?.info);
        Ok(())
    })
}

/// Encodes pictures, `[batch, height, width, channels]` with 1, 3 or 4 channels in 0..1 (alpha is dropped, grey is
/// repeated), to latents, `[batch, latent channels, height/8, width/8]`. `options` and `report` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vae_encode(
    vae: luna_vae,
    image: *const luna_view,
    options: *const luna_encode_options,
    latent: *mut luna_tensor,
    report: *mut luna_report,
) -> luna_status {
    boundary(|caller| {
        let (place, mut report) = (caller.output("latent", latent)?, caller.report(report)?);
        let (vae, options) = (object::<LoadedVae>(vae)?, caller.options(options)?);
        let (tensor, told) = watched(options.call, vae.log, |watch| vae.encode(caller, image, &options, watch))?;
        place.put(tensor.open());
        report.put(told);
        Ok(())
    })
}

/// Decodes latents, `[batch, latent channels, height, width]`, to pictures, `[batch, height*8, width*8, 3]` in 0..1.
/// `options` and `report` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vae_decode(
    vae: luna_vae,
    latent: *const luna_view,
    options: *const luna_decode_options,
    image: *mut luna_tensor,
    report: *mut luna_report,
) -> luna_status {
    boundary(|caller| {
        let (place, mut report) = (caller.output("image", image)?, caller.report(report)?);
        let (vae, options) = (object::<LoadedVae>(vae)?, caller.options(options)?);
        let (tensor, told) = watched(options.call, vae.log, |watch| vae.decode(caller, latent, &options, watch))?;
        place.put(tensor.open());
        report.put(told);
        Ok(())
    })
}

/// Frees a VAE's handle. The model stays in memory for the next one, as the session's budget allows.
#[unsafe(no_mangle)]
pub extern "C" fn luna_vae_free(vae: luna_vae) -> luna_status {
    free::<LoadedVae>(vae)
}
